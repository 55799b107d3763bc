"""Replay items: a segment of an episode as one packed column, and back.

Legend: `T` frames of the episode, `K` of them with images, `L` frames of a segment, `C` cameras.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from google.protobuf.message import DecodeError

from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.replay.proto import segment_pb2
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import item_key
from sop_jax.specs.interfaces import Item
from sop_jax.specs.records import EpisodeArrays, EpisodeIndex, EpisodeManifest, Segment, Source

DEFAULT_SEGMENT_LENGTH = 16
"""Frames per item. The server spends kilobytes on an item however small it is, so an item holds several frames."""

SEGMENT_COLUMN = "segment"
"""The one column of a segment's item: uint8, a message of `proto/segment.proto`."""

STORABLE_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)
"""What a column may hold (in this machine's byte order)."""


@dataclasses.dataclass(frozen=True)
class FrameLabels:
    """What an algorithm says about each frame of an episode.

    trainable: bool [T], the frame may start a training example (it must also carry images).
    label: float32 [T], the algorithm's per-frame label (a loss weight; RECAP's indicator).
    """

    trainable: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        if self.trainable.dtype != np.bool_ or self.trainable.ndim != 1:
            raise ValueError(
                f"FrameLabels.trainable must be bool [T], got {self.trainable.dtype} {self.trainable.shape}"
            )
        if self.label.dtype != np.float32 or self.label.shape != self.trainable.shape:
            raise ValueError(
                f"FrameLabels.label must be float32 {self.trainable.shape}, got {self.label.dtype} {self.label.shape}"
            )


def label_all(manifest: EpisodeManifest, arrays: EpisodeArrays, images: EpisodeImages | None = None) -> FrameLabels:
    """The plainest labeler: every frame may train, with weight 1."""
    del manifest, images
    num_frames = arrays.num_frames
    return FrameLabels(np.ones(num_frames, bool), np.ones(num_frames, np.float32))


def segments_of(
    manifest: EpisodeManifest,
    index: EpisodeIndex,
    arrays: EpisodeArrays,
    labels: FrameLabels,
    segment_length: int = DEFAULT_SEGMENT_LENGTH,
) -> tuple[Segment, ...]:
    """Packs the trainable frames that carry images into segments of at most `segment_length`, as even as they go.

    Pure: the same episode and labels give the same segments. None if no frame is trainable.
    """
    if segment_length < 1:
        raise ConfigError(f"segment_length must be at least 1, got {segment_length}")
    if len(labels.trainable) != arrays.num_frames:
        raise ValueError(
            f"episode {manifest.episode_id}: the labeler gave {len(labels.trainable)} labels for {arrays.num_frames} frames"
        )
    kept = np.flatnonzero(labels.trainable[arrays.image_frames])  # rows of image_frames and of image_ranges
    if len(kept) == 0:
        return ()
    num_segments = -(-len(kept) // segment_length)
    segments = []
    for rows in np.array_split(kept, num_segments):
        frames = arrays.image_frames[rows].astype(np.int32)
        segments.append(
            Segment(
                episode_id=manifest.episode_id,
                path=index.path,
                task=manifest.task,
                source=manifest.source,
                policy_version=manifest.policy_version,
                ended_ns=manifest.ended_ns,
                frames=frames,
                image_ranges=index.image_ranges[rows].astype(np.int64),
                arrays_range=index.arrays_range,
                intervention=arrays.intervention[frames].astype(bool),
                label=labels.label[frames].astype(np.float32),
            )
        )
    return tuple(segments)


def possible_keys(manifest: EpisodeManifest, arrays: EpisodeArrays) -> tuple[int, ...]:
    """The keys that items of this episode can have, whatever was trainable when they were made."""
    return tuple(item_key(manifest.episode_id, frame) for frame in arrays.image_frames.tolist())


def draw_frame(num_frames: int, segment_length: int, uniform: float) -> int | None:
    """Picks the frame of a sampled segment so that all frames of a table stay equally likely, however full segments are.

    A table draws items uniformly, and segments hold between 1 and `segment_length` frames. So the draw falls on one of
    `segment_length` places; on an empty place it returns None, and the caller takes the next item.

    Args:
      num_frames: frames in the sampled segment.
      segment_length: the most that any segment of the table holds.
      uniform: a random number in [0, 1).
    """
    place = int(uniform * segment_length)
    return place if place < num_frames else None


def encode_segment(segment: Segment) -> Item:
    """The item of a segment. Its key comes from the episode and the first frame, so a retry changes nothing."""
    offset, length = segment.arrays_range
    message = segment_pb2.Segment(
        episode_id=segment.episode_id,
        path=segment.path,
        task=segment.task,
        source=segment.source,
        policy_version=segment.policy_version,
        ended_ns=segment.ended_ns,
        frames=segment.frames.astype("<i4").tobytes(),
        image_ranges=segment.image_ranges.astype("<i8").tobytes(),
        arrays_offset=offset,
        arrays_length=length,
        intervention=segment.intervention.astype(bool).tobytes(),
        label=segment.label.astype("<f4").tobytes(),
    )
    packed = np.frombuffer(message.SerializeToString(), np.uint8)
    return Item(item_key(segment.episode_id, int(segment.frames[0])), {SEGMENT_COLUMN: packed})


def decode_segment(columns: Mapping[str, np.ndarray]) -> Segment:
    """The segment of an item's columns; the inverse of `encode_segment`. Raises ValueError if they are no segment's."""
    try:
        return _unpack(segment_pb2.Segment.FromString(columns[SEGMENT_COLUMN].tobytes()))
    except (KeyError, ValueError, DecodeError) as error:
        why = f"it has the columns {sorted(columns)}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"this item is no segment ({why}): something else than intake, or an older version, wrote into this table; a "
            "replay server that starts anew is filled from the store"
        ) from error


def _unpack(message: segment_pb2.Segment) -> Segment:
    frames, label = np.frombuffer(message.frames, "<i4"), np.frombuffer(message.label, "<f4")
    intervention = np.frombuffer(message.intervention, np.uint8)
    ranges = np.frombuffer(message.image_ranges, "<i8")
    num_frames = len(frames)
    if num_frames == 0 or len(label) != num_frames or len(intervention) != num_frames or len(ranges) % (2 * num_frames):
        raise ValueError(
            f"{num_frames} frames, {len(label)} labels, {len(intervention)} interventions, {len(ranges)} numbers for images"
        )
    return Segment(
        episode_id=message.episode_id,
        path=message.path,
        task=message.task,
        source=Source(message.source),
        policy_version=message.policy_version,
        ended_ns=message.ended_ns,
        frames=frames.astype(np.int32, copy=False),
        image_ranges=ranges.astype(np.int64, copy=False).reshape(num_frames, -1, 2),
        arrays_range=(message.arrays_offset, message.arrays_length),
        intervention=intervention.astype(bool),
        label=label.astype(np.float32, copy=False),
    )


def check_item(item: Item) -> None:
    """Raises ValueError or TypeError if no table could hold this item."""
    if not 0 < item.key < 2**64:
        raise ValueError(f"item key {item.key} must be between 1 and 2**64 - 1; make it with identifiers.item_key")
    if not item.columns:
        raise ValueError(f"item {item.key} has no columns")
    if not item.priority >= 0:
        raise ValueError(f"item {item.key}: priority must be >= 0, got {item.priority}")
    for name, value in item.columns.items():
        if value.dtype not in STORABLE_DTYPES:
            raise TypeError(
                f"item {item.key}, column {name!r}: dtype {value.dtype} can't be stored; use numbers or bool, and uint8 "
                "arrays for text"
            )
