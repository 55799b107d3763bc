"""Images of sampled frames: byte ranges fetched together, JPEGs decoded in threads, recent ones kept."""

import concurrent.futures
from collections.abc import Mapping, Sequence

import numpy as np

from sop_jax.episodes.images import decode_images
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.byte_lru import ByteLru
from sop_jax.sampling.episode_cache import EpisodeNumbers, FaultLog, FrameReader
from sop_jax.sampling.frame_picker import FramePick
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

Images = tuple[np.ndarray | None, ...]
"""uint8 [h, w, 3] for each of the policy's cameras, None where the episode lacks the camera."""

Jpegs = tuple[bytes, ...]
"""JPEGs of those of the policy's cameras that the episode has."""

_Key = tuple[str, int]
_Pick = tuple[FramePick, EpisodeNumbers]

_FRAMES_PER_TASK = 8
"""Frames decoded by one task of the pool: a 64-pixel JPEG takes about as long as handing a task over."""


class ImageCache:
    """Reads and decodes frames, and keeps recent ones. Belongs to one thread; decoding runs in `pool`.

    Two levels, either of which may have 0 bytes: pixels cost nothing but their copy into the batch; JPEGs take a fraction of
    the memory and are decoded at every use (figures in docs/sampling.md).
    """

    def __init__(
        self,
        store: FrameReader,
        spec: BatchSpec,
        faults: FaultLog,
        pool: concurrent.futures.Executor,
        pixel_bytes: int,
        jpeg_bytes: int,
    ):
        self._store = store
        self._spec = spec
        self._faults = faults
        self._pool = pool
        self._pixels: ByteLru[_Key, Images] = ByteLru(pixel_bytes)
        self._jpegs: ByteLru[_Key, Jpegs] = ByteLru(jpeg_bytes)
        self._num_wanted = 0
        self._num_fetched = 0

    @property
    def hit_share(self) -> float:
        """Share of frames that needn't be fetched, 0 to 1."""
        return 1 - self._num_fetched / self._num_wanted if self._num_wanted else 0.0

    def read(self, picks: Sequence[_Pick]) -> list[Images | None]:
        """Images of each pick, None where they can't be had."""
        wanted: dict[_Key, _Pick] = {_key(pick): pick for pick in picks}
        found: dict[_Key, Images] = {}
        jpegs: dict[_Key, Jpegs] = {}
        missing: list[_Key] = []
        for key in wanted:
            if (images := self._pixels.get(key)) is not None:
                found[key] = images
            elif (held := self._jpegs.get(key)) is not None:
                jpegs[key] = held
            else:
                missing.append(key)
        for key, fetched in zip(missing, self._fetch([wanted[key] for key in missing]), strict=True):
            if fetched is not None:
                jpegs[key] = fetched
        for key, images in self._decode_all(jpegs, wanted).items():
            found[key] = images
            self._pixels.put(key, images, sum(image.nbytes + 128 for image in images if image is not None))
            self._jpegs.put(key, jpegs[key], sum(len(jpeg) + 64 for jpeg in jpegs[key]))
        self._num_wanted += len(wanted)
        self._num_fetched += len(missing)
        return [found.get(_key(pick)) for pick in picks]

    def _decode_all(self, jpegs: Mapping[_Key, Jpegs], wanted: Mapping[_Key, _Pick]) -> dict[_Key, Images]:
        """Key -> images, decoded by the pool; broken frames are left out and their episodes given up."""
        keys = list(jpegs)
        parts = [keys[i : i + _FRAMES_PER_TASK] for i in range(0, len(keys), _FRAMES_PER_TASK)]
        tasks = [self._pool.submit(self._decode, [(wanted[key], jpegs[key]) for key in part]) for part in parts]
        decoded: dict[_Key, Images] = {}
        for part, task in zip(parts, tasks, strict=True):
            for key, images in zip(part, task.result(), strict=True):
                if isinstance(images, InvalidEpisodeError):
                    self._faults.give_up(key[0], str(images))
                else:
                    decoded[key] = images
        return decoded

    def _fetch(self, picks: Sequence[_Pick]) -> list[Jpegs | None]:
        """JPEGs of the policy's cameras; all at once, and one by one if that fails, to find the culprit."""
        if not picks:
            return []
        requests = [(pick.segment.path, _ranges(pick, numbers)) for pick, numbers in picks]
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

    def _decode(self, frames: Sequence[tuple[_Pick, Jpegs]]) -> list[Images | InvalidEpisodeError]:
        decoded: list[Images | InvalidEpisodeError] = []
        for (pick, numbers), jpegs in frames:
            cameras = [c for c, row in zip(self._spec.cameras, numbers.camera_rows, strict=True) if row is not None]
            try:
                images = decode_images(jpegs, cameras, pick.segment.path)
            except InvalidEpisodeError as error:
                decoded.append(error)
            else:
                decoded.append(tuple(images.get(camera.name) for camera in self._spec.cameras))
        return decoded


def _key(pick: _Pick) -> _Key:
    return pick[0].segment.path, pick[0].frame


def _ranges(pick: FramePick, numbers: EpisodeNumbers) -> np.ndarray:
    rows = [row for row in numbers.camera_rows if row is not None]
    return pick.segment.image_ranges[pick.slot][rows]
