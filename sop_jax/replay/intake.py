"""Intake: finds new episodes in the store, verifies them, and fills the replay tables with light items.

The tables are a pure function of the store (and of the labeler and the table configs): a server that lost its contents is
filled again, and inserting an episode twice changes nothing.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import VerifiedEpisode
from sop_jax.replay.episode_reader import EpisodeReader, Invalid, Unreadable
from sop_jax.replay.intake_log import IntakeLog, IntakeReport
from sop_jax.replay.items import DEFAULT_SEGMENT_LENGTH, FrameLabels, encode_segment, segments_of
from sop_jax.replay.table_names import table_not_found
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError, SopError
from sop_jax.specs.identifiers import offline_table, online_table
from sop_jax.specs.interfaces import Item, Metrics, ReplayTables
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import (
    EpisodeArrays,
    EpisodeManifest,
    Outcome,
    RobotSpec,
    Source,
)

Labeler = Callable[[EpisodeManifest, EpisodeArrays], FrameLabels]
"""What an algorithm makes of an episode; it may raise InvalidEpisodeError to have it set aside."""

_UNTRAINABLE = (Outcome.ERROR, Outcome.ABORTED)


@dataclasses.dataclass(frozen=True)
class IntakeConfig:
    """How intake works.

    segment_length: frames per item, at most.
    poll_interval_s: pause between looks at the store.
    insert_timeout_s: how long one insert may take before intake leaves the rest for the next look.
    items_per_insert: items sent in one call; they may come from several episodes.
    num_readers: episodes read and verified at once.
    decode_all_images: decode every pixel while verifying, for robots that aren't trusted.
    table_stats_interval_s: how often the tables' sizes are written to the metrics.
    """

    segment_length: int = DEFAULT_SEGMENT_LENGTH
    poll_interval_s: float = 1.0
    insert_timeout_s: float = 30.0
    items_per_insert: int = 512
    num_readers: int = 4
    decode_all_images: bool = False
    table_stats_interval_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("segment_length", "items_per_insert", "num_readers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"IntakeConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("poll_interval_s", "insert_timeout_s", "table_stats_interval_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"IntakeConfig.{name} must be positive, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """An episode on its way into a table."""

    path: str
    table: str
    manifest: EpisodeManifest
    num_intervention_frames: int
    items: tuple[Item, ...]

    @property
    def age_order(self) -> tuple[int, str]:
        return self.manifest.ended_ns, self.manifest.episode_id


class Intake:
    """Fills replay tables from an episode store. Belongs to one thread.

        intake = Intake(store, tables, labeler, IntakeConfig(), clock, metrics)
        intake.run(should_stop)          # or, one look at a time: report = intake.poll()

    An episode counts as taken in only after all its items were acknowledged; whatever goes wrong before that is tried
    again at the next look. Invalid episodes, and those of a task without a table, are quarantined. Oldest first.

    Args:
      spec: if given, only episodes of this robot type (cameras, dimensions) are valid.
      newest_version: the newest policy version published, for the metrics' staleness; default: the newest that acted.
    """

    def __init__(
        self,
        store: EpisodeStore,
        tables: ReplayTables,
        labeler: Labeler,
        config: IntakeConfig | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        *,
        spec: RobotSpec | None = None,
        newest_version: Callable[[], int] | None = None,
    ):
        self._store = store
        self._tables = tables
        self._labeler = labeler
        self._config = config or IntakeConfig()
        self._clock = clock or WallClock()
        self._log = IntakeLog(metrics or NoMetrics(), self._clock, newest_version)
        self._reader = EpisodeReader(store, spec, self._config.decode_all_images, self._config.num_readers)
        self._state_id: str | None = None
        self._done: set[str] = set()  # paths that need no further work while the tables keep their contents
        self._told: set[str] = set()  # paths whose metrics were written
        self._stats_due_ns = 0
        self.total = IntakeReport()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Looks at the store every `poll_interval_s` until told to stop. Outages of tables or store don't end it."""
        while not should_stop():
            self.poll(should_stop)
            self._clock.sleep_s(self._config.poll_interval_s)

    def poll(self, should_stop: Callable[[], bool] = lambda: False) -> IntakeReport:
        """One look at the store. Returns early, with nothing lost, once `should_stop` says so."""
        try:
            state_id = self._tables.state_id(self._config.insert_timeout_s)
            known = set(self._tables.info(self._config.insert_timeout_s))
        except SopError as error:
            return self._finish(IntakeReport(available=False), str(error))
        rebuilt = self._state_id is not None and state_id != self._state_id
        if state_id != self._state_id:
            self._state_id = state_id
            self._done.clear()
        try:
            listed = self._store.list_paths()
            new = [path for path in listed if path not in self._done]
            set_aside = set(self._store.quarantined()) if new else set()
        except Exception as error:  # storage drivers raise what they like; the store is asked again at the next look
            return self._finish(IntakeReport(rebuilt=rebuilt), f"store: {error}")
        self._done.update(set_aside.intersection(new))
        counts: Counter[str] = Counter()
        prepared = self._prepare([path for path in new if path not in set_aside], known, counts, should_stop)
        problem = self._insert_all(prepared, counts, should_stop)
        return self._finish(dataclasses.replace(IntakeReport(rebuilt=rebuilt), **counts), problem)

    def _prepare(
        self, paths: Sequence[str], known: set[str], counts: Counter[str], should_stop: Callable[[], bool]
    ) -> list[_Prepared]:
        """Reads, verifies and segments episodes; deals with those that aren't for the tables."""
        prepared = []
        for path, result in self._reader.read(paths):
            if should_stop():
                break
            if isinstance(result, Unreadable):
                counts["unreadable"] += 1
                self._log.unreadable(path, result.reason)
                continue
            if isinstance(result, Invalid):
                self._quarantine(path, result.reason, result.size, counts)
                continue
            try:
                episode = self._prepare_one(path, result, known)
            except InvalidEpisodeError as error:
                self._quarantine(path, str(error), result.index.size, counts)
                continue
            if result.manifest.outcome in _UNTRAINABLE:
                self._count_done(episode, "untrainable", counts)
            elif not episode.items:
                self._count_done(episode, "empty", counts)
            else:
                prepared.append(episode)
        return sorted(prepared, key=lambda episode: episode.age_order)

    def _prepare_one(self, path: str, episode: VerifiedEpisode, known: set[str]) -> _Prepared:
        manifest, arrays = episode.manifest, episode.arrays
        table = online_table(manifest.task) if manifest.source is Source.ONLINE else offline_table(manifest.task)
        if table not in known:
            raise InvalidEpisodeError(f"episode {manifest.episode_id}: unknown task: {table_not_found(table, known)}")
        items: tuple[Item, ...] = ()
        if manifest.outcome not in _UNTRAINABLE:
            labels = self._labeler(manifest, arrays)
            segments = segments_of(manifest, episode.index, arrays, labels, self._config.segment_length)
            items = tuple(encode_segment(segment) for segment in segments)
        return _Prepared(path, table, manifest, int(arrays.intervention.sum()), items)

    def _insert_all(self, prepared: Sequence[_Prepared], counts: Counter[str], should_stop: Callable[[], bool]) -> str:
        """Inserts episodes oldest first, several to a call; returns what kept some of them out, or ""."""
        problem = ""
        by_table: dict[str, list[_Prepared]] = {}
        for episode in prepared:
            by_table.setdefault(episode.table, []).append(episode)
        for table, episodes in by_table.items():
            for group in _groups(episodes, self._config.items_per_insert):
                if should_stop():
                    problem = problem or "stopped"
                    break
                items = [item for episode in group for item in episode.items]
                try:
                    self._tables.insert(table, items, self._config.insert_timeout_s)
                except SopError as error:
                    problem = str(error)
                    break
                counts["num_items"] += len(items)
                for episode in group:
                    self._count_done(episode, "inserted", counts)
        counts["pending"] = len(prepared) - counts["inserted"]
        return problem

    def _quarantine(self, path: str, reason: str, size: int, counts: Counter[str]) -> None:
        """Sets an episode aside. If the store can't write that down now, the episode comes up again at the next look."""
        try:
            self._store.quarantine(path, reason, size=size)
        except Exception as error:  # storage drivers raise what they like
            counts["unreadable"] += 1
            self._log.unreadable(path, f"quarantine failed: {error}")
            return
        self._done.add(path)
        counts["quarantined"] += 1
        self._log.quarantined(path, reason)

    def _count_done(self, episode: _Prepared, kind: str, counts: Counter[str]) -> None:
        self._done.add(episode.path)
        counts[kind] += 1
        if episode.path in self._told:
            return
        self._told.add(episode.path)
        self._log.episode(episode.manifest, kind, len(episode.items), episode.num_intervention_frames)

    def _finish(self, report: IntakeReport, problem: str) -> IntakeReport:
        """Adds up, writes the metrics, and returns the report."""
        sums = {
            field.name: getattr(self.total, field.name) + getattr(report, field.name)
            for field in dataclasses.fields(IntakeReport)
            if field.type is int and field.name not in ("pending", "unreadable")
        }
        self.total = dataclasses.replace(report, **sums, rebuilt=self.total.rebuilt or report.rebuilt)
        if report.changed or problem:
            self._log.report(report, problem)
        now_ns = self._clock.now_ns()
        if report.available and (report.changed or now_ns >= self._stats_due_ns):
            self._stats_due_ns = now_ns + round(self._config.table_stats_interval_s * 1e9)
            with contextlib.suppress(SopError):
                self._log.tables(self._tables.info(self._config.insert_timeout_s).values())
        return report


def _groups(episodes: Sequence[_Prepared], items_per_insert: int) -> list[list[_Prepared]]:
    """Runs of episodes of at most `items_per_insert` items together, in order; never less than one episode."""
    groups: list[list[_Prepared]] = []
    num_items = items_per_insert
    for episode in episodes:
        if num_items + len(episode.items) > items_per_insert:
            groups.append([])
            num_items = 0
        groups[-1].append(episode)
        num_items += len(episode.items)
    return groups
