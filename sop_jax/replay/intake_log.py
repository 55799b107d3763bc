"""What intake tells the world: a report of each look at the store, and metrics.

| event | when | values |
|---|---|---|
| episode | once per episode that was dealt with | ids, outcome, policy_version, interventions, items, delay, staleness |
| look | a look that found something new begins | num_new |
| intake | a look that changed something or met a problem | the report's counts, problem, waiting (pending and backlog) |
| table | after changes and every `table_stats_interval_s`, in a look too | table, size, max_size, num_inserted, num_sampled |
| quarantine | an episode was set aside | episode_id, path, reason |
| unlabelled_episode | the labeler can't read an episode: empty until there is another labeler | episode_id, path, reason |
| foreign_episode | an episode's task has no table here | episode_id, path, reason |
| unreadable_episode | the store didn't serve an episode this time | episode_id, path, reason |
"""

import dataclasses
from collections.abc import Callable, Iterable

from sop_jax.specs.clock import Clock, age_s
from sop_jax.specs.interfaces import Metrics, TableInfo
from sop_jax.specs.records import NO_POLICY, EpisodeManifest


@dataclasses.dataclass(frozen=True)
class IntakeReport:
    """What one look at the store did, or all of them together. Counts are episodes unless named otherwise.

    inserted: in the tables now, all items acknowledged. num_items: their items.
    quarantined: set aside in the store, with a reason.
    untrainable: outcome ERROR or ABORTED; kept in the store, never trained on. empty: no trainable frame with images, or none
        that the labeler can read.
    foreign: of a task that has no table here. pushed_out: older than what a full table holds, which had let it go before this
        intake came.
    relabelled: had their items replaced by items with the present labeler's labels.
    removed: retired, or set aside after they had come in; none of their items is in the tables now.
    unreadable, pending: left for a later look, because the store or the tables did not serve them. backlog: not looked at
        yet, because a look takes in so many and no more.
    rebuilt: the tables had lost their contents and are filled again. available: the tables answered.
    """

    inserted: int = 0
    num_items: int = 0
    quarantined: int = 0
    untrainable: int = 0
    empty: int = 0
    foreign: int = 0
    pushed_out: int = 0
    unreadable: int = 0
    pending: int = 0
    relabelled: int = 0
    removed: int = 0
    backlog: int = 0
    rebuilt: bool = False
    available: bool = True

    @property
    def changed(self) -> bool:
        settled = self.untrainable, self.empty, self.foreign, self.pushed_out
        return self.rebuilt or any((self.inserted, self.quarantined, self.relabelled, self.removed, *settled))

    @property
    def goes_on(self) -> bool:
        """Whether there is more to do at once: a backlog, and nothing in the way."""
        return self.backlog > 0 and self.available and not self.pending

    def then(self, later: "IntakeReport") -> "IntakeReport":
        """Both looks together: counts are added, what is left is the later one's."""
        left = ("pending", "unreadable", "backlog", "rebuilt", "available")
        sums = {
            field.name: getattr(self, field.name) + getattr(later, field.name)
            for field in dataclasses.fields(self)
            if field.name not in left
        }
        return dataclasses.replace(later, **sums, rebuilt=self.rebuilt or later.rebuilt)


class IntakeLog:
    """Writes intake's metrics.

    Args:
      newest_version: the newest policy version published; default: the newest that acted in an episode so far.
    """

    def __init__(self, metrics: Metrics, clock: Clock, newest_version: Callable[[], int] | None):
        self._metrics = metrics
        self._clock = clock
        self._newest_seen = NO_POLICY
        self._newest_version = newest_version or (lambda: self._newest_seen)
        self._found_ns: dict[str, int] = {}

    def found(self, paths: Iterable[str]) -> None:
        """A look begins with these episodes to deal with; what an earlier look found too keeps its time."""
        new = list(paths)
        now_ns = self._clock.now_ns()
        for path in new:
            self._found_ns.setdefault(path, now_ns)
        if new:
            self._metrics.write("look", num_new=len(new))

    def forget(self, path: str) -> None:
        """This episode is dealt with, and was told before."""
        self._found_ns.pop(path, None)

    def episode(
        self, path: str, manifest: EpisodeManifest, intake: str, num_items: int, num_intervention_frames: int
    ) -> None:
        """`intake` says what became of it: inserted, untrainable, empty, foreign or pushed_out. `intake_s` runs from the look
        that found it, `intake_delay_s` from the episode's end; it is left out where the robot's clock knew no date (all
        demonstrations)."""
        self._newest_seen = max(self._newest_seen, manifest.policy_version)
        known: dict[str, float | int] = {}
        if manifest.policy_version != NO_POLICY:
            known["staleness_versions"] = max(0, self._newest_version() - manifest.policy_version)
        now_ns = self._clock.now_ns()
        if (delay_s := age_s(manifest.ended_ns, now_ns)) is not None:
            known["intake_delay_s"] = delay_s
        found_ns = self._found_ns.pop(path, now_ns)
        self._metrics.write(
            "episode",
            episode_id=manifest.episode_id,
            robot_id=manifest.robot_id,
            task=manifest.task,
            source=str(manifest.source),
            outcome=str(manifest.outcome),
            failure_kind=manifest.failure_kind,
            policy_version=manifest.policy_version,
            num_frames=manifest.num_frames,
            num_interventions=manifest.num_interventions,
            num_intervention_frames=num_intervention_frames,
            num_items=num_items,
            intake=intake,
            duration_s=(manifest.ended_ns - manifest.started_ns) / 1e9,
            intake_s=(now_ns - found_ns) / 1e9,
            **known,
        )

    def quarantined(self, path: str, reason: str) -> None:
        self._found_ns.pop(path, None)
        self._metrics.write("quarantine", episode_id=_episode_id(path), path=path, reason=reason)

    def unreadable(self, path: str, reason: str) -> None:
        self._metrics.write("unreadable_episode", episode_id=_episode_id(path), path=path, reason=reason)

    def unlabelled(self, path: str, reason: str) -> None:
        self._metrics.write("unlabelled_episode", episode_id=_episode_id(path), path=path, reason=reason)

    def foreign(self, path: str, reason: str) -> None:
        self._metrics.write("foreign_episode", episode_id=_episode_id(path), path=path, reason=reason)

    def report(self, report: IntakeReport, problem: str) -> None:
        waiting = report.pending + report.backlog
        self._metrics.write("intake", problem=problem, waiting=waiting, **dataclasses.asdict(report))

    def tables(self, tables: Iterable[TableInfo]) -> None:
        for info in tables:
            self._metrics.write(
                "table",
                table=info.name,
                size=info.size,
                max_size=info.max_size,
                num_inserted=info.num_inserted,
                num_sampled=info.num_sampled,
            )


def _episode_id(path: str) -> str:
    """The id that an object's path claims."""
    return path.rpartition("/")[2].removesuffix(".zip")
