"""Episodes on their way into the tables: in which order, how many to a call, and which would only be pushed out again."""

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from sop_jax.replay.removal import Held
from sop_jax.specs.interfaces import Item, TableInfo
from sop_jax.specs.records import EpisodeManifest


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An episode on its way into a table."""

    path: str
    table: str
    manifest: EpisodeManifest
    age_order: tuple[int, str]
    """The older, the smaller."""
    num_intervention_frames: int
    items: tuple[Item, ...]
    stale_keys: tuple[int, ...]
    """Keys under which the table may hold items of this episode with an earlier labeler's labels."""

    @property
    def held(self) -> Held:
        return Held(self.table, self.manifest.num_frames, len(self.items), self.age_order)


def started_ns(path: str) -> int:
    """From `episodes/<robot_id>/<robot_id>.<start ns>.<number>.zip`."""
    return int(path.rsplit(".", 3)[1])


def groups_of(episodes: Sequence[Prepared], items_per_insert: int) -> list[list[Prepared]]:
    """Runs of episodes of at most `items_per_insert` items together, in order; never less than one episode.

    Episodes whose items are replaced stand alone, so that few items are missing at a time.
    """
    groups: list[list[Prepared]] = []
    num_items = 0
    for episode in episodes:
        too_many = num_items + len(episode.items) > items_per_insert
        if not groups or too_many or episode.stale_keys or groups[-1][-1].stale_keys:
            groups.append([])
            num_items = 0
        groups[-1].append(episode)
        num_items += len(episode.items)
    return groups


def drop_overflow(
    prepared: Sequence[Prepared], held: Mapping[str, Held], tables: Mapping[str, TableInfo], found_first: Container[str]
) -> list[Prepared]:
    """Without the items that a table's newer items would push out again at once. Given oldest first, and returned so.

    So an intake that starts again beside full tables doesn't bring back what they had pushed out.

    Args:
        held: by path, what the tables hold already, or are to hold.
        found_first: paths that were in the store when this intake came to the tables. Whatever came later stays: a robot that
            was cut off for long, or whose clock is behind, hasn't been pushed out by anybody.
    """
    if not prepared:
        return []
    oldest, replaced = prepared[0].age_order, {episode.path for episode in prepared}
    others = [one for path, one in held.items() if one.age_order > oldest and path not in replaced]
    newer = {table: _Newer(others, table) for table in {episode.table for episode in prepared}}
    kept, num_kept = [], Counter[str]()
    for episode in reversed(prepared):
        num_newer = newer[episode.table].count(episode) + num_kept[episode.table]
        if episode.path in found_first and num_newer >= tables[episode.table].max_size:
            episode = dataclasses.replace(episode, items=())
        num_kept[episode.table] += len(episode.items)
        kept.append(episode)
    return kept[::-1]


class _Newer:
    """Counts items in a table that are newer than an episode."""

    def __init__(self, held: Iterable[Held], table: str):
        mine = sorted((one.age_order, one.num_items) for one in held if one.table == table)
        self._ages = [age for age, _ in mine]
        self._sums = [0, *itertools.accumulate(num for _, num in mine)]

    def count(self, episode: Prepared) -> int:
        return self._sums[-1] - self._sums[bisect.bisect_right(self._ages, episode.age_order)]
