"""How an episode leaves the store without anybody being left with an item that points to nothing.

1. `retire` writes a record. From then on intake never inserts the episode, and takes its items out of the tables.
2. After a grace, longer than intake's look and a learner's batch take together, `remove_object` removes the object.
3. The record stays for a while, so that a late second upload of the same episode isn't trained on again; then `forget`
   removes it.

Each step is one atomic write or delete and may be repeated; a crash between two leaves a store that the next call goes on
with.
"""

import dataclasses
import json

from sop_jax.episodes import kvstore, paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError, SopError
from sop_jax.specs.records import Source

_MAX_RECORD_BYTES = 2**16


class NotRetiredError(SopError, ValueError):
    """An object is to be removed that nobody retired, or whose retirement was taken back: it must stay."""


@dataclasses.dataclass(frozen=True)
class RetirementRecord:
    """An episode on its way out, and what intake must know to take its items out, even if the object is gone by then.

    task, source: they name the table. num_frames: they name the items. num_bytes: of the object. reason: in words.
    retired_ns: when the record was written [wall ns].
    """

    path: str
    task: str
    source: Source
    num_frames: int
    num_bytes: int
    reason: str
    retired_ns: int

    @property
    def episode_id(self) -> str:
        return paths.episode_of_path(self.path)


def retire(store: EpisodeStore, record: RetirementRecord) -> bool:
    """Puts an episode on its way out. False if it is already; the first record stands."""
    text = json.dumps(dataclasses.asdict(record), indent=1) + "\n"
    return kvstore.create(store.root, paths.retired_path(record.path), text.encode())


def retired_paths(store: EpisodeStore) -> list[str]:
    """Paths of all episodes that are on their way out or gone, sorted by robot and age."""
    found = (paths.episode_of_retired(key) for key in kvstore.list_below(store.root, paths.RETIRED))
    return [path for path in found if path is not None]


def read_record(store: EpisodeStore, path: str) -> RetirementRecord | None:
    """The record about this episode; None if there is none. Raises InvalidEpisodeError if it is damaged."""
    key = paths.retired_path(path)
    try:
        text = kvstore.read(store.root, key, _MAX_RECORD_BYTES)
    except EpisodeNotFoundError:
        return None
    try:
        raw = json.loads(text)
        record = RetirementRecord(**{**raw, "path": path, "source": Source(raw["source"])})
        numbers = (record.num_frames, record.num_bytes, record.retired_ns)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"expected integers >= 0, got {numbers}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidEpisodeError(
            f"retirement record {key} is damaged ({type(error).__name__}: {error}). Remove it, and retire the episode again."
        ) from error
    return record


def remove_object(store: EpisodeStore, path: str) -> None:
    """Removes a retired episode's object. Raises NotRetiredError, or InvalidEpisodeError if the record is damaged."""
    if read_record(store, path) is None:
        raise NotRetiredError(f"{path} was not retired: retire it first, and wait for the grace to pass")
    kvstore.remove(store.root, path)


def forget(store: EpisodeStore, path: str) -> None:
    """Removes the record: of an episode that is long gone, or to take a retirement back while the object is still there."""
    kvstore.remove(store.root, paths.retired_path(path))
