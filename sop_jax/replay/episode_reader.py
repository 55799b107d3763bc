"""Reads new episodes from the store for intake and sorts what comes out: verified, invalid, or unreadable for now."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import VerifiedEpisode, verify_bytes
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError
from sop_jax.specs.records import RobotSpec


@dataclasses.dataclass(frozen=True)
class Invalid:
    """The episode breaks its rules and always will: it must be set aside. `size` is its bytes, None if that isn't known."""

    reason: str
    size: int | None


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """The store didn't give the episode this time; it says nothing about the episode."""

    reason: str


class EpisodeReader:
    """Verifies each object in full once; objects are immutable, so later readings fetch only manifest, index and arrays.

    Several reads are under way at once; results come in the order of the paths. Used by one thread.
    """

    def __init__(self, store: EpisodeStore, spec: RobotSpec | None, decode_all_images: bool, num_readers: int):
        self._store = store
        self._spec = spec
        self._decode_all_images = decode_all_images
        self._num_readers = num_readers
        self._verified: set[str] = set()

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, VerifiedEpisode | Invalid | Unreadable]]:
        """One result per path. Episodes are held in memory one by one, without their images."""
        with ThreadPoolExecutor(self._num_readers, thread_name_prefix="intake") as readers:
            for start in range(0, len(paths), 4 * self._num_readers):
                batch = paths[start : start + 4 * self._num_readers]
                for path, result in zip(batch, readers.map(self._read_one, batch), strict=True):
                    if isinstance(result, VerifiedEpisode):
                        self._verified.add(path)
                    yield path, result

    def forget(self, path: str) -> None:
        """Of an episode that won't be read again."""
        self._verified.discard(path)

    def _read_one(self, path: str) -> VerifiedEpisode | Invalid | Unreadable:
        try:
            if path in self._verified:
                parsed = self._store.read_without_images(path)
                return VerifiedEpisode(parsed.manifest, parsed.arrays, parsed.index)
            data = self._store.read_bytes(path)
        except EpisodeNotFoundError as error:
            return Unreadable(str(error))
        except InvalidEpisodeError as error:  # it was whole when it was verified, or it is far too large
            return Invalid(str(error), None)
        except Exception as error:  # storage drivers raise what they like: none of it is the episode's fault
            return Unreadable(f"{type(error).__name__}: {error}")
        try:
            return verify_bytes(data, path, spec=self._spec, decode_all_images=self._decode_all_images)
        except InvalidEpisodeError as error:
            return Invalid(str(error), len(data))
        except MemoryError as error:
            return Unreadable(f"not enough memory to verify {len(data)} bytes: {error}")
        except Exception as error:  # a check that fails itself must not end intake; the object stays where it is
            return Invalid(f"{path}: its verification failed ({type(error).__name__}: {error})", len(data))
