"""The episode store: immutable objects in a directory or a bucket, and the only service that a robot needs.

Uploads are atomic and create-only; readers fetch byte ranges, many in flight.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorstore as ts

from sop_jax.episodes import format as episode_format
from sop_jax.episodes import kvstore, paths
from sop_jax.episodes.format import ParsedEpisode
from sop_jax.episodes.rejection import reject
from sop_jax.episodes.zip_layout import FOOTER_BYTES, MAX_EPISODE_BYTES, Footer, read_footer
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.errors import ConfigError, EpisodeExistsError, EpisodeNotFoundError, InvalidEpisodeError, SopError
from sop_jax.specs.records import Episode, EpisodeArrays, EpisodeIndex, EpisodeManifest

_MAX_GAP_BYTES = 512
"""Ranges closer than this are fetched by one read: between a frame's JPEGs lie only zip headers."""


@dataclasses.dataclass(frozen=True)
class EpisodeSummary:
    """One object in the store, told without its arrays and images.

    Exactly one of `manifest` and `problem` is set: an object that can't be read has its complaint in `problem` and size 0.
    """

    path: str
    size: int
    manifest: EpisodeManifest | None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class QuarantineRecord:
    """Why an object is set aside; the object itself stays where it is."""

    path: str
    reason: str
    size: int
    time_ns: int


class EpisodeStore:
    """Episodes below one store root. Thread-safe; every call blocks until it is done.

        index = store.put(episode)                                      # a robot
        for path in store.list_paths():                                 # intake
            verify_bytes(store.read_bytes(path), path)
        (jpegs,) = store.read_images([(path, index.image_ranges[k])])   # the loader

    Args:
        url: Root of the store; see `kvstore.open_kvstore`.
        clock: Stamps quarantine records; default wall time.
        num_in_flight: Reads handed to TensorStore at once in the calls that read many ranges.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, num_in_flight: int = 128):
        if num_in_flight < 1:
            raise ConfigError(f"store {url!r}: num_in_flight must be at least 1, got {num_in_flight}")
        self.url = url
        self._kvstore = kvstore.open_kvstore(url)
        self._clock = clock or WallClock()
        self._num_in_flight = num_in_flight

    @property
    def root(self) -> ts.KvStore:
        """Where everything lies; for retirement and repair, which keep records of their own there."""
        return self._kvstore

    def put(self, episode: Episode) -> EpisodeIndex:
        """Packs and stores an episode; see `put_bytes`."""
        return self.put_bytes(episode.manifest.episode_id, episode_format.pack(episode))

    def put_bytes(self, episode_id: str, data: bytes) -> EpisodeIndex:
        """Stores a packed episode, atomically and durably. Storing the same bytes again changes nothing.

        Raises:
            EpisodeExistsError: The store holds other bytes under this id; nothing was written.
            InvalidEpisodeError: The bytes are torn or hold another episode; nothing was written.
        """
        path = paths.episode_path(episode_id)
        parsed = episode_format.parse(data, path)
        if (found := parsed.manifest.episode_id) != episode_id:
            raise reject(path, "identity", expected=episode_id, got=found, fix="Pass the manifest's own episode_id.")
        if not kvstore.create(self._kvstore, path, data) and (present := self.read_bytes(path)) != data:
            raise EpisodeExistsError(
                f"episode {episode_id}: expected a new id or the same {len(data)} bytes, got {len(present)} other bytes "
                f"at {path}. Two robots share a robot_id, or a clock was set back: give each robot its own robot_id."
            )
        return parsed.index

    def list_paths(self, robot_id: str | None = None) -> list[str]:
        """Paths of all episodes (of one robot), sorted: by robot, then by age. Half-written ones are never among them."""
        below = paths.EPISODES if robot_id is None else f"{paths.EPISODES}{robot_id}/"
        return [path for path in self._list(below) if paths.is_episode_path(path)]

    def list_strangers(self) -> list[str]:
        """Other paths below `episodes/`: nothing that an EpisodeStore writes, and nothing that anybody reads."""
        return [path for path in self._list(paths.EPISODES) if not paths.is_episode_path(path)]

    def read_bytes(self, path: str) -> bytes:
        """A whole object. Raises EpisodeNotFoundError, or InvalidEpisodeError if it is too large to be an episode."""
        return kvstore.read(self._kvstore, path, MAX_EPISODE_BYTES)

    def read(self, path: str) -> Episode:
        """A whole episode, its checksums checked. Raises EpisodeNotFoundError, InvalidEpisodeError."""
        return episode_format.unpack(self.read_bytes(path), path)

    def read_arrays(self, path: str, arrays_range: tuple[int, int]) -> tuple[EpisodeManifest, EpisodeArrays]:
        """Manifest and arrays by one range read. Raises EpisodeNotFoundError, InvalidEpisodeError."""
        offset, length = arrays_range
        (tail,) = self._read([(path, slice(offset, offset + length))])
        return episode_format.parse_arrays(tail, arrays_range, path)

    def read_without_images(self, path: str) -> ParsedEpisode:
        """Manifest, arrays and index by two range reads: what rebuilding the replay tables needs of an object that was
        verified before. Raises EpisodeNotFoundError, InvalidEpisodeError."""
        (last,) = self._read([(path, slice(-FOOTER_BYTES, None))])
        footer = read_footer(last, path)
        (end,) = self._read([(path, slice(footer.arrays_offset, footer.size))])
        return episode_format.parse_without_images(end, footer, path)

    def read_images(self, requests: Sequence[tuple[str, np.ndarray]]) -> list[tuple[bytes, ...]]:
        """JPEGs of many frames, in the order of the requests; `num_in_flight` reads are asked for together.

        Args:
            requests: (path, int64 [C, 2]) each: rows of `EpisodeIndex.image_ranges`. Adjacent JPEGs cost one read.

        Raises:
            EpisodeNotFoundError: A request's object is gone.
            InvalidEpisodeError: A range lies outside its object.
        """
        plans = [_Plan.of(path, ranges) for path, ranges in requests]
        chunks = self._read([(plan.path, span) for plan in plans for span in plan.spans])
        return [plan.cut([next(chunks) for _ in plan.spans]) for plan in plans]

    def summaries(self, robot_id: str | None = None) -> list[EpisodeSummary]:
        """The manifests of all episodes, by three small range reads each. Broken objects are told, not raised.

        An object that claims another size than it has is broken: what a summary says is what the store holds.
        """
        listed = self.list_paths(robot_id)
        found: dict[str, EpisodeSummary] = {}
        footers: dict[str, tuple[Footer, bytes]] = {}
        last = kvstore.try_read_spans(
            self._kvstore, [(path, slice(-FOOTER_BYTES, None)) for path in listed], self._num_in_flight
        )
        for path, result in zip(listed, last, strict=True):
            try:
                end = _or_raise(result)
                footers[path] = read_footer(end, path), end
            except SopError as error:
                found[path] = EpisodeSummary(path, 0, None, str(error))
        claimed = [(path, slice(footer.size - FOOTER_BYTES, footer.size)) for path, (footer, _) in footers.items()]
        ends = kvstore.try_read_spans(self._kvstore, claimed, self._num_in_flight)
        spans = [
            (path, slice(footer.manifest_offset, footer.directory_offset)) for path, (footer, _) in footers.items()
        ]
        results = kvstore.try_read_spans(self._kvstore, spans, self._num_in_flight)
        for (path, (footer, end)), claimed_end, result in zip(footers.items(), ends, results, strict=True):
            try:
                if _or_raise(claimed_end) != end:
                    raise InvalidEpisodeError(
                        f"{path}: its end says that it has {footer.size} bytes, and lies elsewhere"
                    )
                manifest = episode_format.parse_manifest(_or_raise(result), footer, path)
                found[path] = EpisodeSummary(path, footer.size, manifest)
            except SopError as error:
                found[path] = EpisodeSummary(path, 0, None, str(error))
        return [found[path] for path in listed]

    def quarantine(self, path: str, reason: str, *, size: int | None = None) -> None:
        """Sets an episode aside: writes why, and leaves the object in place. The first reason given stands.

        Args:
            path: The episode's object.
            reason: What is wrong, in words.
            size: Bytes of the object, if known; else it is read to find out (0 if it is gone or far too large).
        """
        record_path = paths.quarantine_path(path)
        if size is None:
            try:
                size = len(self.read_bytes(path))
            except (EpisodeNotFoundError, InvalidEpisodeError):
                size = 0
        record = QuarantineRecord(path, reason, size, self._clock.now_ns())
        text = json.dumps(dataclasses.asdict(record), indent=1) + "\n"
        kvstore.create(self._kvstore, record_path, text.encode())

    def quarantined(self) -> dict[str, str]:
        """Path -> reason, of every episode that is set aside."""
        return {record.path: record.reason for record in self.quarantine_records()}

    def quarantined_paths(self) -> list[str]:
        """Every episode that is set aside, without the reasons: a listing, and no reads."""
        return [paths.quarantined_path(key) for key in self._list(paths.QUARANTINE) if paths.is_quarantine_path(key)]

    def quarantine_records(self) -> list[QuarantineRecord]:
        """Every episode that is set aside, and why. A record that can't be read counts too, with that as its reason."""
        listed = [key for key in self._list(paths.QUARANTINE) if paths.is_quarantine_path(key)]
        texts = self._read([(key, slice(0, None)) for key in listed])
        return [_record(key, text) for key, text in zip(listed, texts, strict=True)]

    def _list(self, below: str) -> list[str]:
        return kvstore.list_below(self._kvstore, below)

    def _read(self, spans: Sequence[kvstore.Span]) -> Iterator[bytes]:
        return kvstore.read_spans(self._kvstore, spans, self._num_in_flight)


class _Plan(NamedTuple):
    """How one frame's JPEGs are fetched: the spans to read, and each JPEG's span and place within it."""

    path: str
    spans: list[slice]
    cuts: list[tuple[int, slice]]

    @classmethod
    def of(cls, path: str, ranges: np.ndarray) -> "_Plan":
        spans: list[slice] = []
        cuts: list[tuple[int, slice]] = []
        for offset, length in ranges.tolist():
            if spans and 0 <= offset - spans[-1].stop <= _MAX_GAP_BYTES:
                spans[-1] = slice(spans[-1].start, offset + length)
            else:
                spans.append(slice(offset, offset + length))
            start = spans[-1].start
            cuts.append((len(spans) - 1, slice(offset - start, offset - start + length)))
        return cls(path, spans, cuts)

    def cut(self, chunks: list[bytes]) -> tuple[bytes, ...]:
        return tuple(chunks[span][place] for span, place in self.cuts)


def _or_raise(result: bytes | SopError) -> bytes:
    if isinstance(result, SopError):
        raise result
    return result


def _record(key: str, text: bytes) -> QuarantineRecord:
    path = paths.quarantined_path(key)
    try:
        record = QuarantineRecord(**json.loads(text))
        record.reason.encode()
        if type(record.size) is not int or type(record.time_ns) is not int:
            raise TypeError(f"expected integers, got {record.size!r:.80} and {record.time_ns!r:.80}")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return QuarantineRecord(path, f"its quarantine record {key} can't be read: {error}", 0, 0)
    return dataclasses.replace(record, path=path)
