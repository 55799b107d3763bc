"""The checker without the faults, for a deployment at work: compares ledgers, spools, store and tables; changes nothing."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sop_jax.drill.checker import locate
from sop_jax.drill.ledger import Entry, read_ledgers
from sop_jax.drill.stations import look_at
from sop_jax.episodes import paths, retirement
from sop_jax.episodes.retention import RetentionConfig
from sop_jax.episodes.store import EpisodeStore
from sop_jax.replay.items import decode_segment
from sop_jax.specs.clock import Clock, WallClock, age_s
from sop_jax.specs.errors import RateLimitedError
from sop_jax.specs.identifiers import item_key, offline_table, online_table, robot_of_episode
from sop_jax.specs.interfaces import ReplayTables, SampledItem, TableInfo
from sop_jax.specs.records import Outcome, Source

_TIMEOUT_S = 2.0
_MEMORY_S = RetentionConfig().keep_record_s
"""Retention's record of an episode stays for so long: what ended later is in the store, or its record says where it went."""


@dataclasses.dataclass(frozen=True)
class DryReport:
    """What a deployment holds, in episodes unless named otherwise, and what contradicts what.

    num_accepted: by the ledgers. num_forgotten: of these, those that are nowhere and ended so long ago that retention may
    have removed them and forgotten the record too. num_items: drawn from the tables and followed to their frames.
    """

    num_stored: int
    num_set_aside: int
    num_retired: int
    num_accepted: int
    num_waiting: int
    num_given_up: int
    num_forgotten: int
    num_items: int
    problems: tuple[str, ...]


def check_deployment(
    store: EpisodeStore,
    ledgers: Sequence[pathlib.Path] = (),
    spools: Sequence[pathlib.Path] = (),
    tables: ReplayTables | None = None,
    num_draws: int = 64,
    clock: Clock | None = None,
) -> DryReport:
    """Checks what is at rest against each other; what is under way meanwhile may be told wrongly, so repeat it.

    Reads every object that a ledger names. Draws `num_draws` items from each table, which count for its limiter like any
    sample; 0 draws none.
    """
    entries = read_ledgers(list(ledgers))
    set_aside, retired = set(store.quarantined_paths()), set(retirement.retired_paths(store))
    robots = {robot_of_episode(episode_id) for episode_id in entries}
    listed = store.list_paths()
    strangers = {path for path in listed if paths.robot_of_path(path) not in robots}
    where = locate(entries, store, spools, damaged=strangers | set_aside, set_aside=set_aside | retired)
    now_ns = (clock or WallClock()).now_ns()
    forgotten = {episode_id for episode_id in where.missing if _may_be_forgotten(entries[episode_id], now_ns)}
    problems = dataclasses.replace(where, missing=where.missing - forgotten).violations()
    num_items = 0
    if tables is not None:
        for info in tables.info(_TIMEOUT_S).values():
            drawn = _draw(tables, info, num_draws)
            num_items += len(drawn)
            problems += _judge_items(info, drawn, store, set_aside, retired)
        problems += _judge_sizes(tables.info(_TIMEOUT_S), store, set_aside | retired)
    return DryReport(
        num_stored=len(listed),
        num_set_aside=len(set_aside),
        num_retired=len(retired),
        num_accepted=sum(entry.accepted is True for entry in entries.values()),
        num_waiting=len(where.waiting),
        num_given_up=len(where.given_up),
        num_forgotten=len(forgotten),
        num_items=num_items,
        problems=tuple(problems),
    )


def _may_be_forgotten(entry: Entry, now_ns: int) -> bool:
    """Whether retention may have let this episode go without a trace. Of unknown age: no, for those go last of all."""
    started_ns = int(entry.episode_id.rsplit(".", 2)[1])  # the actor's start, for ledgers that don't say when it ended
    age = age_s(entry.ended_ns or started_ns, now_ns)
    return age is not None and age > _MEMORY_S


def _draw(tables: ReplayTables, info: TableInfo, num: int) -> list[SampledItem]:
    try:
        return tables.sample(info.name, num, _TIMEOUT_S) if num and info.size else []
    except RateLimitedError:  # it has nothing to spare just now
        return []


def _judge_items(
    info: TableInfo, drawn: Iterable[SampledItem], store: EpisodeStore, set_aside: set[str], retired: set[str]
) -> list[str]:
    rng, problems = np.random.default_rng(0), set()
    for item in drawn:
        segment = decode_segment(item.columns)
        name = online_table if segment.source is Source.ONLINE else offline_table
        if info.name != name(segment.task):
            problems.add(f"{info.name} holds an item of {segment.task}/{segment.source.value}: {segment.episode_id}")
        if item.key != item_key(segment.episode_id, int(segment.frames[0])):
            problems.add(
                f"{info.name}: an item of {segment.episode_id} has a key that isn't its own: it may be doubled"
            )
        if segment.path in set_aside:
            problems.add(f"{info.name} holds an item of {segment.episode_id}, which is set aside")
        result = look_at(store, item, rng)["result"]
        if result == "gone" and segment.path not in retired:
            problems.add(f"{info.name}: an item points to {segment.path}, which is not in the store")
        elif result not in ("good", "gone"):
            problems.add(f"{info.name}: an item of {segment.episode_id} can't be read: {result}")
    return sorted(problems)


def _judge_sizes(tables: Mapping[str, TableInfo], store: EpisodeStore, away: set[str]) -> list[str]:
    """An empty table beside trainable episodes has no intake; more items than frames means that some are doubled."""
    num_frames: dict[str, int] = {}
    for summary in store.summaries():
        manifest = summary.manifest
        if manifest is None or summary.path in away or manifest.outcome in (Outcome.ERROR, Outcome.ABORTED):
            continue
        name = online_table if manifest.source is Source.ONLINE else offline_table
        table = name(manifest.task)
        num_frames[table] = num_frames.get(table, 0) + manifest.num_frames
    problems = []
    for table, num in sorted(num_frames.items()):
        if table not in tables:
            problems.append(f"the store holds episodes for {table}, and the replay server has no such table")
        elif tables[table].size == 0:
            problems.append(f"{table} is empty, though the store holds {num} frames for it: is intake running?")
        elif tables[table].size > num:
            problems.append(f"{table} holds {tables[table].size} items, the store {num} frames for it")
    return problems
