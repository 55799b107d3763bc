"""What happened in a run, as frozen records: the material of the live display, the summary and the report.

All times are seconds since the Unix epoch (robots' and learner's clocks are one on one machine).
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from sop_jax.evaluation.timeliness import Acted, Correction, Published, Staleness
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome, Source


class ReadEpisode(Protocol):
    """What `episodes.format.ParsedEpisode` offers."""

    @property
    def manifest(self) -> EpisodeManifest: ...

    @property
    def arrays(self) -> EpisodeArrays: ...


class EpisodeSource(Protocol):
    """What `episodes.store.EpisodeStore` offers to a reader of runs."""

    def list_paths(self) -> list[str]: ...

    def read_without_images(self, path: str) -> ReadEpisode: ...


@dataclasses.dataclass(frozen=True)
class EpisodeSummary:
    """An episode, without its arrays. `failed_s` are the times at which its interventions were asked for."""

    episode_id: str
    path: str
    robot_id: str
    task: str
    source: Source
    policy_version: int
    outcome: Outcome
    failure_kind: str
    num_frames: int
    num_intervention_frames: int
    started_s: float
    ended_s: float
    failed_s: tuple[float, ...]

    @property
    def num_interventions(self) -> int:
        return len(self.failed_s)

    @property
    def counts(self) -> bool:
        """Whether it says anything about the policy: broken-off and broken episodes don't."""
        return self.source is Source.ONLINE and self.outcome not in (Outcome.ABORTED, Outcome.ERROR)

    @property
    def autonomous_success(self) -> bool:
        """It succeeded and nobody had to help. A false alarm of the supervisor counts as a failure."""
        return self.outcome is Outcome.SUCCESS and self.num_interventions == 0

    @property
    def acted(self) -> Acted:
        return Acted(self.robot_id, self.task, self.policy_version, self.started_s, self.ended_s)

    @property
    def corrections(self) -> tuple[Correction, ...]:
        return tuple(Correction(self.episode_id, self.task, time_s) for time_s in self.failed_s)


def summary_of(manifest: EpisodeManifest, arrays: EpisodeArrays, path: str) -> EpisodeSummary:
    """What a run remembers of an episode."""
    return EpisodeSummary(
        episode_id=manifest.episode_id,
        path=path,
        robot_id=manifest.robot_id,
        task=manifest.task,
        source=manifest.source,
        policy_version=manifest.policy_version,
        outcome=manifest.outcome,
        failure_kind=manifest.failure_kind,
        num_frames=manifest.num_frames,
        num_intervention_frames=int(arrays.intervention.sum()),
        started_s=manifest.started_ns / 1e9,
        ended_s=manifest.ended_ns / 1e9,
        failed_s=tuple(int(arrays.time_ns[event.asked_frame]) / 1e9 for event in manifest.takeovers),
    )


@dataclasses.dataclass(frozen=True)
class LearnerSample:
    """The learner at one moment. `wait_share` is the share of its time spent waiting for data, 0 to 1."""

    time_s: float
    learner_step: int
    steps_per_s: float
    loss: float
    wait_share: float


@dataclasses.dataclass(frozen=True)
class SamplerSample:
    """The sampler's wish for one task at one moment, and what the tables gave: shares of online examples, 0 to 1."""

    time_s: float
    task: str
    asked_share: float
    given_share: float


@dataclasses.dataclass(frozen=True)
class RunHistory:
    """A run so far. Online episodes only, in order of their end; `demonstrations` counts the offline ones."""

    episodes: tuple[EpisodeSummary, ...]
    num_demonstrations: int
    learner: tuple[LearnerSample, ...]
    sampler: tuple[SamplerSample, ...]
    publications: tuple[Published, ...]
    staleness: tuple[Staleness, ...]
    correction_latencies_s: tuple[float, ...]
    table_sizes: Mapping[str, int]
    num_swaps: int
    learning_since_s: float | None


@dataclasses.dataclass(frozen=True)
class RobotState:
    """One robot, as its episodes show it."""

    robot_id: str
    policy_version: int
    num_episodes: int
    num_successes: int
    num_interventions: int
    last_outcome: str
    last_ended_s: float


@dataclasses.dataclass(frozen=True)
class RunState:
    """A run at one moment, for one screen. Shares are 0 to 1; what isn't known yet is None."""

    robots: tuple[RobotState, ...]
    success: float | None
    num_recent: int
    interventions_per_episode: float | None
    num_episodes: int
    num_frames: int
    num_interventions: int
    learner: LearnerSample | None
    policy_version: int
    table_sizes: Mapping[str, int]
    sampler: Mapping[str, SamplerSample]
    median_staleness_s: float | None
    median_staleness_versions: float | None
    median_correction_latency_s: float | None
