"""The numbers of the episodes that were sampled lately: read from the store once, ready to be cut into examples.

Legend: `T` frames of an episode, `H` horizon, `P` = T + H - 1, `A` action dimensions.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from sop_jax.algorithms.algorithm import Algorithm, Phase
from sop_jax.sampling.batch_spec import BatchSpec, Tokenize
from sop_jax.sampling.byte_lru import ByteLru
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError, UnlabelledEpisodeError
from sop_jax.specs.records import CameraSpec, EpisodeArrays, EpisodeManifest, is_same_rate

_MAX_REMEMBERED_FAULTS = 10_000
_LEFT_ALONE_S = 600.0
_MAX_INSTRUCTIONS = 4096

ArraysRange = tuple[int, int]


@runtime_checkable
class FrameReader(Protocol):
    """What the loader asks of the episode store (`EpisodeStore` has it).

    Both raise EpisodeNotFoundError or InvalidEpisodeError for good reasons to give an episode up; anything else (OSError,
    ValueError) counts as a read that may succeed next time.
    """

    def read_arrays(self, path: str, arrays_range: ArraysRange) -> tuple[EpisodeManifest, EpisodeArrays]: ...

    def read_images(self, requests: Sequence[tuple[str, np.ndarray]]) -> list[tuple[bytes, ...]]: ...


@dataclasses.dataclass(frozen=True)
class EpisodeNumbers:
    """One episode's arrays, prepared: the chunk of frame t is `targets[t : t + H]`, its mask `masks[t]`.

    targets: the executed actions, the last one repeated H-1 times past the end.
    teaches: whether any action of the chunk does.
    has_camera: for each of the policy's cameras, whether the episode has it.
    cameras: those that it has; camera_columns: their places among the episode's.
    """

    manifest: EpisodeManifest
    arrays: EpisodeArrays
    targets: Float32[np.ndarray, "P A"]
    masks: Bool[np.ndarray, "T H"]
    teaches: Bool[np.ndarray, "T"]
    has_camera: tuple[bool, ...]
    cameras: tuple[CameraSpec, ...]
    camera_columns: list[int]

    @property
    def num_bytes(self) -> int:
        arrays = self.arrays
        return (
            self.targets.nbytes
            + self.masks.nbytes
            + arrays.state.nbytes
            + arrays.action.nbytes
            + 17 * arrays.num_frames
            + 2048
        )


class FaultLog:
    """Episodes that turned out unusable, and why; bounded. Threads share it.

    One is left alone for `_LEFT_ALONE_S` and then tried again: a store that was unmounted comes back, a damaged object is
    mended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until_ns: collections.OrderedDict[str, int] = collections.OrderedDict()
        self.num_skipped = 0
        self.last_reason = ""

    def __contains__(self, path: str) -> bool:
        until_ns = self._until_ns.get(path)
        return until_ns is not None and self._clock.now_ns() < until_ns

    def give_up(self, path: str, reason: str) -> None:
        with self._lock:
            self._until_ns[path] = self._clock.now_ns() + round(_LEFT_ALONE_S * 1e9)
            self._until_ns.move_to_end(path)
            self.last_reason = reason
            if len(self._until_ns) > _MAX_REMEMBERED_FAULTS:
                self._until_ns.popitem(last=False)

    def note(self, reason: str) -> None:
        self.last_reason = reason

    def skip(self, num: int) -> None:
        """Counts draws that gave no example."""
        with self._lock:
            self.num_skipped += num


class EpisodeCache:
    """Reads and prepares episodes, for one thread at a time; reads run in `pool`."""

    def __init__(
        self,
        store: FrameReader,
        algorithm: Algorithm,
        spec: BatchSpec,
        tokenize: Tokenize,
        faults: FaultLog,
        pool: concurrent.futures.Executor,
        max_bytes: int,
    ):
        self._store = store
        self._algorithm = algorithm
        self._spec = spec
        self._faults = faults
        self._pool = pool
        self._cache: ByteLru[str, EpisodeNumbers] = ByteLru(max_bytes)

        @functools.lru_cache(maxsize=_MAX_INSTRUCTIONS)
        def misread(instruction: str) -> str:
            return _misread(tokenize, algorithm, instruction)

        self._misread = misread

    def read(self, wanted: Mapping[str, ArraysRange]) -> dict[str, EpisodeNumbers]:
        """Path -> numbers, for each wanted path -> range of its arrays. Episodes that can't be used are left out."""
        found: dict[str, EpisodeNumbers] = {}
        missing: list[str] = []
        for path in wanted:
            if path in self._faults:
                continue
            numbers = self._cache.get(path)
            if numbers is None:
                missing.append(path)
            else:
                found[path] = numbers
        results = self._pool.map(self._try_read, missing, [wanted[path] for path in missing])
        for path, result in zip(missing, results, strict=True):
            if isinstance(result, EpisodeNotFoundError | InvalidEpisodeError):
                self._faults.give_up(path, str(result))
            elif isinstance(result, OSError | ValueError):
                self._faults.note(f"{path}: {result}")
            elif problem := _misfit(self._spec, *result):
                self._faults.give_up(path, problem)
            elif problem := self._misread(result[0].instruction):
                self._faults.give_up(path, f"episode {result[0].episode_id}: {problem}")
            else:
                try:
                    found[path] = numbers = _prepare(self._algorithm, self._spec, *result)
                except UnlabelledEpisodeError as error:  # an intake with another algorithm let it in
                    self._faults.give_up(path, str(error))
                    continue
                self._cache.put(path, numbers, numbers.num_bytes)
        return found

    def _try_read(
        self, path: str, arrays_range: ArraysRange
    ) -> tuple[EpisodeManifest, EpisodeArrays] | EpisodeNotFoundError | InvalidEpisodeError | OSError | ValueError:
        try:
            return self._store.read_arrays(path, arrays_range)
        except (EpisodeNotFoundError, InvalidEpisodeError, OSError, ValueError) as error:
            return error


def _prepare(algorithm: Algorithm, spec: BatchSpec, manifest: EpisodeManifest, arrays: EpisodeArrays) -> EpisodeNumbers:
    held = np.repeat(arrays.action[-1:], spec.horizon - 1, axis=0)
    columns = {camera.name: column for column, camera in enumerate(manifest.cameras)}
    cameras = tuple(camera for camera in spec.cameras if camera.name in columns)
    masks = algorithm.action_masks(manifest, arrays, spec.horizon)
    return EpisodeNumbers(
        manifest=manifest,
        arrays=arrays,
        targets=np.concatenate([arrays.action, held]),
        masks=masks,
        teaches=np.logical_or.reduce(masks, axis=1),
        has_camera=tuple(camera.name in columns for camera in spec.cameras),
        cameras=cameras,
        camera_columns=[columns[camera.name] for camera in cameras],
    )


def _misfit(spec: BatchSpec, manifest: EpisodeManifest, arrays: EpisodeArrays) -> str:
    """Why this policy can't learn from this episode, "" if it can."""
    got = (arrays.state.shape[1], arrays.action.shape[1])
    if got != (spec.state_dim, spec.action_dim):
        return (
            f"episode {manifest.episode_id} has state and action dimensions {got}, the policy wants "
            f"{(spec.state_dim, spec.action_dim)}; it comes from another type of robot"
        )
    if not is_same_rate(manifest.control_hz, spec.control_hz):
        return (
            f"episode {manifest.episode_id} was recorded at {manifest.control_hz:g} Hz, the policy is played at "
            f"{spec.control_hz:g} Hz (control_hz of the learner's config): what it shows would be done at another speed"
        )
    recorded = {camera.name: camera for camera in manifest.cameras}
    for camera in spec.cameras:
        if recorded.get(camera.name, camera) != camera:
            other = recorded[camera.name]
            return (
                f"episode {manifest.episode_id}: camera {camera.name!r} is {other.height}x{other.width} pixels, the policy "
                f"wants {camera.height}x{camera.width}; set the policy's image size to the robots'"
            )
    if not any(camera.name in recorded for camera in spec.cameras) and spec.cameras:
        return f"episode {manifest.episode_id} has none of the policy's cameras, only {sorted(recorded)}"
    return ""


def _misread(tokenize: Tokenize, algorithm: Algorithm, instruction: str) -> str:
    """Why the model can't read this instruction, bare or as the algorithm conditions it; "" if it can.

    Asked here, because a batch is no place to find out: one long instruction among the examples would end the learner, and
    every learner after it.
    """
    conditioned = [algorithm.conditioning(phase).apply(instruction) for phase in Phase]
    try:
        for text in dict.fromkeys([instruction, *conditioned]):
            tokenize([text])
    except ValueError as error:
        return str(error)
    return ""
