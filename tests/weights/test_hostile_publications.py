"""Whatever bytes lie where a publication's manifest or pointer should be: InvalidPublicationError."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights.manifest import decode_manifest, encode_manifest
from sop_jax.weights.weight_store import WeightStore

PUBLICATION = Publication(
    version=3,
    learner_step=75,
    base_fingerprint="base",
    norm_fingerprint="norm",
    created_ns=10**18,
    files={"params-1a2b3c4d/manifest.ocdbt": (10, "0" * 64)},
    restores=None,
    conditioning=Conditioning("Advantage: positive", 1.5),
)
TEXT = encode_manifest(PUBLICATION)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def read(text: bytes) -> Publication | None:
    with contextlib.suppress(InvalidPublicationError):
        return decode_manifest(text, 3)
    return None


def test_the_manifest_itself_is_read():
    assert read(TEXT) == PUBLICATION


@settings(max_examples=300)
@given(data=st.data(), value=json_values)
def test_any_json_in_any_field(data, value):
    document = json.loads(TEXT)
    field = data.draw(st.sampled_from(sorted(document)))
    if field == "files" and data.draw(st.booleans()):
        entry = document["files"]["params-1a2b3c4d/manifest.ocdbt"]
        entry[data.draw(st.sampled_from(["size", "sha256"]))] = value
    else:
        document[field] = value
    found = read(json.dumps(document).encode())
    assert found is None or found.version == 3


@settings(max_examples=200)
@given(text=st.binary(max_size=200))
def test_any_bytes(text):
    with pytest.raises(InvalidPublicationError, match="publication 3"):
        decode_manifest(text, 3)


def test_a_flip_at_every_offset_gives_a_publication_or_the_one_error():
    for at in range(len(TEXT)):
        for mask in (0x01, 0x20, 0x80):
            text = bytearray(TEXT)
            text[at] ^= mask
            found = read(bytes(text))
            assert found is None or found.version == 3


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(b'"learner_step": 75', b'"learner_step": 1e999'),
        TEXT.replace(b'"size": 10', b'"size": Infinity'),
        TEXT.replace(b'"created_ns": 1' + b"0" * 18, b'"created_ns": NaN'),
        TEXT.replace(b'"guidance": 1.5', b'"guidance": NaN'),
        TEXT.replace(b'"guidance": 1.5', b'"guidance": -1'),
        TEXT.replace(b'"suffix": "Advantage: positive",', b""),
        b"[" * 200_000,
        b'{"files":' * 50_000,
        b"1" * 1_000_000,
    ],
    ids=["overflow", "infinity", "nan", "guidance", "below 0", "half told", "deep list", "deep object", "digits"],
)
def test_numbers_that_are_none_and_depth_without_end(text):
    with pytest.raises(InvalidPublicationError, match="damaged"):
        decode_manifest(text, 3)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"3", b"{}", b'{"version": "x"}', b'{"version": 1e999}', b"[" * 200_000, b"\xff"]
)
def test_pointers_that_are_none(store_url, tmp_path, text):
    pointer = tmp_path / "store" / "weights" / "latest.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(text)
    with pytest.raises(InvalidPublicationError, match=r"latest\.json is damaged"):
        WeightStore(store_url).read_pointer()
