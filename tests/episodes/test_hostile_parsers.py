"""Attacks, and mutations at every offset: always InvalidEpisodeError with a reason, and no memory to speak of."""

import base64
import contextlib
import dataclasses
import json
import pathlib
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from episode_strategies import packed, small_spec
from hostile import attacks, giant_jpeg, many_scans, progressive_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.episodes import format as format_module
from sop_jax.episodes import zip_layout
from sop_jax.episodes.array_codec import DTYPES, HEADER_BYTES, decode_arrays
from sop_jax.episodes.images import check_jpeg, decode_images, decode_into, encode_image
from sop_jax.episodes.jpeg_header import KnownHeaders, find_fault, sound_header
from sop_jax.episodes.manifest_codec import MAX_FRAMES, decode_manifest
from sop_jax.episodes.paths import quarantine_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import CameraSpec

DATA, PATH = packed(make_episode(1, num_frames=5, spec=small_spec, takeovers=((0, 1, 3),)))
ATTACKS = attacks(DATA)
TINY, TINY_PATH = packed(make_episode(1, num_frames=1, spec=make_spec(image_size=8, camera_names=("head",))))
HEAD = CameraSpec("head", 8, 8)
JPEG = encode_image(np.zeros((8, 8, 3), np.uint8))


def refusal(data: bytes, path: str) -> str:
    with pytest.raises(InvalidEpisodeError) as caught:
        verify_bytes(data, path, decode_all_images=True)
    return str(caught.value)


def test_the_attacks_start_from_a_valid_episode():
    assert verify_bytes(DATA, PATH, decode_all_images=True).manifest.num_frames == 5
    assert len(ATTACKS) == 30


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_with_a_short_reason_and_little_memory(name):
    data = ATTACKS[name]
    tracemalloc.start()
    try:
        reason = refusal(data, PATH)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert PATH in reason
    assert len(reason) < 2000
    assert "\x1b" not in reason
    assert peak < 10 * len(data) + 20_000_000


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_a_flip_at_every_offset_is_found(mask):
    data = bytearray(TINY)
    for at in range(len(data)):
        data[at] ^= mask
        with pytest.raises(InvalidEpisodeError):
            verify_bytes(bytes(data), TINY_PATH)
        data[at] ^= mask
    assert verify_bytes(bytes(data), TINY_PATH).manifest.num_frames == 1


@settings(max_examples=150)
@given(data=st.data())
def test_pieces_cut_out_doubled_or_swapped_are_found(data):
    start = data.draw(st.integers(0, len(TINY) - 1))
    end = data.draw(st.integers(start + 1, len(TINY)))
    at = data.draw(st.integers(0, len(TINY)))
    piece = TINY[start:end]
    for mutant in (TINY[:start] + TINY[end:], TINY[:at] + piece + TINY[at:], piece + TINY[:start] + TINY[end:]):
        if mutant != TINY:
            refusal(mutant, TINY_PATH)


@settings(max_examples=200)
@given(
    data=st.binary(max_size=300) | st.binary(max_size=80).map(lambda tail: TINY[:60] + tail),
    offset=st.integers(-5, 400),
    limit=st.integers(-5, 400),
    base=st.integers(0, 50),
)
def test_the_zip_readers_take_any_bytes(data, offset, limit, base):
    for read in (
        lambda: zip_layout.read_member(data, offset, limit, "frames/000000/head.jpg", "e", base),
        lambda: zip_layout.read_footer(data, "e"),
        lambda: zip_layout.read_directory(memoryview(data), ["a", "b"] * 500, "e"),
    ):
        with contextlib.suppress(InvalidEpisodeError):
            read()


@settings(max_examples=200)
@given(
    files=st.fixed_dictionaries({name: st.binary(max_size=300) for name in DTYPES}),
    num_frames=st.integers(1, MAX_FRAMES),
    action_dim=st.integers(1, 128),
)
def test_the_array_codec_takes_any_bytes(files, num_frames, action_dim):
    with pytest.raises(InvalidEpisodeError, match="array"):
        decode_arrays({name: memoryview(file) for name, file in files.items()}, num_frames, action_dim, "e")
    assert all(len(file) <= HEADER_BYTES + 200 for file in files.values())


@settings(max_examples=200)
@given(
    text=st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789eE-+.NaInfity \\u', max_size=200).map(str.encode)
)
def test_the_manifest_codec_takes_any_text(text):
    with pytest.raises(InvalidEpisodeError, match="episode e"):
        decode_manifest(text, "e")


@settings(max_examples=300)
@given(data=st.data())
def test_the_jpeg_check_takes_any_bytes(data):
    kind = data.draw(st.sampled_from(["any", "cut", "poked"]))
    if kind == "any":
        jpeg = data.draw(st.binary(max_size=200))
    elif kind == "cut":
        jpeg = JPEG[: data.draw(st.integers(0, len(JPEG)))] + data.draw(st.binary(max_size=40)) + b"\xff\xd9"
    else:
        poked = bytearray(JPEG)
        for at in data.draw(st.lists(st.integers(0, len(JPEG) - 1), max_size=4)):
            poked[at] = data.draw(st.integers(0, 255))
        jpeg = bytes(poked)
    with contextlib.suppress(InvalidEpisodeError):
        check_jpeg(jpeg, HEAD, "e")
        assert decode_images([jpeg], [HEAD], "e")["head"].shape == (8, 8, 3)


def test_a_colour_subsampling_without_a_name():
    """Found by the fuzzer: the library answers with KeyError."""
    jpeg = base64.b64decode(
        "/9j/Af//wAARCAAIAAgDARQAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAEC8vP09fb39vnq/9oADAMBAAIRAwA/AAD/////"
    )
    for read in (lambda: check_jpeg(jpeg, HEAD, "e"), lambda: decode_images([jpeg], [HEAD], "e")):
        with pytest.raises(InvalidEpisodeError, match=r"JPEG of head: expected a JPEG header, got 'KeyError\(6\)'"):
            read()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (giant_jpeg, "expected YCbCr or RGB, 8x8, got 'YCbCr, 65500x65500'"),
        (progressive_jpeg, "expected a sequential one of a few scans, got 'frame type 0xc2"),
        (many_scans, "expected a sequential one of a few scans, got '5000 scans'"),
        (lambda jpeg: many_scans(jpeg, 9), "got '9 scans'"),
        (lambda jpeg: jpeg[:2] + b"\xff\xfe\x00\x02" * 3 + jpeg[2:], ""),
    ],
    ids=["giant", "progressive", "5000 scans", "9 scans", "comments are fine"],
)
def test_the_loader_too_looks_before_it_decodes(make, message):
    jpeg = make(JPEG)
    if not message:
        assert decode_images([jpeg], [HEAD], "e")["head"].shape == (8, 8, 3)
        return
    with pytest.raises(InvalidEpisodeError, match=message):
        decode_images([jpeg], [HEAD], "e")


def test_more_files_than_a_zip_can_count(monkeypatch):
    """The directory's count has 16 bits: the writer refuses, and a reader must before it counts."""
    spec = dataclasses.replace(make_spec(8), cameras=tuple(CameraSpec(f"c{n:02}", 8, 8) for n in range(16)))
    sealed = make_episode(1, num_frames=4096, image_stride=1, spec=spec)
    sealed = dataclasses.replace(sealed, jpegs=((b"",) * 16,) * 4096)
    with pytest.raises(InvalidEpisodeError, match=r"too large for one object: expected at most .* 65534 members"):
        format_module.pack(sealed)
    end = zip_layout._END
    wrapping = SimpleNamespace(
        size=end.size, unpack=end.unpack, pack=lambda *v: end.pack(*v[:3], v[3] % 65536, v[4] % 65536, *v[5:])
    )
    with monkeypatch.context() as patch:
        patch.setattr(zip_layout, "MAX_MEMBERS", 10**6)
        patch.setattr(zip_layout, "_END", wrapping)
        data = format_module.pack(sealed)
    with pytest.raises(InvalidEpisodeError, match=r"number of files: expected at most 65534, got 65[0-9]{3}"):
        format_module.parse(data, "e")


def one_colour_scans(num: int) -> bytes:
    """After the header, scans of one colour each, which a decoder would take one after another."""
    at = JPEG.index(b"\xff\xda")
    return JPEG[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00" * num + b"\xff\xd9"


def test_many_scans_of_one_colour_each_are_not_decoded():
    with pytest.raises(InvalidEpisodeError, match="got '5000 scans'"):
        check_jpeg(one_colour_scans(5000), HEAD, "e")
    assert find_fault(one_colour_scans(3)) == ""
    assert find_fault(one_colour_scans(9)) == "9 scans"


def test_a_header_that_is_known_vouches_for_nothing_else():
    known, place = KnownHeaders(), np.zeros((8, 8, 3), np.uint8)
    assert not known.begin(JPEG, HEAD)
    decode_into([place], [JPEG], [HEAD], known, "e")
    assert known.begin(JPEG, HEAD)
    assert not known.begin(JPEG, CameraSpec("head", 9, 8))
    for jpeg, message in (
        (many_scans(JPEG, 9), "expected a whole JPEG, got \"Didn't expect more than one scan"),
        (sound_header(JPEG), "expected a whole JPEG"),
        (one_colour_scans(9), "got '9 scans'"),
        (giant_jpeg(JPEG), "expected YCbCr or RGB, 8x8"),
        (progressive_jpeg(JPEG), "frame type 0xc2"),
    ):
        with pytest.raises(InvalidEpisodeError, match=message):
            decode_into([place], [jpeg], [HEAD], known, "e")
    with pytest.raises(InvalidEpisodeError, match="expected YCbCr or RGB, 9x8"):
        decode_into([np.zeros((9, 8, 3), np.uint8)], [JPEG], [CameraSpec("head", 9, 8)], known, "e")


def test_known_headers_are_few_and_whole():
    known = KnownHeaders()
    known.add(one_colour_scans(3), HEAD)
    assert not known.begin(one_colour_scans(3), HEAD)  # its first scan doesn't hold all of the colours
    jpegs = [encode_image(np.zeros((8, 8, 3), np.uint8), quality) for quality in (50, 60, 70, 80, 90)]
    for jpeg in jpegs:
        known.add(jpeg, HEAD)
    assert [known.begin(jpeg, HEAD) for jpeg in jpegs] == [False, True, True, True, True]
    assert sound_header(JPEG)[-3:] == b"\x00\x3f\x00"  # the end of a start of scan: all coefficients at once
    assert sound_header(JPEG[: JPEG.index(b"\xff\xda")]) == b""


@settings(max_examples=60)
@given(
    text=st.binary(max_size=60)
    | st.sampled_from(
        [b"[" * 9000, b"{}", json.dumps({"path": "x", "reason": 5, "size": 1e999, "time_ns": []}).encode()]
    )
)
def test_quarantine_records_of_any_bytes_still_set_aside(text, tmp_path_factory):
    folder: pathlib.Path = tmp_path_factory.mktemp("records")
    record = folder / quarantine_path(TINY_PATH)
    record.parent.mkdir(parents=True)
    record.write_bytes(text)
    (reason,) = EpisodeStore(f"file://{folder}/").quarantined().values()
    assert "can't be read" in reason


def test_an_object_beyond_the_largest_is_not_even_read(tmp_path, store_url):
    file = tmp_path / "store" / TINY_PATH
    file.parent.mkdir(parents=True)
    file.touch()
    with file.open("r+b") as sparse:
        sparse.truncate(zip_layout.MAX_EPISODE_BYTES + 1)
    with pytest.raises(InvalidEpisodeError, match="size: expected at most 1073741824 bytes"):
        EpisodeStore(store_url).read_bytes(TINY_PATH)
