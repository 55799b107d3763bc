"""What happened in a simulated fleet: one record per episode and per publication, and their sums."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class EpisodeRecord:
    """An episode that reached the store. Times are virtual [s]; `human_s` is how long a person acted.

    staleness_s: at the episode's middle, the age of the weights that acted: since they were published, for the base since the
        learner began; None if no policy acted. versions_behind: publications since then.
    waited_s: how long the robot held still because it waited for a person.
    """

    episode_id: str
    robot_id: str
    task: str
    started_s: float
    ended_s: float
    version: int
    outcome: str
    failure_kind: str
    num_takeovers: int
    human_s: float
    staleness_s: float | None
    versions_behind: int | None
    waited_s: float = 0.0

    @property
    def autonomous_success(self) -> bool:
        return self.outcome == "success" and not self.num_takeovers


@dataclasses.dataclass(frozen=True)
class PublicationRecord:
    """A publication: when it was made, and after how many learner steps."""

    version: int
    learner_step: int
    published_s: float


@dataclasses.dataclass(frozen=True)
class TaskTotals:
    """A task's episodes, summed up."""

    num_episodes: int
    num_successes: int
    num_autonomous_successes: int
    num_takeovers: int
    robot_s: float
    human_s: float


@dataclasses.dataclass(frozen=True)
class Journal:
    """Everything that was noted, in the order of virtual time. `duration_s` is the whole stretch; `absent_s` for how long
    robots were missing in it, all together."""

    episodes: tuple[EpisodeRecord, ...]
    publications: tuple[PublicationRecord, ...]
    learner_steps: int
    last_version: int
    duration_s: float
    num_robots: int
    online_share: float
    absent_s: float = 0.0

    @property
    def robot_hours(self) -> float:
        """Robots times the time they were on, resets included."""
        return (self.num_robots * self.duration_s - self.absent_s) / 3600

    @property
    def human_minutes(self) -> float:
        """How long people acted; what they do between episodes isn't counted."""
        return sum(episode.human_s for episode in self.episodes) / 60

    @property
    def successes_per_human_minute(self) -> float | None:
        """Successes over minutes in which people acted; None if nobody did. A plain ratio, unlike Fleet-DAgger's return on
        human effort (see `tally.DynamicsResult.successes_per_operator_minute`)."""
        num = sum(episode.outcome == "success" for episode in self.episodes)
        return num / self.human_minutes if self.human_minutes else None

    @property
    def median_staleness_s(self) -> float | None:
        """Over episodes in which a policy acted."""
        ages = [episode.staleness_s for episode in self.episodes if episode.staleness_s is not None]
        return float(np.median(ages)) if ages else None

    def totals(self) -> dict[str, TaskTotals]:
        """Sums by task."""
        return {
            task: _total([e for e in self.episodes if e.task == task])
            for task in sorted({e.task for e in self.episodes})
        }


def _total(episodes: Sequence[EpisodeRecord]) -> TaskTotals:
    return TaskTotals(
        num_episodes=len(episodes),
        num_successes=sum(episode.outcome == "success" for episode in episodes),
        num_autonomous_successes=sum(episode.autonomous_success for episode in episodes),
        num_takeovers=sum(episode.num_takeovers for episode in episodes),
        robot_s=sum(episode.ended_s - episode.started_s for episode in episodes),
        human_s=sum(episode.human_s for episode in episodes),
    )
