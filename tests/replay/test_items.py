import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.replay.items import (
    FrameLabels,
    PackedSegment,
    decode_segment,
    draw_frame,
    encode_segment,
    label_all,
    segments_of,
)
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import item_key
from sop_jax.specs.records import (
    CameraSpec,
    EpisodeArrays,
    EpisodeIndex,
    EpisodeManifest,
    Outcome,
    Segment,
    Source,
)

CAMERAS = (CameraSpec("head", 8, 8), CameraSpec("hand", 8, 8))


def make(num_frames: int, stride: int) -> tuple[EpisodeManifest, EpisodeIndex, EpisodeArrays]:
    manifest = EpisodeManifest(
        episode_id="bot.00000000000000000007.000001",
        robot_id="bot",
        task="pick",
        instruction="pick it up",
        source=Source.ONLINE,
        policy_version=4,
        outcome=Outcome.SUCCESS,
        control_hz=30.0,
        num_frames=num_frames,
        cameras=CAMERAS,
        action_names=("a",),
        started_ns=7,
        ended_ns=99,
    )
    image_frames = np.arange(0, num_frames, stride, dtype=np.int32)
    arrays = EpisodeArrays(
        state=np.zeros((num_frames, 1), np.float32),
        action=np.zeros((num_frames, 1), np.float32),
        intervention=np.arange(num_frames) % 4 == 0,
        policy_version=np.full(num_frames, 4, np.int32),
        time_ns=np.arange(num_frames, dtype=np.int64),
        image_frames=image_frames,
    )
    starts = np.arange(len(image_frames) * 2).reshape(-1, 2) * 100
    ranges = np.stack([starts, np.full_like(starts, 90)], axis=-1)
    return manifest, EpisodeIndex("episodes/bot/x.zip", 10_000, (9000, 1000), ranges), arrays


def test_segments_by_hand():
    manifest, index, arrays = make(num_frames=13, stride=3)  # images on 0, 3, 6, 9, 12
    labels = FrameLabels(np.arange(13) != 3, np.arange(13, dtype=np.float32) / 10)
    segments = segments_of(manifest, index, arrays, labels, segment_length=3)
    assert [segment.frames.tolist() for segment in segments] == [[0, 6], [9, 12]]
    first = segments[0]
    assert first.image_ranges.tolist() == [[[0, 90], [100, 90]], [[400, 90], [500, 90]]]
    assert first.intervention.tolist() == [True, False]
    np.testing.assert_allclose(first.label, [0.0, 0.6])
    assert (first.path, first.task, first.source, first.policy_version, first.ended_ns, first.arrays_range) == (
        "episodes/bot/x.zip", "pick", Source.ONLINE, 4, 99, (9000, 1000),
    )  # fmt: skip
    assert (first.frames.dtype, first.image_ranges.dtype, first.label.dtype) == (np.int32, np.int64, np.float32)


@given(
    num_frames=st.integers(1, 120),
    stride=st.integers(1, 5),
    length=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_every_trainable_image_frame_is_in_exactly_one_segment(num_frames, stride, length, seed):
    manifest, index, arrays = make(num_frames, stride)
    rng = np.random.default_rng(seed)
    labels = FrameLabels(rng.random(num_frames) < 0.6, rng.random(num_frames).astype(np.float32))
    segments = segments_of(manifest, index, arrays, labels, length)
    expected = [f for f in arrays.image_frames.tolist() if labels.trainable[f]]
    assert [f for segment in segments for f in segment.frames.tolist()] == expected
    sizes = [len(segment.frames) for segment in segments]
    assert len(sizes) == -(-len(expected) // length)
    assert not sizes or (max(sizes) <= length and max(sizes) - min(sizes) <= 1)
    for segment in segments:
        np.testing.assert_array_equal(segment.image_ranges, index.image_ranges[segment.frames // stride])
        np.testing.assert_array_equal(segment.label, labels.label[segment.frames])


def assert_same(got: Segment, expected: Segment) -> None:
    for name, value in vars(expected).items():
        other = getattr(got, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype, name
            np.testing.assert_array_equal(other, value, err_msg=name)
        else:
            assert other == value, name
            assert type(other) is type(value), name


def test_a_segment_survives_its_item():
    manifest, index, arrays = make(num_frames=20, stride=2)
    for segment in segments_of(manifest, index, arrays, label_all(manifest, arrays), 4):
        item = encode_segment(segment)
        assert item.key == item_key(segment.episode_id, int(segment.frames[0]))
        assert item.priority == 1.0
        assert_same(decode_segment(item.columns), segment)
        packed = PackedSegment(item.columns)
        assert packed.num_frames == len(segment.frames)
        for slot in range(packed.num_frames):
            frame = packed.frame(slot)
            assert frame.frame == segment.frames[slot]
            assert frame.label == segment.label[slot]
            assert frame.image_ranges.dtype == np.int64
            np.testing.assert_array_equal(frame.image_ranges, segment.image_ranges[slot])
            for name in ("episode_id", "path", "task", "source", "ended_ns", "arrays_range"):
                assert getattr(frame, name) == getattr(segment, name)
                assert type(getattr(frame, name)) is type(getattr(segment, name))


def test_keys_of_an_episode_differ():
    manifest, index, arrays = make(num_frames=60, stride=1)
    items = [encode_segment(s) for s in segments_of(manifest, index, arrays, label_all(manifest, arrays), 4)]
    assert len({item.key for item in items}) == len(items) == 15


def test_drawing_places_keeps_frames_equally_likely():
    rng = np.random.default_rng(0)
    counts = np.zeros((2, 4))
    lengths = (4, 1)  # two segments, drawn equally often by the table
    for _ in range(20_000):
        which = rng.integers(2)
        place = draw_frame(lengths[which], 4, rng.random())
        if place is not None:
            counts[which, place] += 1
    assert counts[1, 1:].sum() == 0
    frames = np.array([*counts[0], counts[1, 0]])
    np.testing.assert_allclose(frames / 20_000, 1 / 8, atol=0.012)  # five standard deviations


def test_mistakes_are_told():
    manifest, index, arrays = make(num_frames=6, stride=1)
    with pytest.raises(ConfigError, match="segment_length must be at least 1"):
        segments_of(manifest, index, arrays, label_all(manifest, arrays), 0)
    with pytest.raises(ValueError, match=r"bot\.0+7\.000001: the labeler gave 5 labels for 6 frames"):
        segments_of(manifest, index, arrays, FrameLabels(np.ones(5, bool), np.ones(5, np.float32)))
    with pytest.raises(ValueError, match="trainable must be bool"):
        FrameLabels(np.ones(3), np.ones(3, np.float32))
    with pytest.raises(ValueError, match="label must be float32"):
        FrameLabels(np.ones(3, bool), np.ones(3))
    with pytest.raises(
        ValueError, match=r"this item is no segment \(it has the columns \['x'\]\): .* an older version"
    ):
        decode_segment({"x": np.zeros(1)})


def test_an_item_is_one_column_and_stays_small():
    """A server spends as much on each column as on a kilobyte of data."""
    manifest, index, arrays = make(num_frames=32, stride=1)
    (segment, _) = segments_of(manifest, index, arrays, label_all(manifest, arrays), 16)
    (column,) = encode_segment(segment).columns.values()
    own_bytes = sum(array.nbytes for array in vars(segment).values() if isinstance(array, np.ndarray))
    assert own_bytes < column.nbytes < own_bytes + 200
