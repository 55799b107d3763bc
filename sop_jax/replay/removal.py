"""Takes items out of the tables whose episodes are not to be trained on any more: retired ones, and those set aside.

An episode may be set aside after its items came in: its object broke in the store, or another labeler refused it.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping

from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.retirement import read_record, retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError, TableNotFoundError
from sop_jax.specs.identifiers import item_key, offline_table, online_table
from sop_jax.specs.interfaces import ReplayTables
from sop_jax.specs.records import Source

_KEYS_PER_CALL = 10_000
_UNTOLD_FRAMES = 36_000
"""Of an episode that can't say how long it is: 20 minutes at 30 Hz, longer than episodes get."""


@dataclasses.dataclass(frozen=True)
class Held:
    """What this intake has put into the tables of an episode. `age_order`: the older, the smaller."""

    table: str
    num_frames: int
    num_items: int
    age_order: tuple[int, str]


class Removal:
    """What has to leave the tables, and what has left. Belongs to intake's thread.

    Every intake takes out every such episode's items once itself: it may have inserted them after another one had taken
    them out. Deleting a key that no table has is no fault.
    """

    def __init__(self, store: EpisodeStore, tables: ReplayTables, timeout_s: float):
        self._store = store
        self._tables = tables
        self._timeout_s = timeout_s
        self._out: set[str] = set()
        self._filled_before = False
        self.retired: frozenset[str] = frozenset()
        self.set_aside: frozenset[str] = frozenset()

    @property
    def unwanted(self) -> frozenset[str]:
        """Paths of episodes that have no business in the tables."""
        return self.retired | self.set_aside

    def look(self) -> None:
        """Lists what is retired and what is set aside. Raises whatever the store raises."""
        self.retired = frozenset(retired_paths(self._store))
        self.set_aside = frozenset(self._store.quarantined_paths())
        self._out &= self.unwanted  # what was set right again may have to leave once more

    def add(self, path: str) -> None:
        """This episode was set aside just now."""
        self.set_aside |= {path}

    def start_again(self, filled_before: bool) -> None:
        """The tables are others now: look at each episode once more. `filled_before`: they hold items already, somebody
        else's or an earlier process's."""
        self._out.clear()
        self._filled_before = filled_before

    def take_out(self, held: Mapping[str, Held], tables: Collection[str]) -> Iterator[str]:
        """Takes items out, one episode after another, and yields each path that is done.

        Args:
            held: what this intake has put in.
            tables: all of them.

        Raises SopError if the tables are away, or at the end if records are damaged, and whatever the store raises.
        """
        damaged: list[str] = []
        for path in sorted(self.unwanted - self._out):
            try:
                places = self._places_of(path, held, tables)
            except InvalidEpisodeError as error:
                damaged.append(str(error))
                continue
            for table, num_frames in places:
                self._delete(table, episode_of_path(path), num_frames)
            self._out.add(path)
            yield path
        if damaged:
            raise InvalidEpisodeError(f"{len(damaged)} records: {damaged[0]}")

    def _places_of(self, path: str, held: Mapping[str, Held], tables: Collection[str]) -> Iterable[tuple[str, int]]:
        """Tables that may hold items of the episode, and of how many frames."""
        if path in self.retired:
            record = read_record(self._store, path)
            return () if record is None else [(_table_of(record.task, record.source), record.num_frames)]
        if path in held:
            return [(held[path].table, held[path].num_frames)]
        if not self._filled_before:
            return ()
        try:
            manifest = self._store.read_without_images(path).manifest
        except (InvalidEpisodeError, EpisodeNotFoundError):
            return [(table, _UNTOLD_FRAMES) for table in sorted(tables)]
        return [(_table_of(manifest.task, manifest.source), manifest.num_frames)]

    def _delete(self, table: str, episode_id: str, num_frames: int) -> None:
        keys = [item_key(episode_id, frame) for frame in range(num_frames)]
        try:
            for start in range(0, len(keys), _KEYS_PER_CALL):
                self._tables.update_priorities(table, {}, keys[start : start + _KEYS_PER_CALL], self._timeout_s)
        except TableNotFoundError:
            return  # No table, no items.


def _table_of(task: str, source: Source) -> str:
    return online_table(task) if source is Source.ONLINE else offline_table(task)
