"""Images of sampled frames: byte ranges fetched together, JPEGs decoded in threads, recent ones kept."""

import concurrent.futures
import dataclasses
import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sop_jax.episodes.images import decode_into
from sop_jax.episodes.jpeg_header import KnownHeaders
from sop_jax.sampling.batch_images import BatchImages, Images
from sop_jax.sampling.byte_lru import ByteLru
from sop_jax.sampling.episode_cache import EpisodeNumbers, FaultLog, FrameReader
from sop_jax.sampling.frame_picker import FramePick
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

Jpegs = tuple[bytes, ...]
"""JPEGs of those of the policy's cameras that the episode has."""

_Key = tuple[str, int]

_Decoding = concurrent.futures.Future[list[Images | InvalidEpisodeError | None]]


class _Want(NamedTuple):
    """A frame, and the batch's rows that it is for."""

    pick: FramePick
    numbers: EpisodeNumbers
    rows: list[int]


@dataclasses.dataclass(frozen=True)
class PendingImages:
    """Rows of a batch whose images are on their way. parts: the frames of each decoding task; found: those held already."""

    wanted: dict[_Key, _Want]
    jpegs: dict[_Key, Jpegs]
    parts: list[tuple[list[_Key], _Decoding]]
    found: set[_Key]


class ImageCache:
    """Reads and decodes frames, and keeps recent ones. One thread starts what another may finish; decoding runs in `pool`,
    of `num_threads`.

        pending = images.start(picks, batch)   # reads
        images.finish(pending)                 # waits for the decoding

    Two levels, either of which may have 0 bytes: pixels cost nothing but their copy into the batch; JPEGs take a fraction of
    the memory and are decoded at every use (figures in docs/sampling.md).
    """

    def __init__(
        self,
        store: FrameReader,
        faults: FaultLog,
        pool: concurrent.futures.Executor,
        num_threads: int,
        pixel_bytes: int,
        jpeg_bytes: int,
    ):
        self._store = store
        self._faults = faults
        self._pool = pool
        self._num_threads = num_threads
        self._pixels: ByteLru[_Key, Images] = ByteLru(pixel_bytes)
        self._jpegs: ByteLru[_Key, Jpegs] = ByteLru(jpeg_bytes)
        self._headers = KnownHeaders()
        self._held = threading.Lock()
        """Guards both levels."""
        self._num_wanted = 0
        self._num_fetched = 0

    @property
    def hit_share(self) -> float:
        """Share of frames that needn't be fetched, 0 to 1."""
        return 1 - self._num_fetched / self._num_wanted if self._num_wanted else 0.0

    def start(self, picks: Sequence[tuple[int, FramePick, EpisodeNumbers]], batch: BatchImages) -> PendingImages:
        """Reads what isn't held and has the pool decode it into the batch. `picks`: each with its row of the batch."""
        wanted: dict[_Key, _Want] = {}
        for row, pick, numbers in picks:
            wanted.setdefault((pick.item.path, pick.item.frame), _Want(pick, numbers, [])).rows.append(row)
        found: set[_Key] = set()
        jpegs: dict[_Key, Jpegs] = {}
        missing: list[_Key] = []
        with self._held:
            for key, want in wanted.items():
                if (images := self._pixels.get(key)) is not None:
                    found.add(key)
                    for row in want.rows:
                        batch.put(row, images)
                elif (held := self._jpegs.get(key)) is not None:
                    jpegs[key] = held
                else:
                    missing.append(key)
        for key, fetched in zip(missing, self._fetch([wanted[key] for key in missing]), strict=True):
            if fetched is not None:
                jpegs[key] = fetched
        self._num_wanted += len(wanted)
        self._num_fetched += len(missing)
        keys = list(jpegs)
        share = max(
            1, math.ceil(len(keys) / self._num_threads)
        )  # smaller ones cost more in handing over than they balance
        parts = [keys[i : i + share] for i in range(0, len(keys), share)]
        tasks = [self._pool.submit(self._decode, [(wanted[key], jpegs[key]) for key in part], batch) for part in parts]
        return PendingImages(wanted, jpegs, list(zip(parts, tasks, strict=True)), found)

    def finish(self, pending: PendingImages) -> set[int]:
        """The rows that have their images now. The episodes of broken frames are given up."""
        found = set(pending.found)
        for part, task in pending.parts:
            for key, images in zip(part, task.result(), strict=True):
                if isinstance(images, InvalidEpisodeError):
                    self._faults.give_up(key[0], str(images))
                    continue
                found.add(key)
                if images is not None:
                    with self._held:
                        self._pixels.put(key, images, sum(image.nbytes + 128 for image in images if image is not None))
                if self._jpegs.max_bytes:
                    with self._held:
                        self._jpegs.put(key, pending.jpegs[key], sum(len(jpeg) + 64 for jpeg in pending.jpegs[key]))
        return {row for key in found for row in pending.wanted[key].rows}

    def _fetch(self, wanted: Sequence[_Want]) -> list[Jpegs | None]:
        """JPEGs of the policy's cameras; all at once, and one by one if that fails, to find the culprit."""
        if not wanted:
            return []
        requests = [(want.pick.item.path, want.pick.item.image_ranges[want.numbers.camera_columns]) for want in wanted]
        try:
            return list(self._store.read_images(requests))
        except (EpisodeNotFoundError, InvalidEpisodeError, OSError, ValueError):
            return [self._fetch_one(*request) for request in requests]

    def _fetch_one(self, path: str, ranges: np.ndarray) -> Jpegs | None:
        if path in self._faults:
            return None
        try:
            return self._store.read_images([(path, ranges)])[0]
        except (EpisodeNotFoundError, InvalidEpisodeError) as error:
            self._faults.give_up(path, str(error))
        except (OSError, ValueError) as error:
            self._faults.note(f"{path}: {error}")
        return None

    def _decode(
        self, frames: Sequence[tuple[_Want, Jpegs]], batch: BatchImages
    ) -> list[Images | InvalidEpisodeError | None]:
        """Fills the rows of these frames; returns what the cache of pixels may keep, if it keeps any."""
        decoded: list[Images | InvalidEpisodeError | None] = []
        for want, jpegs in frames:
            numbers, (first, *others) = want.numbers, want.rows
            try:
                decode_into(
                    batch.open(first, numbers.has_camera), jpegs, numbers.cameras, self._headers, want.pick.item.path
                )
            except InvalidEpisodeError as error:
                decoded.append(error)
                continue
            for row in others:
                batch.put(row, batch.views(first))
            if self._pixels.max_bytes:  # a view would keep the whole batch
                decoded.append(tuple(None if image is None else image.copy() for image in batch.views(first)))
            else:
                decoded.append(None)
        return decoded
