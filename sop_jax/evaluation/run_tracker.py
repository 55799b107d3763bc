"""Merges what the processes of a run measured with what the store holds.

Read events (others are kept in the merged log, and unread here):

| event | written by | values |
|---|---|---|
| learner_begins | learner | step (of the checkpoint that it takes up: what was done beyond it is discarded) |
| learner_step | learner | step, steps_per_s, loss, wait_share |
| publication | learner | version, learner_step, created_ns |
| first_use | learner | episode_id, learner_step (steps done once its first batch was learnt from) |
| sampler | loader | task, online_share_asked, online_share_given |
| table | intake | table, size |
"""

import bisect
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

from sop_jax.evaluation.event_log import Event
from sop_jax.evaluation.run_history import (
    EpisodeSummary,
    LearnerSample,
    RobotState,
    RunHistory,
    RunState,
    SamplerSample,
)
from sop_jax.evaluation.timeliness import FirstUse, Published, correction_latencies, staleness
from sop_jax.specs.records import Outcome, Source

ROLLING_EPISODES = 40
"""Episodes in the rolling success rate: with 40, its standard error is 8 points at worst."""


class RunTracker:
    """Takes in events and episodes in any order, each once; answers for the whole run so far. Not thread-safe."""

    def __init__(self) -> None:
        self._episodes: dict[str, EpisodeSummary] = {}
        self._demonstrations: set[str] = set()
        self._learner: list[LearnerSample] = []
        self._sampler: list[SamplerSample] = []
        self._publications: dict[int, Published] = {}
        self._told_s: dict[int, float] = {}  # by version
        self._first_uses: dict[str, list[tuple[float, int]]] = {}  # by episode: when told, learner_step
        self._begins: list[tuple[float, int]] = []  # when told, learner_step
        self._table_sizes: dict[str, int] = {}
        self._learning_since_s: float | None = None
        self._readers: dict[str, Callable[[Event], None]] = {
            "learner_begins": self._on_learner_begins,
            "learner_step": self._on_learner_step,
            "publication": self._on_publication,
            "first_use": self._on_first_use,
            "sampler": self._on_sampler,
            "table": self._on_table,
        }

    def add_events(self, events: Iterable[Event]) -> None:
        for event in events:
            reader = self._readers.get(event.name)
            if reader is not None:
                reader(event)

    def add_episode(self, episode: EpisodeSummary) -> None:
        if episode.source is Source.OFFLINE:
            self._demonstrations.add(episode.episode_id)
        else:
            self._episodes[episode.episode_id] = episode

    def history(self) -> RunHistory:
        episodes = tuple(sorted(self._episodes.values(), key=lambda episode: (episode.ended_s, episode.episode_id)))
        begins = sorted(self._begins) or [(0.0, 0)]
        began_s = [told_s for told_s, _ in begins[1:]]  # whatever was told before belongs to the first life
        published = tuple(
            dataclasses.replace(self._publications[version], life=bisect.bisect_right(began_s, self._told_s[version]))
            for version in sorted(self._publications)
        )
        first_uses = {
            episode_id: [FirstUse(step, bisect.bisect_right(began_s, told_s)) for told_s, step in sorted(uses)]
            for episode_id, uses in self._first_uses.items()
        }
        began_at = [step for _, step in begins]
        acted = [episode.acted for episode in episodes if episode.counts]
        since_s = self._learning_since_s
        corrections = [correction for episode in episodes for correction in episode.corrections]
        return RunHistory(
            episodes=episodes,
            num_demonstrations=len(self._demonstrations),
            learner=tuple(self._learner),
            sampler=tuple(self._sampler),
            publications=published,
            staleness=tuple(staleness(acted, published, since_s)) if since_s is not None else (),
            correction_latencies_s=tuple(correction_latencies(corrections, first_uses, published, acted, began_at)),
            table_sizes=dict(self._table_sizes),
            num_swaps=_count_swaps(episodes),
            learning_since_s=since_s,
        )

    def state(self) -> RunState:
        return state_of(self.history())

    def _on_learner_begins(self, event: Event) -> None:
        self._begins.append((event.time_s, int(event.number("step"))))

    def _on_learner_step(self, event: Event) -> None:
        sample = LearnerSample(
            time_s=event.time_s,
            learner_step=int(event.number("step")),
            steps_per_s=event.number("steps_per_s"),
            loss=event.number("loss"),
            wait_share=event.number("wait_share"),
        )
        self._learner.append(sample)
        if self._learning_since_s is None:
            self._learning_since_s = event.time_s

    def _on_publication(self, event: Event) -> None:
        version = int(event.number("version"))
        # The event is written when the learner's housekeeping is over; robots may act with the version before that.
        time_s = event.number("created_ns", 1e9 * event.time_s) / 1e9
        self._publications[version] = Published(version, int(event.number("learner_step")), time_s)
        self._told_s[version] = event.time_s

    def _on_first_use(self, event: Event) -> None:
        # One that an older checkpoint knows nothing of is told again, and counts from then on.
        uses = self._first_uses.setdefault(event.text("episode_id"), [])
        uses.append((event.time_s, int(event.number("learner_step"))))

    def _on_sampler(self, event: Event) -> None:
        share = event.number("online_share_asked")
        sample = SamplerSample(event.time_s, event.text("task"), share, event.number("online_share_given", share))
        self._sampler.append(sample)

    def _on_table(self, event: Event) -> None:
        self._table_sizes[event.text("table")] = int(event.number("size"))


def state_of(history: RunHistory) -> RunState:
    """The last moment of a history."""
    counted = [episode for episode in history.episodes if episode.counts]
    recent = counted[-ROLLING_EPISODES:]
    return RunState(
        robots=tuple(_robot_states(history.episodes)),
        success=_mean([float(episode.autonomous_success) for episode in recent]),
        num_recent=len(recent),
        interventions_per_episode=_mean([float(episode.num_interventions) for episode in recent]),
        num_episodes=len(history.episodes),
        num_frames=sum(episode.num_frames for episode in history.episodes),
        num_interventions=sum(episode.num_interventions for episode in history.episodes),
        learner=history.learner[-1] if history.learner else None,
        policy_version=history.publications[-1].version if history.publications else 0,
        table_sizes=history.table_sizes,
        sampler={sample.task: sample for sample in history.sampler},
        median_staleness_s=_median([value.age_s for value in history.staleness]),
        median_staleness_versions=_median([value.num_versions for value in history.staleness]),
        median_correction_latency_s=_median(history.correction_latencies_s),
    )


def _robot_states(episodes: Sequence[EpisodeSummary]) -> list[RobotState]:
    by_robot: dict[str, list[EpisodeSummary]] = {}
    for episode in episodes:
        by_robot.setdefault(episode.robot_id, []).append(episode)
    return [
        RobotState(
            robot_id=robot_id,
            policy_version=done[-1].policy_version,
            num_episodes=len(done),
            num_successes=sum(episode.outcome is Outcome.SUCCESS for episode in done),
            num_interventions=sum(episode.num_interventions for episode in done),
            last_outcome=done[-1].outcome.value,
            last_ended_s=done[-1].ended_s,
        )
        for robot_id, done in sorted(by_robot.items())
    ]


def _count_swaps(episodes: Sequence[EpisodeSummary]) -> int:
    """How often a robot began an episode with another version than the one before (the base's is 0)."""
    num_swaps, versions = 0, dict[str, int]()
    for episode in sorted(episodes, key=lambda episode: episode.started_s):
        num_swaps += episode.policy_version != versions.get(episode.robot_id, 0)
        versions[episode.robot_id] = episode.policy_version
    return num_swaps


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    return float(statistics.median(values)) if values else None
