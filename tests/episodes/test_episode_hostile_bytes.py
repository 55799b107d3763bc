"""No bytes make the verifier do anything but accept the episode itself or raise InvalidEpisodeError."""

import struct

import pytest
from episode_strategies import assert_equal, packed, rewrite, small_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.episodes.format import index_of, parse_without_images, unpack
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.verify import verify_bytes
from sop_jax.episodes.zip_layout import FOOTER_BYTES, read_footer
from sop_jax.specs.errors import InvalidEpisodeError

EPISODE = make_episode(1, num_frames=5, spec=small_spec, takeovers=((0, 1, 3),))
DATA, PATH = packed(EPISODE)
FOOTER = read_footer(DATA[-FOOTER_BYTES:], PATH)


def accepted(data: bytes, path: str = PATH) -> bool:
    """Whether the verifier takes these bytes; then they must be the episode. Any other exception fails the test."""
    try:
        verify_bytes(data, path, decode_all_images=True)
    except InvalidEpisodeError:
        return False
    assert_equal(unpack(data, path), EPISODE)
    return True


def test_every_single_flipped_byte_is_found():
    data = bytearray(DATA)
    for at in range(0, len(data), 7):
        data[at] ^= 0x20
        assert not accepted(bytes(data)), f"byte {at} of {len(data)} was flipped and nobody noticed"
        data[at] ^= 0x20
    assert accepted(bytes(data))


@settings(max_examples=150)
@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7), count=st.integers(1, 4), step=st.integers(1, 97))
def test_flips_anywhere(at, bit, count, step):
    data = bytearray(DATA)
    for i in range(count):
        data[(at + i * step) % len(data)] ^= 1 << bit
    assert not accepted(bytes(data))


@settings(max_examples=150)
@given(at=st.integers(FOOTER.arrays_offset, len(DATA) - 1), value=st.integers(0, 255))
def test_the_numeric_tail_alone_is_as_strict(at, value):
    data = bytearray(DATA)
    data[at] = value
    try:
        footer = read_footer(bytes(data[-FOOTER_BYTES:]), PATH)
        light = parse_without_images(bytes(data[footer.arrays_offset : footer.size]), footer, PATH)
    except InvalidEpisodeError:
        assert data != DATA
    else:
        assert light.manifest == EPISODE.manifest
        assert light.index.image_ranges.tolist() == index_of(DATA, PATH).image_ranges.tolist()


@settings(max_examples=80)
@given(end=st.integers(0, len(DATA) - 1))
def test_truncations(end):
    assert not accepted(DATA[:end])
    assert not accepted(DATA[end + 1 :])


@settings(max_examples=150)
@given(data=st.binary(max_size=400), path=st.text(max_size=40))
def test_random_bytes_under_any_path(data, path):
    assert not accepted(data, path)
    assert not accepted(data + DATA[-FOOTER_BYTES:])


@settings(max_examples=150)
@given(
    at=st.integers(0, len(DATA) - 5),
    value=st.sampled_from([0, 1, 2**16 - 1, 2**31, 2**32 - 1]),
    near_end=st.booleans(),
)
def test_extreme_numbers_anywhere(at, value, near_end):
    at = len(DATA) - 5 - at % 400 if near_end else at
    data = DATA[:at] + struct.pack("<L", value) + DATA[at + 4 :]
    assert accepted(data) == (data == DATA)


@settings(max_examples=150)
@given(
    arrays=st.integers(0, 10**10 - 1),
    manifest=st.integers(0, 10**10 - 1),
    start=st.integers(0, 2**32 - 1) | st.just(FOOTER.directory_offset),
    length=st.integers(0, 2**32 - 1),
)
def test_footers_that_point_anywhere(arrays, manifest, start, length):
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 12, 12, length, start, FOOTER_BYTES - 22)
    data = DATA[:-FOOTER_BYTES] + end + b"sop-episode arrays=%010d manifest=%010d" % (arrays, manifest)
    assert accepted(data) == (data == DATA)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200)
@given(data=st.data(), value=json_values)
def test_manifests_with_any_json_in_any_field(data, value):
    def edit(manifest: dict) -> None:
        field = data.draw(st.sampled_from(sorted(manifest)))
        if isinstance(manifest[field], list) and data.draw(st.booleans()):
            manifest[field].append(value)
        elif field in ("cameras", "takeovers") and data.draw(st.booleans()):
            manifest[field][0][data.draw(st.sampled_from(sorted(manifest[field][0])))] = value
        else:
            manifest[field] = value

    hostile = rewrite(DATA, edit)
    try:
        verified = verify_bytes(hostile, PATH)
    except InvalidEpisodeError:
        return
    assert verified.manifest.episode_id == EPISODE.manifest.episode_id


@settings(max_examples=80)
@given(jpeg=st.binary(max_size=200), keep=st.integers(0, 700))
def test_jpegs_of_any_bytes(jpeg, keep):
    first = EPISODE.jpegs[0][0]

    def poison(name: str, content: bytes) -> tuple[str, bytes]:
        return name, first[:keep] + jpeg if name == "frames/000003/head.jpg" else content

    hostile = rewrite(DATA, edit_member=poison)
    try:
        verify_bytes(hostile, PATH, decode_all_images=True)
    except InvalidEpisodeError as error:
        assert "JPEG of head" in str(error)  # noqa: PT017
    else:
        assert keep + len(jpeg) > 100


@pytest.mark.parametrize("size", [0, 1, FOOTER_BYTES - 1, FOOTER_BYTES, 5000])
def test_zeros(size):
    assert not accepted(bytes(size))
