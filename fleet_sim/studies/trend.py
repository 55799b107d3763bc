"""Whether something rises or falls over time: least-squares slopes, and how sure they are.

Legend: `P` points in time, `n` trials that all points share.
"""

from collections.abc import Sequence

import numpy as np

from sop_jax.evaluation.statistics import Interval

_NUM_RESAMPLES = 4000


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of the least-squares line, per unit of time. Raises ValueError: fewer than two different times."""
    x, y = np.asarray(times, np.float64), np.asarray(values, np.float64)
    spread = float(((x - x.mean()) ** 2).sum()) if len(x) else 0.0
    if not spread:
        raise ValueError(f"a slope needs at least two different times, got {list(times)}")
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread)


def series_slope(times: Sequence[float], values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> Interval:
    """Slope of a series whose neighbours hang together, as of a disk that fills and is cleaned, again and again.

    Its interval comes from the residuals around the line, drawn in blocks of a third of the series (a circular block
    bootstrap): few cycles give a wide one.
    """
    x, y = np.asarray(times, np.float64), np.asarray(values, np.float64)
    value = slope(times, values)
    away = x - x.mean()
    residuals = y - y.mean() - value * away
    length = -(-len(y) // 3)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(y), (_NUM_RESAMPLES, -(-len(y) // length), 1))
    drawn = ((starts + np.arange(length)) % len(y)).reshape(_NUM_RESAMPLES, -1)[:, : len(y)]
    slopes = value + residuals[drawn] @ away / (away @ away)
    return _percentiles(value, slopes.tolist(), confidence)


def success_slope(times: Sequence[float], successes: np.ndarray, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Slope of a success rate with a bootstrap interval: points in time are drawn, and trials, the same for all points.

    So a policy that goes up and down from one point to the next widens the interval, and trials that are hard for all of them
    don't.

    Args:
        successes: bool [P, n].
    """
    x, table = np.asarray(times, np.float64), np.asarray(successes, np.float64)
    value = slope(times, table.mean(axis=1).tolist())
    rng = np.random.default_rng(seed)
    slopes = []
    for _ in range(_NUM_RESAMPLES):
        points, trials = (rng.integers(0, size, size) for size in table.shape)
        if len(set(x[points].tolist())) > 1:  # the same point every time has no slope
            slopes.append(slope(x[points].tolist(), table[np.ix_(points, trials)].mean(axis=1).tolist()))
    return _percentiles(value, slopes, confidence)


def _percentiles(value: float, slopes: Sequence[float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = (float(bound) for bound in np.quantile(slopes, [tail, 1 - tail]))
    return Interval(min(low, value), value, max(high, value))
