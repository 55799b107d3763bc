"""When a run's success rate first reaches a target, and how sure that is: over training seeds and over trials.

A run that never gets there within its time is censored: all that is known is that it takes longer.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

TARGET = 0.8
"""The paper's."""


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """One held-out evaluation in the course of a run: when the policy was published, and which trials succeeded.

    time_s: since the run's start. successes: in an order of trials that all points of a curve share.
    """

    time_s: float
    successes: tuple[bool, ...]

    @property
    def rate(self) -> float:
        return sum(self.successes) / len(self.successes)


@dataclasses.dataclass(frozen=True)
class TimeToTarget:
    """The median over training seeds of the time to the target, with its 95% bootstrap interval.

    time_s, low_s, high_s: None = later than `horizon_s`, the shortest run's last evaluation.
    num_runs, num_reached: training seeds, and how many of them reached the target.
    """

    target: float
    time_s: float | None
    low_s: float | None
    high_s: float | None
    num_runs: int
    num_reached: int
    horizon_s: float

    def __str__(self) -> str:
        ends = [_minutes(end, self.horizon_s) for end in (self.time_s, self.low_s, self.high_s)]
        reached = f"{self.num_reached} of {self.num_runs} runs reached {self.target:.0%}"
        return f"{ends[0]} [{ends[1]}, {ends[2]}], {reached}"


def first_time(curve: Sequence[CurvePoint], target: float = TARGET) -> float:
    """The time of the first evaluation with at least the target rate; infinite if there is none."""
    return next((point.time_s for point in sorted(curve, key=_time) if point.rate >= target - 1e-12), math.inf)


def time_to_target(
    curves: Sequence[Sequence[CurvePoint]],
    target: float = TARGET,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> TimeToTarget:
    """Over one curve per training seed; draws training seeds and trials.

    One draw of trials serves all points and all curves: they are on the same trials, so a hard scene is hard for all of them
    (as in `paired`). Curves with another number of trials have a draw of their own.

    Raises ValueError: no curves, a curve without points, points without trials or of different numbers of trials.
    """
    tables = [_as_table(curve) for curve in curves]
    if not tables:
        raise ValueError("time to target needs at least one curve, got none")
    horizon_s = min(float(times[-1]) for times, _ in tables)
    firsts = [_first(times, table.mean(axis=1), target) for times, table in tables]
    rng = np.random.default_rng(seed)
    medians = [_median(_redraw(rng, tables, target)) for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    # Medians and bounds are times that occurred, never something between a time and "never".
    low, high = np.quantile(medians, [tail, 1 - tail], method="inverted_cdf")
    estimate = _median(firsts)
    bounds = (estimate, min(float(low), estimate), max(float(high), estimate))
    time_s, low_s, high_s = (bound if bound <= horizon_s else None for bound in bounds)
    num_reached = sum(math.isfinite(first) for first in firsts)
    return TimeToTarget(target, time_s, low_s, high_s, len(tables), num_reached, horizon_s)


def _as_table(curve: Sequence[CurvePoint]) -> tuple[np.ndarray, np.ndarray]:
    """Times [points], and successes [points, trials]."""
    points = sorted(curve, key=_time)
    sizes = {len(point.successes) for point in points}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"a curve's points need the same number of trials, at least one, got {sorted(sizes)}")
    return np.array([point.time_s for point in points]), np.array([point.successes for point in points], np.float64)


def _redraw(rng: np.random.Generator, curves: Sequence[tuple[np.ndarray, np.ndarray]], target: float) -> list[float]:
    """First times of as many curves, drawn with replacement, on trials drawn with replacement."""
    draws: dict[int, np.ndarray] = {}  # number of trials -> the draw
    firsts = []
    for run in rng.integers(0, len(curves), len(curves)).tolist():
        times, table = curves[run]
        num = table.shape[1]
        if num not in draws:
            draws[num] = rng.integers(0, num, num)
        firsts.append(_first(times, table[:, draws[num]].mean(axis=1), target))
    return firsts


def _first(times: np.ndarray, rates: np.ndarray, target: float) -> float:
    reached = np.flatnonzero(rates >= target - 1e-12)
    return float(times[reached[0]]) if len(reached) else math.inf


def _median(values: Sequence[float]) -> float:
    """Of an even number the later of the two in the middle: the mean of a time and "never" is no time."""
    return sorted(values)[len(values) // 2]


def _time(point: CurvePoint) -> float:
    return point.time_s


def _minutes(time_s: float | None, horizon_s: float) -> str:
    return f"{time_s / 60:.1f} min" if time_s is not None else f"> {horizon_s / 60:.1f} min"
