"""What a fleet's supervised work was worth, and what it cost people: from its episodes."""

import dataclasses
from collections.abc import Collection, Iterable

from sop_jax.evaluation.results import RESET_S
from sop_jax.evaluation.run_history import EpisodeSource, EpisodeSummary, summary_of
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError
from sop_jax.specs.records import Outcome


@dataclasses.dataclass(frozen=True)
class SupervisedWork:
    """Episodes with people at hand, summed up. Broken-off and broken ones, and demonstrations, are left out.

    num_successes: with or without help. autonomous, autonomous_low, autonomous_high: share of episodes that succeeded
        without help, and its 95% Wilson interval.
    robot_h: time in episodes, of policy and people. intervention_min: of it, people acted. human_min: interventions, and
        `reset_s` after every episode.
    intervention_min_per_success, human_min_per_success: None without a success.
    successes_per_hour: of robot time and resets. throughput_per_hour: episodes ended per hour of policy execution alone, the
        paper's figure; it counts failures too.
    """

    num_episodes: int
    num_successes: int
    num_autonomous: int
    num_interventions: int
    autonomous: float
    autonomous_low: float
    autonomous_high: float
    robot_h: float
    intervention_min: float
    human_min: float
    intervention_min_per_success: float | None
    human_min_per_success: float | None
    successes_per_hour: float
    throughput_per_hour: float
    reset_s: float


def sum_up_work(episodes: Iterable[EpisodeSummary], reset_s: float = RESET_S) -> SupervisedWork:
    """Sums up episodes, whatever their order."""
    counted = [episode for episode in episodes if episode.counts]
    num_successes = sum(episode.outcome is Outcome.SUCCESS for episode in counted)
    num_autonomous = sum(episode.autonomous_success for episode in counted)
    share = wilson_interval(num_autonomous, len(counted))
    robot_s = sum(_duration_s(episode) for episode in counted)
    acted_s = sum(
        _duration_s(episode) * episode.num_intervention_frames / max(1, episode.num_frames) for episode in counted
    )
    reset_total_s = reset_s * len(counted)
    human_s = acted_s + reset_total_s
    return SupervisedWork(
        num_episodes=len(counted),
        num_successes=num_successes,
        num_autonomous=num_autonomous,
        num_interventions=sum(episode.num_interventions for episode in counted),
        autonomous=share.value,
        autonomous_low=share.low,
        autonomous_high=share.high,
        robot_h=robot_s / 3600,
        intervention_min=acted_s / 60,
        human_min=human_s / 60,
        intervention_min_per_success=acted_s / 60 / num_successes if num_successes else None,
        human_min_per_success=human_s / 60 / num_successes if num_successes else None,
        successes_per_hour=completions_per_hour(num_successes, len(counted), robot_s, reset_s),
        throughput_per_hour=_per_hour(len(counted), robot_s - acted_s),
        reset_s=reset_s,
    )


def completions_per_hour(num_successes: int, num_episodes: int, robot_s: float, reset_s: float = RESET_S) -> float:
    """Successful completions per hour of one robot: of its time in episodes, people's in it included, and of resets."""
    return _per_hour(num_successes, robot_s + reset_s * num_episodes)


def read_work(store: EpisodeSource, task: str = "", paths: Collection[str] | None = None) -> list[EpisodeSummary]:
    """The store's readable episodes, of one task or ("") of all, in order of time. `paths`: of these only."""
    found = []
    for path in store.list_paths() if paths is None else paths:
        try:
            parsed = store.read_without_images(path)
        except (InvalidEpisodeError, EpisodeNotFoundError):  # intake says why in its quarantine record
            continue
        if task in ("", parsed.manifest.task):
            found.append(summary_of(parsed.manifest, parsed.arrays, path))
    return sorted(found, key=lambda episode: (episode.ended_s, episode.episode_id))


def _duration_s(episode: EpisodeSummary) -> float:
    return episode.ended_s - episode.started_s


def _per_hour(num: int, total_s: float) -> float:
    return 3600 * num / total_s if total_s > 0 else 0.0
