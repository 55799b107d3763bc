"""One episode, one encoding: round trips, any zip tool, golden bytes."""

import dataclasses
import hashlib
import io
import json
import pathlib
import zipfile

import numpy as np
import pytest
from episode_strategies import assert_arrays_equal, assert_equal, episodes, packed, small_spec
from hypothesis import given, settings

from sop_jax.episodes.format import index_of, pack, parse_arrays, unpack
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import CameraSpec, EpisodeMark

GOLDEN = pathlib.Path(__file__).parent / "golden"


@settings(max_examples=60)
@given(episode=episodes())
def test_any_episode_packs_and_comes_back_equal(episode):
    data, path = packed(episode)
    assert_equal(unpack(data, path), episode)
    assert pack(unpack(data, path)) == data
    verified = verify_bytes(data, path, decode_all_images=True)
    assert verified.manifest == episode.manifest
    assert_arrays_equal(verified.arrays, episode.arrays)
    for frame, images in zip(verified.index.image_ranges, episode.jpegs, strict=True):
        assert [data[offset : offset + length] for offset, length in frame] == list(images)
    offset, length = verified.index.arrays_range
    manifest, arrays = parse_arrays(data[offset : offset + length], (offset, length), path)
    assert manifest == episode.manifest
    assert_arrays_equal(arrays, episode.arrays)


def test_layout_is_a_plain_zip_in_the_documented_order():
    episode = make_episode(1, num_frames=5, image_stride=2, spec=small_spec)
    data, _ = packed(episode)
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "frames/000000/head.jpg",
        "frames/000000/hand_left.jpg",
        "frames/000002/head.jpg",
        "frames/000002/hand_left.jpg",
        "frames/000004/head.jpg",
        "frames/000004/hand_left.jpg",
        "arrays/state.npy",
        "arrays/action.npy",
        "arrays/intervention.npy",
        "arrays/policy_version.npy",
        "arrays/time_ns.npy",
        "arrays/image_frames.npy",
        "manifest.json",
    ]
    assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    state = np.load(io.BytesIO(archive.read("arrays/state.npy")), allow_pickle=False)
    np.testing.assert_array_equal(state, episode.arrays.state)
    manifest = json.loads(archive.read("manifest.json"))
    payload = data[: archive.getinfo("manifest.json").header_offset]
    assert manifest["payload_sha256"] == hashlib.sha256(payload).hexdigest()


def test_a_frames_images_are_adjacent_and_the_arrays_are_one_range():
    data, path = packed(make_episode(1, num_frames=6, spec=small_spec))
    index = index_of(data, path)
    assert index.size == len(data)
    assert index.image_ranges.shape == (2, 2, 2)
    starts, lengths = index.image_ranges[..., 0], index.image_ranges[..., 1]
    gaps = starts[:, 1] - (starts[:, 0] + lengths[:, 0])
    assert np.all(gaps == 30 + len("frames/000000/hand_left.jpg"))
    offset, length = index.arrays_range
    assert data[offset : offset + 4] == b"PK\3\4"
    assert starts.max() < offset
    assert data[offset + length : offset + length + 4] == b"PK\1\2"


def test_arrays_are_read_only_and_own_their_memory():
    data, path = packed(make_episode(1, spec=small_spec))
    arrays = unpack(data, path).arrays
    with pytest.raises(ValueError, match="read-only"):
        arrays.state[0, 0] = 1.0
    assert arrays.state.base is None or arrays.state.base.nbytes == arrays.state.nbytes


def test_an_episode_without_images_is_stored_too():
    episode = make_episode(1, num_frames=4, spec=small_spec)
    arrays = dataclasses.replace(episode.arrays, image_frames=np.zeros(0, np.int32))
    episode = dataclasses.replace(episode, arrays=arrays, jpegs=())
    data, path = packed(episode)
    assert_equal(unpack(data, path), episode)
    assert index_of(data, path).image_ranges.shape == (0, 2, 2)


@pytest.mark.parametrize("version", [1, 2])
def test_golden_episode_still_reads_and_still_packs_to_the_same_bytes(version):
    data = (GOLDEN / f"episode_v{version}.zip").read_bytes()
    told = json.loads((GOLDEN / f"episode_v{version}.json").read_text())
    assert hashlib.sha256(data).hexdigest() == told["sha256"]
    verified = verify_bytes(data, told["path"])
    assert verified.manifest.schema_version == version
    marks = (EpisodeMark(2, "breach", "speed, 3.2"), EpisodeMark(5, "stage", "grasp"))
    assert verified.manifest.marks == (marks if version == 2 else ())
    assert verified.index.arrays_range == tuple(told["arrays_range"])
    assert verified.index.image_ranges.tolist() == told["image_ranges"]
    assert verified.arrays.state[1, 2] == np.float32(told["state_1_2"])
    assert pack(unpack(data, told["path"])) == data


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"state": np.zeros((4, 16), np.float64)}, r"array state: expected float32\[4, 16\], got 'float64\[4, 16\]'"),
        ({"action": np.zeros((3, 16), np.float32)}, r"array action: expected float32\[4, 16\], got 'float32\[3, 16\]'"),
        ({"intervention": np.zeros(4, np.int8)}, r"array intervention: expected bool\[4\]"),
        ({"image_frames": np.array([3, 0], np.int32)}, r"image_frames: expected increasing, within 0..3, got \[3, 0\]"),
        ({"image_frames": np.array([0, 4], np.int32)}, "image_frames"),
        ({"image_frames": np.array([0], np.int32)}, r"JPEGs: expected 2 for each of 1 image frames, got \[2, 2\]"),
    ],
)
def test_pack_refuses_arrays_that_contradict_the_manifest(arrays, message):
    episode = make_episode(1, num_frames=4, spec=small_spec)
    broken = dataclasses.replace(episode, arrays=dataclasses.replace(episode.arrays, **arrays))
    with pytest.raises(InvalidEpisodeError, match=message):
        pack(broken)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cameras", (CameraSpec("../head", 8, 8), CameraSpec("hand_left", 8, 8))),
        ("cameras", (CameraSpec("head", 8, 8), CameraSpec("head", 8, 8))),
        ("control_hz", float("nan")),
        ("seed", "7"),
        ("seed", 2**63),
        ("instruction", ""),
        ("world", object()),
    ],
)
def test_pack_refuses_a_manifest_that_could_not_be_read_back(field, value):
    episode = make_episode(1, num_frames=4, spec=small_spec)
    broken = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, **{field: value}))
    with pytest.raises(InvalidEpisodeError, match="robot-0"):
        pack(broken)


def test_numpy_scalars_in_a_manifest_are_stored_as_plain_numbers():
    episode = make_episode(1, num_frames=4, spec=small_spec)
    manifest = dataclasses.replace(episode.manifest, seed=np.int64(5), control_hz=30)
    data, path = packed(dataclasses.replace(episode, manifest=manifest))
    assert type(unpack(data, path).manifest.seed) is int
    assert unpack(data, path).manifest.control_hz == 30.0
