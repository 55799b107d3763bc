"""Takes the items of retired episodes out of the tables (see `episodes.retirement`)."""

from collections.abc import Iterable

from sop_jax.episodes.retirement import RetirementRecord, read_record, retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.errors import InvalidEpisodeError, TableNotFoundError
from sop_jax.specs.identifiers import item_key, offline_table, online_table
from sop_jax.specs.interfaces import ReplayTables
from sop_jax.specs.records import Source

_KEYS_PER_CALL = 10_000


class Removal:
    """What has to leave the tables, and what has left. Belongs to intake's thread.

    Every intake takes out every retired episode's items once itself: it may have inserted them after another one had taken
    them out. Deleting a key that no table has is no fault.
    """

    def __init__(self, store: EpisodeStore, tables: ReplayTables, timeout_s: float):
        self._store = store
        self._tables = tables
        self._timeout_s = timeout_s
        self._out: set[str] = set()
        self.retired: frozenset[str] = frozenset()

    def look(self) -> None:
        """Lists what is retired. Raises whatever the store raises."""
        self.retired = frozenset(retired_paths(self._store))
        self._out &= self.retired

    def start_again(self) -> None:
        """The tables are others now, maybe from a checkpoint: look at each retired episode once more."""
        self._out.clear()

    def take_out(self) -> Iterable[str]:
        """Takes items out, one episode after another, and yields each path that is done.

        Raises SopError if the tables are away, or at the end if records are damaged, and whatever the store raises.
        """
        damaged: list[str] = []
        for path in sorted(self.retired - self._out):
            try:
                record = read_record(self._store, path)
            except InvalidEpisodeError as error:
                damaged.append(str(error))
                continue
            if record is not None:
                self._delete(record)
            self._out.add(path)
            yield path
        if damaged:
            raise InvalidEpisodeError(f"{len(damaged)} records: {damaged[0]}")

    def _delete(self, record: RetirementRecord) -> None:
        table = online_table(record.task) if record.source is Source.ONLINE else offline_table(record.task)
        keys = [item_key(record.episode_id, frame) for frame in range(record.num_frames)]
        try:
            for start in range(0, len(keys), _KEYS_PER_CALL):
                self._tables.update_priorities(table, {}, keys[start : start + _KEYS_PER_CALL], self._timeout_s)
        except TableNotFoundError:
            return  # No table, no items.
