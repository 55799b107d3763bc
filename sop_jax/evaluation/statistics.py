"""Intervals for the numbers that a run claims: proportions, differences of proportions, medians."""

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that contain the truth with the stated confidence."""

    low: float
    value: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"Interval must have low <= value <= high, got {self.low}, {self.value}, {self.high}")


def wilson_interval(num_successes: int, num_trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927): stays within [0, 1] and is honest near 0 and 1.

    With no trials at all the bounds are 0 and 1.
    """
    if not 0 <= num_successes <= num_trials:
        raise ValueError(f"expected 0 <= num_successes <= num_trials, got {num_successes} of {num_trials}")
    if num_trials == 0:
        return Interval(0.0, 0.0, 1.0)
    return wilson_of_share(num_successes / num_trials, num_trials, confidence)


def wilson_of_share(share: float, num_trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval for a share that so many trials would have given: it may be a mean, and no whole number of them."""
    if not (0 <= share <= 1 and num_trials > 0):
        raise ValueError(f"expected a share in [0, 1] of at least one trial, got {share} of {num_trials}")
    z = normal_quantile(confidence)
    centre = share + z**2 / (2 * num_trials)
    spread = z * math.sqrt(share * (1 - share) / num_trials + z**2 / (4 * num_trials**2))
    scale = 1 + z**2 / num_trials
    # At 0 and at all successes the bound is exact; rounding must not push it past the estimate.
    low = 0.0 if share == 0 else (centre - spread) / scale
    high = 1.0 if share == 1 else (centre + spread) / scale
    return Interval(min(low, share), share, max(high, share))


def difference_interval(before: tuple[int, int], after: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Newcombe's interval for the rise of a proportion (Newcombe 1998, method 10), from (successes, trials) pairs.

    It treats the two sets of trials as independent; with equal seeds in both, it is on the wide side.
    """
    first = wilson_interval(*before, confidence)
    second = wilson_interval(*after, confidence)
    rise = second.value - first.value
    down = math.hypot(second.value - second.low, first.high - first.value)
    up = math.hypot(second.high - second.value, first.value - first.low)
    return Interval(rise - down, rise, rise + up)


def bootstrap_median(
    values: Sequence[float], seed: int = 0, confidence: float = 0.95, num_resamples: int = 2000
) -> Interval | None:
    """The median and its percentile-bootstrap interval; None without values. The same seed gives the same interval."""
    if len(values) == 0:
        return None
    data = np.sort(np.asarray(values, dtype=np.float64))
    if not np.isfinite(data).all():
        raise ValueError(f"bootstrap_median needs finite values, got {int((~np.isfinite(data)).sum())} that are not")
    generator = np.random.default_rng(seed)
    medians = np.array([np.median(data[generator.integers(0, len(data), len(data))]) for _ in range(num_resamples)])
    tail = (1 - confidence) / 2
    median = float(np.median(data))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Interval(min(float(low), median), median, max(float(high), median))


def normal_quantile(confidence: float) -> float:
    """How many standard deviations hold this share of a normal distribution, both sides together."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return NormalDist().inv_cdf(1 - (1 - confidence) / 2)
