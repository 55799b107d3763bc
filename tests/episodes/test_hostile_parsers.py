"""Attacks, and mutations at every offset: always InvalidEpisodeError with a reason, and no memory to speak of."""

import base64
import contextlib
import json
import pathlib
import tracemalloc

import numpy as np
import pytest
from episode_strategies import packed, small_spec
from hostile import attacks, giant_jpeg, many_scans, progressive_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.episodes import zip_layout
from sop_jax.episodes.array_codec import DTYPES, HEADER_BYTES, decode_arrays
from sop_jax.episodes.images import check_jpeg, decode_images, encode_image
from sop_jax.episodes.jpeg_header import sound_header
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
        (many_scans, "expected a sequential one of a few scans, got '5000 scans'|Didn't expect more than one scan"),
        (lambda jpeg: many_scans(jpeg, 9), "got '9 scans'|Didn't expect more than one scan"),
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


def test_a_header_that_was_seen_before_vouches_for_nothing_else():
    decode_images([JPEG], [HEAD], "e")
    sound = sound_header(JPEG)
    assert JPEG.startswith(sound)
    assert sound[-3:] == b"\x00\x3f\x00"  # the end of a start of scan: all coefficients at once
    assert len(sound) < len(JPEG) - 2
    with pytest.raises(
        InvalidEpisodeError, match="JPEG of head: expected a whole JPEG, got \"Didn't expect more than one"
    ):
        decode_images([many_scans(JPEG, 9)], [HEAD], "e")
    with pytest.raises(InvalidEpisodeError, match="expected a whole JPEG"):
        decode_images([sound], [HEAD], "e")
    with pytest.raises(InvalidEpisodeError, match="expected YCbCr or RGB, 9x8"):
        decode_images([JPEG], [CameraSpec("head", 9, 8)], "e")
    for make in (giant_jpeg, progressive_jpeg):
        with pytest.raises(InvalidEpisodeError, match=r"expected YCbCr or RGB, 8x8|frame type 0xc2"):
            decode_images([make(JPEG)], [HEAD], "e")


def test_a_header_of_one_colour_at_a_time_is_not_remembered():
    at = JPEG.index(b"\xff\xda")
    one_colour = JPEG[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + JPEG[at + 14 :]
    assert sound_header(one_colour) == b""
    assert sound_header(JPEG[:at]) == b""


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
