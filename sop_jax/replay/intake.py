"""Intake: finds new episodes in the store, verifies them, and fills the replay tables with light items.

The tables are a pure function of the store (and of the labeler and the table configs): a server that lost its contents is
filled again, and inserting an episode twice changes nothing.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sop_jax.episodes.episode_images import EpisodeImages, ImagesUnavailableError, StoredImages
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import VerifiedEpisode
from sop_jax.episodes.wrong_task import wrong_task
from sop_jax.replay.episode_reader import EpisodeReader, Invalid, Unreadable
from sop_jax.replay.intake_log import IntakeLog, IntakeReport
from sop_jax.replay.items import (
    DEFAULT_SEGMENT_LENGTH,
    FrameLabels,
    encode_segment,
    possible_keys,
    segments_of,
)
from sop_jax.replay.labels_record import MIXED, LabelsRecord, read_labels, write_labels
from sop_jax.replay.prepared import Prepared, drop_overflow, groups_of, started_ns
from sop_jax.replay.removal import Held, Removal
from sop_jax.replay.table_names import table_not_found
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.errors import (
    ConfigError,
    InvalidEpisodeError,
    ReplayAccessError,
    SopError,
    UnlabelledEpisodeError,
)
from sop_jax.specs.identifiers import offline_table, online_table, task_of_table
from sop_jax.specs.interfaces import Metrics, ReplayTables, TableInfo
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import (
    EpisodeArrays,
    EpisodeManifest,
    Outcome,
    RobotSpec,
    Source,
)

Labeler = Callable[[EpisodeManifest, EpisodeArrays, EpisodeImages], FrameLabels]
"""What an algorithm makes of an episode, whose images are decoded only if it reads them. It may raise InvalidEpisodeError to
have the episode set aside, and UnlabelledEpisodeError to have it left alone until there is another labeler."""

_STATS_TIMEOUT_S = 5.0
"""What the server may take to tell the tables' sizes: nothing waits for them."""
_UNTRAINABLE = (Outcome.ERROR, Outcome.ABORTED)


@dataclasses.dataclass(frozen=True)
class IntakeConfig:
    """How intake works.

    segment_length: frames per item, at most.
    poll_interval_s: pause between looks at the store.
    insert_timeout_s: how long one insert may take before intake leaves the rest for the next look.
    items_per_insert: items sent in one call; they may come from several episodes.
    episodes_per_look: episodes read before their items are inserted and the next ones are read.
    num_readers: episodes read and verified at once.
    decode_all_images: decode every pixel while verifying, for robots that aren't trusted.
    table_stats_interval_s: how often the tables' sizes are written to the metrics, also within a look that takes longer.
    """

    segment_length: int = DEFAULT_SEGMENT_LENGTH
    poll_interval_s: float = 1.0
    insert_timeout_s: float = 30.0
    items_per_insert: int = 512
    episodes_per_look: int = 256
    num_readers: int = 4
    decode_all_images: bool = False
    table_stats_interval_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("segment_length", "items_per_insert", "episodes_per_look", "num_readers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"IntakeConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("poll_interval_s", "insert_timeout_s", "table_stats_interval_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"IntakeConfig.{name} must be positive, got {getattr(self, name)}")


class Intake:
    """Fills replay tables from an episode store. Belongs to one thread.

        intake = Intake(store, tables, labeler, IntakeConfig(), clock, metrics)
        intake.run(should_stop)          # or, one look at a time: report = intake.look(); all that is there: intake.poll()

    An episode counts as taken in only after all its items were acknowledged; whatever goes wrong before that is tried
    again at the next look. Invalid episodes are quarantined. Those of a task that has no table here are left alone: another
    intake's server may have one. An intake that owns its store quarantines them too. The items of episodes that are retired
    (`episodes.retirement`) or set aside later are taken out of the tables.

    A look takes in `episodes_per_look` of them, so that a large store fills the tables from the first look on. Oldest
    first, as tables that are full let the oldest go. Only beside tables that were full before it came, an intake begins with
    the newest: those are missing, and what is missing of the older ones was let go. What arrives while it looks on always
    goes in, however old it is: nothing can have let it go yet.

    `relabel` gives all items another labeler's labels (a new value function or threshold) while the learner goes on sampling.

    Args:
      labels_of: names what makes the labels (labeler, horizon, segment length). An intake that comes to tables which were
        filled under another name (`labels_record`) replaces all items, as `relabel` does; "" = don't look.
      owns_store: no other server is filled from this store, so a task without a table here is a wrong one.
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
        labels_of: str = "",
        owns_store: bool = False,
        spec: RobotSpec | None = None,
        newest_version: Callable[[], int] | None = None,
    ):
        self._store = store
        self._tables = tables
        self._labeler = labeler
        self._labels_of = labels_of
        self._owns_store = owns_store
        self._config = config or IntakeConfig()
        self._clock = clock or WallClock()
        self._log = IntakeLog(metrics or NoMetrics(), self._clock, newest_version)
        self._reader = EpisodeReader(store, spec, self._config.decode_all_images, self._config.num_readers)
        self._removal = Removal(store, tables, self._config.insert_timeout_s)
        self._state_id: str | None = None
        self._done: set[str] = set()  # paths that need no further work while the tables keep their contents
        self._labelled: set[str] = set()  # of these, paths that a labeler had its say about
        self._stale: set[str] = set()  # paths whose items may carry an earlier labeler's labels
        self._told: set[str] = set()  # paths whose metrics were written
        self._held: dict[str, Held] = {}  # by path: what the tables hold through us, or held before they were lost
        self._failures: Counter[str] = Counter()  # by path, looks that couldn't read it: others go first
        self._found_first: frozenset[str] | None = None  # what was there when we came to these tables
        self._newest_first = False
        self._compared = False
        self._record: LabelsRecord | None = None  # as it stands in the store
        self._stats_due_ns = 0
        self.total = IntakeReport()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Looks at the store every `poll_interval_s` until told to stop. Outages of tables or store don't end it."""
        while not should_stop():
            if not self.look(should_stop).goes_on:
                self._clock.sleep_s(self._config.poll_interval_s)

    def relabel(self, labeler: Labeler, labels_of: str = "") -> None:
        """From now on `labeler` labels; the next looks replace the items that are in the tables.

        A server keeps the columns of a key that it has, so an item is deleted and inserted again, one episode at a time and
        oldest first: at any moment at most one episode's items are missing, and first-in-first-out goes on as before. Nothing
        is lost if a look breaks off: the next goes on. To a table's limiter the new items count as inserted.
        """
        self._labeler, self._labels_of = labeler, labels_of
        self._newest_first = False
        self._stale.update(self._labelled)
        self._done.difference_update(self._labelled)

    def poll(self, should_stop: Callable[[], bool] = lambda: False) -> IntakeReport:
        """Looks until all that is in the store now is dealt with. Returns early, with nothing lost, once `should_stop` says
        so, or when store or tables don't serve.

        Raises ReplayAccessError if the replay server refuses this intake for good.
        """
        report = whole = self.look(should_stop)
        while report.goes_on and not should_stop():
            report = self.look(should_stop)
            whole = whole.then(report)
        return whole

    def look(self, should_stop: Callable[[], bool] = lambda: False) -> IntakeReport:
        """One look at the store, for `episodes_per_look` at most. Otherwise as `poll`."""
        try:
            state_id = self._tables.state_id(self._config.insert_timeout_s)
            known = self._tables.info(self._config.insert_timeout_s)
        except ReplayAccessError:
            raise
        except SopError as error:
            return self._finish(IntakeReport(available=False), str(error))
        rebuilt = self._state_id is not None and state_id != self._state_id
        if state_id != self._state_id:
            self._state_id = state_id
            self._begin(known)
        counts: Counter[str] = Counter()
        try:
            listed = self._store.list_paths()
            self._removal.look()
        except Exception as error:  # storage drivers raise what they like; the store is asked again at the next look
            return self._finish(IntakeReport(rebuilt=rebuilt), f"store: {error}")
        trouble = self._settle_labels(state_id, known, listed)
        new = [path for path in listed if path not in self._done and path not in self._removal.unwanted]
        if self._found_first is None:
            self._found_first = frozenset(listed)
        self._log.found(new)
        chosen = self._choose(new)
        left = set(new).difference(chosen)
        counts["unreadable"] = len(left & self._failures.keys())
        counts["backlog"] = len(left) - counts["unreadable"]
        prepared = self._prepare(chosen, known, counts, should_stop)
        trouble = self._take_out(known, counts) or trouble
        wanted = drop_overflow(prepared, self._held, known, self._found_first)
        problem = self._insert_all(wanted, counts, should_stop)
        if prepared and self._labels_of:
            with contextlib.suppress(Exception):  # storage drivers raise what they like; the next look tries it again
                self._record_labels(state_id)
        return self._finish(dataclasses.replace(IntakeReport(rebuilt=rebuilt), **counts), problem or trouble)

    def _begin(self, known: Mapping[str, TableInfo]) -> None:
        """These are other tables than at the last look."""
        for paths in (self._done, self._labelled, self._stale, self._failures):
            paths.clear()  # not what was held: it will be again, and tells what would be pushed out
        self._found_first = None
        filled = any(table.size for table in known.values())
        self._removal.start_again(filled)
        self._newest_first = filled
        self._compared = False

    def _settle_labels(self, state_id: str, known: Mapping[str, TableInfo], listed: Sequence[str]) -> str:
        """Has items replaced that were labelled under another name, and keeps the record; returns what hinders it, or ""."""
        if not self._labels_of:
            return ""
        try:
            if not self._compared:
                self._record = read_labels(self._store)
                self._compared = True
                found, filled = self._record, any(table.size for table in known.values())
                if filled and found and found.state_id == state_id and found.labels_of != self._labels_of:
                    self._newest_first = False
                    self._stale.update(listed)
            self._record_labels(state_id)
        except Exception as error:  # storage drivers raise what they like; labels are settled at the next look
            return f"record of labels: {error}"
        return ""

    def _record_labels(self, state_id: str) -> None:
        now = LabelsRecord(state_id, MIXED if self._stale else self._labels_of)
        if now != self._record:
            write_labels(self._store, now)
            self._record = now

    def _choose(self, new: Sequence[str]) -> list[str]:
        """What this look takes in, of all that is to be done; the more looks couldn't read one, the later it comes."""
        num, failures = self._config.episodes_per_look, self._failures
        if failures:
            self._failures = failures = Counter({path: failures[path] for path in new if path in failures})
        if self._newest_first:
            self._newest_first = len(new) > num
            return sorted(new, key=lambda path: (failures[path], -started_ns(path)))[:num]
        return sorted(new, key=lambda path: (failures[path], started_ns(path)))[:num]

    def _take_out(self, known: Mapping[str, TableInfo], counts: Counter[str]) -> str:
        """Takes out of the tables what has no business there any more; returns what kept some of it in, or ""."""
        try:
            for path in self._removal.take_out(self._held, known):
                counts["removed"] += path in self._removal.retired or path in self._held
                self._held.pop(path, None)
                for paths in (self._done, self._labelled, self._stale, self._told):
                    paths.discard(path)
                self._reader.forget(path)
        except Exception as error:  # storage drivers raise what they like; the rest is taken out at the next look
            return f"retired episodes, or set aside: {error}"
        return ""

    def _prepare(
        self,
        paths: Sequence[str],
        known: Mapping[str, TableInfo],
        counts: Counter[str],
        should_stop: Callable[[], bool],
    ) -> list[Prepared]:
        """Reads, verifies and segments episodes; deals with those that aren't for the tables."""
        prepared = []
        for path, result in self._reader.read(paths):
            if should_stop():
                break
            self._tell_tables()
            if isinstance(result, Unreadable):
                self._leave(path, result.reason, counts)
                continue
            if isinstance(result, Invalid):
                self._quarantine(path, result.reason, result.size, counts)
                continue
            try:
                episode = self._prepare_one(path, result, known)
            except ImagesUnavailableError as error:
                self._leave(path, str(error), counts)
                continue
            except InvalidEpisodeError as error:
                self._quarantine(path, str(error), result.index.size, counts)
                continue
            except (
                SopError
            ) as error:  # the labeler lacks something (a value function for this task): others may have it
                self._leave(path, f"can't be labelled here: {error}", counts)
                continue
            if episode.table not in known:
                self._count_done(episode, "foreign", counts)
            elif result.manifest.outcome in _UNTRAINABLE:
                self._count_done(episode, "untrainable", counts)
            elif not episode.items and not episode.stale_keys:
                self._count_done(episode, "empty", counts)
            else:
                prepared.append(episode)
        return sorted(prepared, key=lambda episode: episode.age_order)

    def _prepare_one(self, path: str, episode: VerifiedEpisode, known: Mapping[str, TableInfo]) -> Prepared:
        manifest, arrays = episode.manifest, episode.arrays
        prepared = self._without_items(path, episode)
        if prepared.table not in known:
            if self._owns_store:
                raise InvalidEpisodeError(wrong_task(manifest.task, {task_of_table(table) for table in known}))
            self._log.foreign(path, f"unknown task: {table_not_found(prepared.table, known)}")
            return prepared
        if manifest.outcome in _UNTRAINABLE:
            return prepared
        try:
            labels = self._labeler(manifest, arrays, StoredImages(self._store, manifest, episode.index))
        except UnlabelledEpisodeError as error:  # nothing of it in the tables, for as long as this one labels
            self._log.unlabelled(path, str(error))
            return prepared
        except ValueError as error:  # another robot's dimensions or cameras
            raise InvalidEpisodeError(f"episode {manifest.episode_id} can't be labelled: {error}") from error
        segments = segments_of(manifest, episode.index, arrays, labels, self._config.segment_length)
        return dataclasses.replace(prepared, items=tuple(encode_segment(segment) for segment in segments))

    def _without_items(self, path: str, episode: VerifiedEpisode) -> Prepared:
        manifest, arrays = episode.manifest, episode.arrays
        table = online_table(manifest.task) if manifest.source is Source.ONLINE else offline_table(manifest.task)
        stale_keys = possible_keys(manifest, arrays) if path in self._stale else ()
        if path in self._held:
            age_order = self._held[path].age_order
        else:  # none ends after it has come, whatever its robot's clock says
            age_order = min(manifest.ended_ns, self._clock.now_ns()), manifest.episode_id
        return Prepared(path, table, manifest, age_order, int(arrays.intervention.sum()), (), stale_keys)

    def _insert_all(self, prepared: Sequence[Prepared], counts: Counter[str], should_stop: Callable[[], bool]) -> str:
        """Inserts episodes oldest first, several to a call; returns what kept some of them out, or ""."""
        problem = ""
        by_table: dict[str, list[Prepared]] = {}
        for episode in prepared:
            by_table.setdefault(episode.table, []).append(episode)
        for table, episodes in by_table.items():
            for group in groups_of(episodes, self._config.items_per_insert):
                if should_stop():
                    problem = problem or "stopped"
                    break
                self._held.update((episode.path, episode.held) for episode in group)
                items = [item for episode in group for item in episode.items]
                stale_keys = [key for episode in group for key in episode.stale_keys]
                try:
                    if stale_keys:
                        self._tables.update_priorities(table, {}, stale_keys, self._config.insert_timeout_s)
                    if items:
                        self._tables.insert(table, items, self._config.insert_timeout_s)
                except ReplayAccessError:
                    raise
                except SopError as error:
                    problem = str(error)
                    break
                self._tell_tables()
                for episode in group:
                    counts["num_items"] += 0 if episode.stale_keys else len(episode.items)
                    kind = "relabelled" if episode.stale_keys else "inserted" if episode.items else "pushed_out"
                    self._count_done(episode, kind, counts)
        counts["pending"] = len(prepared) - counts["inserted"] - counts["relabelled"] - counts["pushed_out"]
        return problem

    def _quarantine(self, path: str, reason: str, size: int | None, counts: Counter[str]) -> None:
        """Sets an episode aside. If the store can't write that down now, the episode comes up again at the next look."""
        try:
            self._store.quarantine(path, reason, size=size)
        except Exception as error:  # storage drivers raise what they like
            self._leave(path, f"quarantine failed: {error}", counts)
            return
        self._removal.add(path)
        counts["quarantined"] += 1
        self._log.quarantined(path, reason)

    def _leave(self, path: str, reason: str, counts: Counter[str]) -> None:
        """Leaves an episode for a later look."""
        self._failures[path] += 1
        counts["unreadable"] += 1
        self._log.unreadable(path, reason)

    def _count_done(self, episode: Prepared, kind: str, counts: Counter[str]) -> None:
        self._done.add(episode.path)
        self._stale.discard(episode.path)
        if kind not in ("untrainable", "foreign"):
            self._labelled.add(episode.path)
        counts[kind] += 1
        if episode.path in self._told:
            self._log.forget(episode.path)
            return
        self._told.add(episode.path)
        self._log.episode(episode.path, episode.manifest, kind, len(episode.items), episode.num_intervention_frames)

    def _finish(self, report: IntakeReport, problem: str) -> IntakeReport:
        """Adds up, writes the metrics, and returns the report."""
        self.total = self.total.then(report)
        if report.changed or problem:
            self._log.report(report, problem)
        if report.available:
            self._tell_tables(at_once=report.changed)
        return report

    def _tell_tables(self, at_once: bool = False) -> None:
        """Writes the tables' sizes to the metrics when they are due. That they come tells that the server answers, so a long
        look (hundreds of large episodes to read) tells them too."""
        now_ns = self._clock.now_ns()
        if at_once or now_ns >= self._stats_due_ns:
            self._stats_due_ns = now_ns + round(self._config.table_stats_interval_s * 1e9)
            with contextlib.suppress(SopError):
                self._log.tables(self._tables.info(min(_STATS_TIMEOUT_S, self._config.insert_timeout_s)).values())
