"""Runs schedules of faults, one after another, and judges each by its ledgers."""

import collections
import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable

from sop_jax.drill.checker import (
    Whereabouts,
    expected_keys,
    judge_give_ups,
    judge_samples,
    judge_table,
    locate,
    read_lines,
)
from sop_jax.drill.ledger import Entry, read_ledgers
from sop_jax.drill.place import TASK, Place
from sop_jax.drill.schedule import Schedule, make_schedule
from sop_jax.drill.stations import SEGMENT_LENGTH
from sop_jax.drill.yard import HERE, DrillStuckError, Injected, Surroundings, Yard
from sop_jax.episodes import paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.replay.items import decode_segment
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import TableConfig
from sop_jax.specs.errors import SopError
from sop_jax.specs.identifiers import online_table
from sop_jax.specs.interfaces import ReplayTables

TABLE = TableConfig(online_table(TASK), max_size=100_000)
"""What the replay server of a drill must serve."""

DEADLINE_S = 120.0
_SETTLE_POLL_S = 0.1
_DRAW = 256
_CHANCES = 40
"""Draws per item of the table: to overlook one that is there has a probability of e^-40."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One schedule's outcome. Counts are of what was checked: episodes announced and accepted, items in the table, frames
    that the learner sampled."""

    seed: int
    faults: dict[str, int]
    num_announced: int
    num_accepted: int
    num_stored: int
    num_given_up: int
    num_items: int
    num_samples: int
    duration_s: float
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DrillReport:
    """All schedules together. `by_fault`: fault -> (times injected, schedules with it, schedules with it that failed)."""

    num_schedules: int
    num_faults: int
    num_announced: int
    num_accepted: int
    num_given_up: int
    num_items: int
    num_samples: int
    duration_s: float
    by_fault: dict[str, tuple[int, int, int]]
    problems: dict[str, tuple[str, ...]]

    @property
    def ok(self) -> bool:
        return not self.problems


def run_drill(
    root: pathlib.Path,
    seeds: Iterable[int],
    address: str = "",
    deadline_s: float = DEADLINE_S,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Runs the schedules of these seeds below `root`; a failed one's folder stays there, the others' go.

    `address`: a replay server that serves TABLE and nobody else uses; without one a server is started, and some schedules
    kill it.
    """
    verdicts = []
    with contextlib.ExitStack() as stack:
        server = None
        if not address:
            server = stack.enter_context(ReverbServer([TABLE], log_path=root / "reverb.log"))
            address = server.address
        for seed in seeds:
            place = Place(root / f"schedule-{seed}")
            verdict = run_schedule(place, make_schedule(seed, server is not None), address, server, deadline_s)
            if not verdict.problems:
                shutil.rmtree(place.root)
            verdicts.append(verdict)
            tell(verdict)
    return verdicts


def run_schedule(
    place: Place,
    schedule: Schedule,
    address: str,
    server: ReverbServer | None = None,
    deadline_s: float = DEADLINE_S,
    around: Surroundings = HERE,
) -> Verdict:
    """Runs one schedule in a fresh folder: faults, then peace until all is where it belongs or `deadline_s` is over."""
    started_s = time.monotonic()
    (place.root / "ledger").mkdir(parents=True)
    stuck: list[str] = []
    with contextlib.closing(ReverbTables(address)) as tables:
        tables.reset(TABLE.name)
        with Yard(place, schedule, address, server, around) as yard:
            try:
                yard.run(deadline_s)
            except DrillStuckError as error:
                stuck.append(str(error))
            audit = Audit(place, yard.robots, yard.injected, tables, schedule.spool_bytes)
            ends_s = time.monotonic() + deadline_s
            while (unsettled := audit.unsettled()) and time.monotonic() < ends_s:
                time.sleep(_SETTLE_POLL_S)
            stuck += [f"{text}, {deadline_s:g} s after the last fault" for text in unsettled]
            stuck += yard.check_alive()
            found = audit.judge()
    return dataclasses.replace(
        found,
        seed=schedule.seed,
        faults=dict(yard.injected.counts),
        duration_s=time.monotonic() - started_s,
        problems=(*stuck, *found.problems),
    )


class Audit:
    """What one drill's folder and tables hold, against its ledgers."""

    def __init__(self, place: Place, robots: Iterable[str], injected: Injected, tables: ReplayTables, spool_bytes: int):
        self._place = place
        self._spool_bytes = spool_bytes
        self._robots = list(robots)
        self._spools = [place.spool(robot) for robot in self._robots]
        self._injected = injected
        self._tables = tables
        self._store = EpisodeStore(place.store_url)

    def unsettled(self) -> list[str]:
        """What hasn't come to rest yet, cheaply told; no object is read."""
        # Each look comes after what could still change its answer: robots, spools, store, table.
        found = [f"{robot} is still at work" for robot in self._robots if not self._place.idle(robot).exists()]
        waiting = sum(len(list(spool.glob("*.zip"))) for spool in self._spools)
        if waiting:
            found.append(f"{waiting} episodes wait in spools")
        open_cases = self._injected.damaged - set(self._store.quarantined_paths())
        if open_cases:
            found.append(f"{len(open_cases)} damaged objects are not set aside")
        listed = {paths.episode_of_path(path) for path in self._store.list_paths()}
        must = expected_keys(self._entries(listed), SEGMENT_LENGTH)
        try:
            size = self._tables.info(timeout_s=5.0)[TABLE.name].size
        except SopError as error:
            return [*found, f"the tables don't answer: {error}"]
        if size < len(must):
            found.append(f"{len(must) - size} items are not in the table")
        return found

    def judge(self) -> Verdict:
        """The whole truth, every object read and every item drawn."""
        entries = read_ledgers(self._place.ledgers())
        where = locate(entries, self._store, self._spools, self._injected.damaged, self._injected.vanished)
        must = expected_keys(self._entries(where.stored), SEGMENT_LENGTH)
        may = must | expected_keys(self._entries(where.vanished), SEGMENT_LENGTH)
        size = self._tables.info(timeout_s=30.0)[TABLE.name].size
        seen = self._draw_all(set(must), size)
        samples = read_lines(self._place.samples)
        everything = expected_keys(entries.values(), SEGMENT_LENGTH)
        gone = {paths.episode_of_path(path) for path in self._injected.vanished}
        problems = [
            *where.violations(),
            *judge_give_ups(where.given_up, entries, self._spool_bytes, self._injected.full_disks),
            *judge_table(seen, size, must, may, complete=True),
            *judge_samples(samples, everything, gone),
            *(f"{line['station']}: {line['call']} took {line['took_s']:.1f} s, {line['allowed_s']:g} s were allowed"
              for line in read_lines(self._place.overdue)),
        ]  # fmt: skip
        return _verdict(entries, where, size, len(samples), problems)

    def _entries(self, episode_ids: Iterable[str]) -> list[Entry]:
        entries = read_ledgers(self._place.ledgers())
        return [entries[episode_id] for episode_id in episode_ids if episode_id in entries]

    def _draw_all(self, wanted: set[int], size: int) -> dict[int, str]:
        """Draws until every wanted item was seen, or each had so many chances that it can't be there: key -> episode_id."""
        seen: dict[int, str] = {}
        num_drawn = 0
        while not wanted <= seen.keys() and num_drawn < _CHANCES * size:
            num_drawn += _DRAW
            for item in self._tables.sample(TABLE.name, _DRAW, timeout_s=5.0):
                seen[item.key] = decode_segment(item.columns).episode_id
        return seen


def summarise(verdicts: list[Verdict]) -> DrillReport:
    """Adds schedules up."""
    by_fault: dict[str, tuple[int, int, int]] = {}
    for verdict in verdicts:
        for fault, num in verdict.faults.items():
            times, schedules, failed = by_fault.get(fault, (0, 0, 0))
            by_fault[fault] = (times + num, schedules + 1, failed + bool(verdict.problems))
    totals: collections.Counter[str] = collections.Counter()
    for verdict in verdicts:
        for name in ("num_announced", "num_accepted", "num_given_up", "num_items", "num_samples"):
            totals[name] += getattr(verdict, name)
    return DrillReport(
        num_schedules=len(verdicts),
        num_faults=sum(times for times, _, _ in by_fault.values()),
        num_announced=totals["num_announced"],
        num_accepted=totals["num_accepted"],
        num_given_up=totals["num_given_up"],
        num_items=totals["num_items"],
        num_samples=totals["num_samples"],
        duration_s=sum(verdict.duration_s for verdict in verdicts),
        by_fault=dict(sorted(by_fault.items())),
        problems={f"seed {verdict.seed}": verdict.problems for verdict in verdicts if verdict.problems},
    )


def _verdict(
    entries: dict[str, Entry], where: Whereabouts, num_items: int, num_samples: int, problems: list[str]
) -> Verdict:
    return Verdict(
        seed=0,
        faults={},
        num_announced=len(entries),
        num_accepted=sum(entry.accepted is True for entry in entries.values()),
        num_stored=len(where.stored),
        num_given_up=len(where.given_up),
        num_items=num_items,
        num_samples=num_samples,
        duration_s=0.0,
        problems=tuple(problems),
    )
