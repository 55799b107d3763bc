"""Replay items: a segment of an episode as one packed column, and back.

Legend: `T` frames of the episode, `K` of them with images, `L` frames of a segment, `C` cameras.
"""

import dataclasses
import struct
from collections.abc import Mapping
from typing import NamedTuple

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

    Pure: the same episode and labels give the same segments; () if no frame is trainable.
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
    return PackedSegment(columns).unpack()


class SegmentFrame(NamedTuple):
    """One frame of a segment, and where its bytes lie; fields as in `Segment`, of which image_ranges is int64 [C, 2]."""

    episode_id: str
    path: str
    task: str
    source: Source
    ended_ns: int
    arrays_range: tuple[int, int]
    frame: int
    image_ranges: np.ndarray
    label: float


class PackedSegment:
    """A segment as it came out of a table: a draw needs one of its frames, or none, so each is unpacked by itself.

    Raises ValueError if the columns are no segment's.
    """

    __slots__ = ("_message", "_source", "num_frames")

    def __init__(self, columns: Mapping[str, np.ndarray]):
        try:
            message = segment_pb2.Segment.FromString(columns[SEGMENT_COLUMN].tobytes())
            self.num_frames = _count_frames(message)
            self._source = Source(message.source)
        except (KeyError, ValueError, DecodeError) as error:
            why = f"it has the columns {sorted(columns)}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"this item is no segment ({why}): something else than intake, or an older version, wrote into this table; "
                "a replay server that starts anew is filled from the store"
            ) from error
        self._message = message

    def frame(self, slot: int) -> SegmentFrame:
        """The frame at a place of the segment, 0 <= slot < num_frames."""
        message = self._message
        num_bytes = len(message.image_ranges) // self.num_frames
        ranges = np.frombuffer(message.image_ranges, "<i8", num_bytes // 8, slot * num_bytes)
        return SegmentFrame(
            message.episode_id,
            message.path,
            message.task,
            self._source,
            message.ended_ns,
            (message.arrays_offset, message.arrays_length),
            int.from_bytes(message.frames[4 * slot : 4 * slot + 4], "little", signed=True),
            ranges.astype(np.int64, copy=False).reshape(-1, 2),
            struct.unpack_from("<f", message.label, 4 * slot)[0],
        )

    def unpack(self) -> Segment:
        """All of it."""
        message = self._message
        ranges = np.frombuffer(message.image_ranges, "<i8").reshape(self.num_frames, -1, 2)
        return Segment(
            episode_id=message.episode_id,
            path=message.path,
            task=message.task,
            source=self._source,
            policy_version=message.policy_version,
            ended_ns=message.ended_ns,
            frames=np.frombuffer(message.frames, "<i4").astype(np.int32, copy=False),
            image_ranges=ranges.astype(np.int64, copy=False),
            arrays_range=(message.arrays_offset, message.arrays_length),
            intervention=np.frombuffer(message.intervention, np.uint8).astype(bool),
            label=np.frombuffer(message.label, "<f4").astype(np.float32, copy=False),
        )


def _count_frames(message: segment_pb2.Segment) -> int:
    """Raises ValueError if the arrays aren't of one length."""
    frames, labels, interventions = len(message.frames), len(message.label), len(message.intervention)
    num_frames, ranges = interventions, len(message.image_ranges)
    if num_frames == 0 or frames != 4 * num_frames or labels != 4 * num_frames or ranges % (16 * num_frames):
        raise ValueError(
            f"frames, labels, interventions and places of images take {frames}, {labels}, {interventions} and {ranges} "
            "bytes, expected 4, 4, 1 and 16 for each camera, for each frame"
        )
    return num_frames


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
