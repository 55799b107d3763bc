"""How far a value function can be trusted: what it predicted against what came, on episodes that it never learnt from.

Legend: `K` frames with images of one episode, `N` frames of all.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from sop_jax.algorithms.recap.returns import returns
from sop_jax.algorithms.recap.value_function import ValueFunction
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.value.distribution import HIGHEST, LOWEST
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome, Source

POSITIVE_SHARE = 0.3
"""RECAP's default: what the report's threshold calls positive."""
_NUM_PARTS = 10
"""Parts of [-1, 0], and of [0, 1], that predictions are sorted into."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """One episode as the value function saw it, at its frames with images.

    predicted, realised: normalised returns [K]. advantage: [K]. p_success: probability of the bins of successes [K].
    elapsed_s: since the episode's start [K]. stages: [K], "" where unknown.
    """

    manifest: EpisodeManifest
    held_out: bool
    predicted: Float[np.ndarray, "K"]
    realised: Float[np.ndarray, "K"]
    advantage: Float[np.ndarray, "K"]
    p_success: Float[np.ndarray, "K"]
    elapsed_s: Float[np.ndarray, "K"]
    stages: tuple[str, ...]

    @property
    def succeeded(self) -> bool:
        return self.manifest.outcome == Outcome.SUCCESS


@dataclasses.dataclass(frozen=True)
class Part:
    """Frames that belong together: how many, of how many episodes, mean prediction, mean return, mean absolute error, and
    how well predictions tell successes from failures there (AUC; None if there is only one kind)."""

    name: str
    num_frames: int
    num_episodes: int
    predicted: float
    realised: float
    mean_abs_error: float
    auc: float | None


@dataclasses.dataclass(frozen=True)
class TaskCalibration:
    """One task's numbers, on held-out episodes.

    mean_abs_error, root_mean_square_error, bias (predicted - realised): of normalised returns; `frames_per_unit` turns them
        into frames. baseline_error: mean absolute error of the best guess without looking: the training episodes' mean
        return after as many seconds.
    auc: of a frame's prediction, successes against failures; auc_first_frame: at the very first look; auc_of_policy: in
        episodes of a policy alone, because demonstrations, which succeed, may be known by other things than their prospects.
    positive_successes, positive_failures: of the frames of a policy's successes, and of its failures, the share whose
        advantage exceeds the task's threshold; None without such episodes. Were they equal, the label would say nothing.
    brier, calibration_error: of the probability of success; the latter is the expected one over ten equal parts.
    by_prediction, by_stage, by_elapsed: the same frames sorted in three ways; stages are those of a replay in simulation.
    """

    task: str
    num_episodes: int
    num_successes: int
    num_frames: int
    frames_per_unit: float
    mean_abs_error: float
    root_mean_square_error: float
    bias: float
    baseline_error: float
    auc: float | None
    auc_first_frame: float | None
    auc_of_policy: float | None
    positive_successes: float | None
    positive_failures: float | None
    brier: float
    calibration_error: float
    by_prediction: tuple[Part, ...]
    by_stage: tuple[Part, ...]
    by_elapsed: tuple[Part, ...]


def judge(
    value_function: ValueFunction,
    manifest: EpisodeManifest,
    arrays: EpisodeArrays,
    images: EpisodeImages,
    held_out: bool,
    stages: Sequence[str] | None = None,
) -> Judged:
    """Asks the value function about one episode. Raises ValueError if its end says nothing (see `JUDGED`)."""
    rows = arrays.image_frames
    bins = value_function.distributions(manifest, arrays, images)
    values = np.linspace(LOWEST, HIGHEST, bins.shape[1])
    predicted = bins @ values
    cost = value_function.returns.failure_cost
    # Failures end at -cost or below; a bin on the border belongs half to either.
    good = 0.5 * (np.sign(np.round(values + cost / (1 + cost), 9)) + 1)
    return Judged(
        manifest=manifest,
        held_out=held_out,
        predicted=predicted,
        realised=returns(value_function.rewards(manifest))[rows],
        advantage=value_function.advantages(manifest, arrays, predicted)[rows],
        p_success=(bins @ good).clip(0, 1),
        elapsed_s=rows / manifest.control_hz,
        stages=tuple(stages[int(row)] for row in rows) if stages is not None else ("",) * len(rows),
    )


def calibrate(episodes: Sequence[Judged], value_function: ValueFunction) -> tuple[TaskCalibration, ...]:
    """The numbers of every task that has a held-out episode."""
    tasks = sorted({episode.manifest.task for episode in episodes if episode.held_out})
    return tuple(
        _calibrate_task(task, [e for e in episodes if e.manifest.task == task], value_function) for task in tasks
    )


def area_under_curve(scores: Float[np.ndarray, "N"], positive: Bool[np.ndarray, "N"]) -> float | None:
    """The probability that a positive's score exceeds a negative's, ties counted half; None if a kind is missing."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _calibrate_task(task: str, episodes: Sequence[Judged], value_function: ValueFunction) -> TaskCalibration:
    held = [episode for episode in episodes if episode.held_out]
    predicted, realised = _join(held, lambda e: e.predicted), _join(held, lambda e: e.realised)
    succeeded = np.concatenate([np.full(len(e.predicted), e.succeeded) for e in held])
    of_policy = np.concatenate([np.full(len(e.predicted), e.manifest.source == Source.ONLINE) for e in held])
    p_success, elapsed_s = _join(held, lambda e: e.p_success), _join(held, lambda e: e.elapsed_s)
    owner = np.concatenate([np.full(len(e.predicted), number) for number, e in enumerate(held)])
    positive = _join(held, lambda e: e.advantage) > value_function.task(task).threshold(POSITIVE_SHARE)
    error = predicted - realised
    stages = np.array([stage for episode in held for stage in episode.stages])
    baseline = _mean_return_by_second([e for e in episodes if not e.held_out] or held)

    def part(name: str, chosen: Bool[np.ndarray, "N"]) -> Part:
        return Part(
            name, int(chosen.sum()), len(np.unique(owner[chosen])), float(predicted[chosen].mean()),
            float(realised[chosen].mean()), float(np.abs(error[chosen]).mean()),
            area_under_curve(predicted[chosen], succeeded[chosen]),
        )  # fmt: skip

    def parts(place: np.ndarray, name: Callable[[int], str]) -> tuple[Part, ...]:
        return tuple(part(name(number), place == number) for number in np.unique(place).tolist())

    return TaskCalibration(
        task=task,
        num_episodes=len(held),
        num_successes=sum(e.succeeded for e in held),
        num_frames=len(predicted),
        frames_per_unit=value_function.task(task).max_frames * (1 + value_function.returns.failure_cost),
        mean_abs_error=float(np.abs(error).mean()),
        root_mean_square_error=float(np.sqrt(np.square(error).mean())),
        bias=float(error.mean()),
        baseline_error=float(np.abs(baseline(elapsed_s) - realised).mean()),
        auc=area_under_curve(predicted, succeeded),
        auc_first_frame=area_under_curve(
            np.array([e.predicted[0] for e in held]), np.array([e.succeeded for e in held])
        ),
        auc_of_policy=area_under_curve(predicted[of_policy], succeeded[of_policy]),
        positive_successes=_share(positive[of_policy & succeeded]),
        positive_failures=_share(positive[of_policy & ~succeeded]),
        brier=float(np.square(p_success - succeeded).mean()),
        calibration_error=_expected_calibration_error(p_success, succeeded),
        by_prediction=parts(
            np.minimum((predicted + 1) * _NUM_PARTS, _NUM_PARTS - 1).astype(int),
            lambda number: f"{number / _NUM_PARTS - 1:.1f} to {(number + 1) / _NUM_PARTS - 1:.1f}",
        ),
        by_stage=tuple(part(str(stage), stages == stage) for stage in _in_order(stages.tolist())),
        by_elapsed=parts(elapsed_s.astype(int), lambda second: f"{second} to {second + 1} s"),
    )


def _share(flags: Bool[np.ndarray, "N"]) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _join(episodes: Iterable[Judged], field: Callable[[Judged], np.ndarray]) -> Float[np.ndarray, "N"]:
    return np.concatenate([field(episode) for episode in episodes])


def _in_order(stages: Sequence[str]) -> list[str]:
    """Distinct stages, as they first come in the episodes; without the unknown one."""
    return [stage for stage in dict.fromkeys(stages) if stage]


def _mean_return_by_second(episodes: Sequence[Judged]) -> Callable[[np.ndarray], np.ndarray]:
    second = _join(episodes, lambda e: e.elapsed_s).astype(int)
    realised = _join(episodes, lambda e: e.realised)
    known = np.unique(second)
    means = np.array([realised[second == number].mean() for number in known])
    return lambda elapsed_s: np.interp(elapsed_s.astype(int), known, means)


def _expected_calibration_error(probability: Float[np.ndarray, "N"], happened: Bool[np.ndarray, "N"]) -> float:
    place = np.minimum((probability * _NUM_PARTS).astype(int), _NUM_PARTS - 1)
    gaps = [
        (place == number).sum() * abs(probability[place == number].mean() - happened[place == number].mean())
        for number in np.unique(place)
    ]
    return float(sum(gaps) / len(probability))
