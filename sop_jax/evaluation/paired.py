"""Two methods on the same trials: what their difference is worth.

Differences are second minus first. Legend: `S` training seeds, `n` trials.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.statistics import Interval, normal_quantile, wilson_interval

_NUM_HALVINGS = 60


@dataclasses.dataclass(frozen=True)
class PairCounts:
    """How often both succeeded on the same seed, only the first, only the second, neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 0:
            raise ValueError(f"counts of pairs must be >= 0, got {self}")

    @property
    def total(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """Of the success rates; 0 without pairs."""
        return (self.second_only - self.first_only) / self.total if self.total else 0.0


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """Two methods on equal trials.

    difference: of the success rates, with Tango's 95% interval. p_value: McNemar's exact test of no difference.
    """

    counts: PairCounts
    first: float
    second: float
    difference: Interval
    p_value: float


def compare(first: Sequence[TrialResult], second: Sequence[TrialResult]) -> PairedComparison:
    """Pairs trials by seed. Raises ValueError: the seeds differ, or there are none."""
    return compare_counts(count_pairs(first, second))


def count_pairs(first: Sequence[TrialResult], second: Sequence[TrialResult]) -> PairCounts:
    """Raises ValueError: the seeds differ, or there are none."""
    by_seed = {trial.seed: trial.success for trial in first}
    others = {trial.seed: trial.success for trial in second}
    if not by_seed or by_seed.keys() != others.keys() or len(by_seed) != len(first) or len(others) != len(second):
        unpaired = sorted(by_seed.keys() ^ others.keys())[:3]
        raise ValueError(
            f"paired trials need the same seeds, each once and at least one: got {len(first)} and {len(second)} trials, "
            f"without a partner: {unpaired}"
        )
    return _count_pairs(np.array(list(by_seed.values())), np.array([others[seed] for seed in by_seed]))


def _count_pairs(first: np.ndarray, second: np.ndarray) -> PairCounts:
    pairs = [(bool(one), bool(two)) for one, two in zip(first, second, strict=True)]
    return PairCounts(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def compare_counts(counts: PairCounts) -> PairedComparison:
    """As `compare`, from counts of pairs."""
    total = max(1, counts.total)
    return PairedComparison(
        counts=counts,
        first=(counts.both + counts.first_only) / total,
        second=(counts.both + counts.second_only) / total,
        difference=tango_interval(counts),
        p_value=mcnemar_exact(counts),
    )


def mcnemar_exact(counts: PairCounts) -> float:
    """Two-sided p-value of "neither is better" (McNemar 1947, exact binomial form): only discordant pairs count."""
    num, fewer = counts.first_only + counts.second_only, min(counts.first_only, counts.second_only)
    tail = sum(math.comb(num, k) for k in range(fewer + 1)) / 2**num
    return min(1.0, 2 * tail)


def tango_interval(counts: PairCounts, confidence: float = 0.95) -> Interval:
    """Score interval for a difference of paired proportions (Tango 1998): honest for few pairs and near 0 and 1.

    Its bounds are the differences at which the score statistic is as large as the normal quantile.
    """
    z, estimate = normal_quantile(confidence), counts.difference
    if not counts.total:
        return Interval(-1.0, 0.0, 1.0)
    low = _bisect(lambda delta: tango_score(counts, delta) - z, -1.0, estimate)
    high = _bisect(lambda delta: tango_score(counts, delta) + z, estimate, 1.0)
    return Interval(min(low, estimate), estimate, max(high, estimate))


def tango_score(counts: PairCounts, delta: float) -> float:
    """Standardised distance of the counts from the hypothesis that the difference is `delta` in (-1, 1); falls in `delta`."""
    n, up, down = counts.total, counts.second_only, counts.first_only
    b = (2 * n - up + down) * delta - up - down
    # The most likely probability of a pair that only the first wins, under the hypothesis.
    root = math.sqrt(max(0.0, b * b + 8 * n * down * delta * (1 - delta)))
    share = max(0.0, (root - b) / (4 * n))
    variance = n * (2 * share + delta * (1 - delta))
    distance = up - down - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def hierarchical_rate(
    successes: np.ndarray, seed: int = 0, confidence: float = 0.95, num_resamples: int = 4000
) -> Interval:
    """Mean success of a method over training seeds, with a bootstrap interval over seeds and trials.

    Where all trials of all seeds end alike, which leaves a bootstrap nothing to draw from, it is Wilson's interval of the
    `n` trials: rows share them, so more seeds are no more evidence.

    Args:
        successes: bool [S, n]; row s is the policy of training seed s on trials that all rows share.
    """
    values = _as_table(successes)
    if values.min() == values.max():
        return wilson_interval(int(values[0].sum()), values.shape[1], confidence)
    rng = np.random.default_rng(seed)
    means = [values[np.ix_(_draw(rng, len(values)), _draw(rng, values.shape[1]))].mean() for _ in range(num_resamples)]
    return _percentiles(float(values.mean()), means, confidence)


def hierarchical_difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    paired_seeds: bool = True,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 4000,
) -> Interval:
    """Difference of two methods over several training seeds, with a bootstrap interval: seeds are drawn, then trials.

    All rows of both methods are on the same trials, so one draw of trials serves them all, which keeps the pairs (seeds and
    trials are crossed: Owen 2007, "The pigeonhole bootstrap"). With two or three training seeds the interval is rough, and
    rather too narrow than too wide. Where no draw differs from another, it is Tango's of one row's `n` pairs.

    Args:
        first, second: bool [S, n] each.
        paired_seeds: row s of both belongs together (they share the base policy or the data), and is drawn together.
    """
    one, two = _as_table(first), _as_table(second)
    if one.shape[1] != two.shape[1] or (paired_seeds and len(one) != len(two)):
        raise ValueError(
            f"expected tables [S, n] over the same trials (and seeds, if paired), got {one.shape}, {two.shape}"
        )
    rng = np.random.default_rng(seed)
    rises = []
    for _ in range(num_resamples):
        rows = _draw(rng, len(one))
        other_rows = rows if paired_seeds else _draw(rng, len(two))
        trials = _draw(rng, one.shape[1])
        rises.append(two[np.ix_(other_rows, trials)].mean() - one[np.ix_(rows, trials)].mean())
    if np.ptp(rises) == 0:
        return tango_interval(_count_pairs(one[0], two[0]), confidence)
    return _percentiles(float(two.mean() - one.mean()), rises, confidence)


def success_table(runs: Sequence[Sequence[TrialResult]]) -> np.ndarray:
    """Bool [S, n] of one method's training seeds, trials in the order of the first run's. Raises ValueError."""
    seeds = [trial.seed for trial in runs[0]]
    rows = [{trial.seed: trial.success for trial in run} for run in runs]
    if any(sorted(row) != sorted(seeds) for row in rows):
        raise ValueError("all training seeds of a method must be evaluated on the same trials")
    return np.array([[row[trial_seed] for trial_seed in seeds] for row in rows], bool)


def _as_table(values: np.ndarray) -> np.ndarray:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"expected a table [S, n] of successes, got shape {table.shape}")
    return table


def _draw(rng: np.random.Generator, num: int) -> np.ndarray:
    return rng.integers(0, num, num)


def _percentiles(value: float, resamples: Sequence[float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = (float(bound) for bound in np.quantile(resamples, [tail, 1 - tail]))
    return Interval(min(low, value), value, max(high, value))


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes 0 in [low, high]; the end that is nearest if it doesn't."""
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
