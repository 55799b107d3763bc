"""Two methods on the same trials: what their difference is worth.

Differences are second minus first. Legend: `S` training seeds, `n` trials.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.statistics import Interval, normal_quantile, wilson_of_share

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
    return _tango(counts.total, counts.second_only, counts.first_only, confidence)


def tango_score(counts: PairCounts, delta: float) -> float:
    """Standardised distance of the counts from the hypothesis that the difference is `delta` in (-1, 1); falls in `delta`."""
    return _score(counts.total, counts.second_only, counts.first_only, delta)


def hierarchical_rate(
    successes: np.ndarray, seed: int = 0, confidence: float = 0.95, num_resamples: int = 4000
) -> Interval:
    """Mean success of a method over training seeds, with an interval over seeds and trials: the hull of two intervals.

    A bootstrap over seeds and trials knows how far the seeds lie apart, but can't draw what it hasn't seen: without any
    failure its width is 0, with one or two it is far too narrow. Wilson's interval of one row's `n` trials, at the mean rate,
    knows what so few trials leave open, but nothing of the seeds. (`n` and not `S * n`: rows share their trials, so more
    seeds are no more evidence about trials.) So either alone is too narrow somewhere; the hull is rather too wide, though
    what it knows of seeds stays rough with two or three of them.

    Every success moves both bounds up or leaves them, every failure down, because the draws don't depend on the outcomes: one
    failure more never makes the interval look surer at its edge.

    Args:
        successes: bool [S, n]; row s is the policy of training seed s on trials that all rows share.
    """
    values = _as_table(successes)
    rng = np.random.default_rng(seed)
    means = [values[np.ix_(_draw(rng, len(values)), _draw(rng, values.shape[1]))].mean() for _ in range(num_resamples)]
    mean = float(values.mean())
    return _hull(_percentiles(mean, means, confidence), wilson_of_share(mean, values.shape[1], confidence))


def hierarchical_difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    paired_seeds: bool = True,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 4000,
) -> Interval:
    """Difference of two methods over several training seeds, with an interval over seeds and trials: the hull of two.

    One is a bootstrap: seeds are drawn, then trials. All rows of both methods are on the same trials, so one draw of trials
    serves them all, which keeps the pairs (seeds and trials are crossed: Owen 2007, "The pigeonhole bootstrap"). With two or
    three training seeds it is rough, and rather too narrow than too wide. The other is Tango's of `n` pairs, counted as the
    mean over the pairs of rows that belong together; why both, see `hierarchical_rate`.

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
    bootstrap = _percentiles(float(two.mean() - one.mean()), rises, confidence)
    return _hull(bootstrap, _tango_of_tables(one, two, paired_seeds, confidence))


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


def _hull(interval: Interval, other: Interval) -> Interval:
    """From the lower low to the higher high, around the first one's value."""
    return Interval(min(interval.low, other.low), interval.value, max(interval.high, other.high))


def _tango_of_tables(one: np.ndarray, two: np.ndarray, paired_seeds: bool, confidence: float) -> Interval:
    """Of `n` pairs, whose counts are means over all pairs of rows that belong together."""
    if not paired_seeds:  # every row of one beside every row of the other
        one, two = one.mean(axis=0, keepdims=True), two.mean(axis=0, keepdims=True)
    second_only, first_only = ((first * (1 - second)).sum() / len(one) for first, second in ((two, one), (one, two)))
    return _tango(one.shape[1], float(second_only), float(first_only), confidence)


def _tango(n: int, up: float, down: float, confidence: float) -> Interval:
    """`tango_interval` of n pairs, `up` won by the second alone and `down` by the first alone."""
    if not n:
        return Interval(-1.0, 0.0, 1.0)
    z, estimate = normal_quantile(confidence), (up - down) / n
    low = _bisect(lambda delta: _score(n, up, down, delta) - z, -1.0, estimate)
    high = _bisect(lambda delta: _score(n, up, down, delta) + z, estimate, 1.0)
    return Interval(min(low, estimate), estimate, max(high, estimate))


def _score(n: int, up: float, down: float, delta: float) -> float:
    b = (2 * n - up + down) * delta - up - down
    # The most likely probability of a pair that only the first wins, under the hypothesis.
    root = math.sqrt(max(0.0, b * b + 8 * n * down * delta * (1 - delta)))
    share = max(0.0, (root - b) / (4 * n))
    variance = n * (2 * share + delta * (1 - delta))
    distance = up - down - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes 0 in [low, high]; the end that is nearest if it doesn't."""
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
