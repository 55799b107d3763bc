import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.paired import (
    PairCounts,
    compare,
    hierarchical_difference,
    hierarchical_rate,
    mcnemar_exact,
    success_table,
    tango_interval,
    tango_score,
)
from sop_jax.evaluation.retention import forgetting
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.specs.records import Outcome

BENTUR = PairCounts(both=1, first_only=1, second_only=7, neither=12)
"""Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009, in Fagerland et al. 2014)."""

counts = st.tuples(*[st.integers(0, 30)] * 4).filter(sum).map(lambda four: PairCounts(*four))


def trials(successes, first_seed=0):
    return [
        TrialResult(first_seed + i, Outcome.SUCCESS if success else Outcome.TIMEOUT, "", 30, 1.0)
        for i, success in enumerate(successes)
    ]


def test_mcnemar_hand_computed_and_published():
    assert mcnemar_exact(BENTUR) == pytest.approx(2 * (1 + 8) / 2**8)  # published: 0.070
    assert mcnemar_exact(PairCounts(5, 0, 0, 5)) == 1.0
    assert mcnemar_exact(PairCounts(0, 3, 3, 0)) == 1.0
    assert mcnemar_exact(PairCounts(0, 0, 6, 0)) == pytest.approx(2 / 64)


def test_tango_published_and_closed_form():
    # Fagerland, Lydersen and Laake (2014), table III: difference -0.286 of before minus after, (-0.517, -0.026).
    interval = tango_interval(BENTUR)
    assert interval.value == pytest.approx(6 / 21)
    assert interval.low == pytest.approx(0.026, abs=5e-4)
    assert interval.high == pytest.approx(0.517, abs=5e-4)
    # Without discordant pairs the score is -n delta / sqrt(n delta (1 - delta)): z^2 / (n + z^2) each side.
    still = tango_interval(PairCounts(6, 0, 0, 4))
    bound = 3.841459 / (10 + 3.841459)
    assert (still.low, still.high) == (pytest.approx(-bound, abs=1e-6), pytest.approx(bound, abs=1e-6))
    assert tango_interval(PairCounts(0, 0, 0, 0)).low == -1.0


@settings(max_examples=40)
@given(counts)
def test_tango_bounds_are_where_the_score_is_the_quantile(pairs):
    interval = tango_interval(pairs)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    for bound, z in ((interval.low, 1.959964), (interval.high, -1.959964)):
        if abs(bound) < 0.999:
            assert most_likely_score(pairs, bound) == pytest.approx(z, abs=0.02)
    swapped = tango_interval(PairCounts(pairs.both, pairs.second_only, pairs.first_only, pairs.neither))
    assert (swapped.low, swapped.high) == (pytest.approx(-interval.high), pytest.approx(-interval.low))


def most_likely_score(pairs, delta):
    """The score with the nuisance share found by brute force instead of Tango's closed form."""
    n, up, down = pairs.total, pairs.second_only, pairs.first_only
    share = np.linspace(max(0.0, -delta), (1 - delta) / 2, 50_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [(up, share + delta), (down, share), (n - up - down, 1 - 2 * share - delta)]
        likelihood = sum(count * np.log(value) for count, value in terms if count)
    best = share[np.nanargmax(likelihood)]
    assert tango_score(pairs, delta) == pytest.approx(
        (up - down - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta))), abs=0.02
    )
    return (up - down - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))


def test_trials_are_paired_by_seed_whatever_their_order():
    first, second = trials([1, 1, 0, 0, 0]), trials([1, 0, 1, 1, 0])
    found = compare(first, second[::-1])
    assert found.counts == PairCounts(both=1, first_only=1, second_only=2, neither=1)
    assert (found.first, found.second) == (0.4, 0.6)
    assert found.difference.value == pytest.approx(0.2)
    assert found.p_value == 1.0
    with pytest.raises(ValueError, match=r"without a partner: \[0, 5\]"):
        compare(first, trials([1, 0, 1, 1, 0], first_seed=1))
    with pytest.raises(ValueError, match="at least one"):
        compare([], [])


def test_without_any_spread_formulas_are_left():
    same = np.tile([True, False], (3, 5))
    assert hierarchical_difference(same, same) == tango_interval(PairCounts(5, 0, 0, 5))  # drawn together, they cancel
    for outcome in (True, False):
        assert hierarchical_rate(np.full((2, 100), outcome)) == wilson_interval(100 * outcome, 100)
    assert hierarchical_rate(np.ones((2, 100), bool)).low == pytest.approx(0.963, abs=1e-3)
    nothing, everything = np.zeros((2, 50), bool), np.ones((2, 50), bool)
    assert hierarchical_difference(nothing, everything) == tango_interval(PairCounts(0, 0, 50, 0))
    assert hierarchical_difference(nothing, nothing).high > 0.05


@pytest.mark.parametrize("edge", [True, False])
def test_one_more_failure_never_makes_an_interval_look_surer_at_the_edge(edge):
    # Two training seeds, 50 trials: more and more of them end otherwise than all others did.
    table = np.full((2, 50), edge)
    intervals, rises = [], []
    for place in (None, 0, 60, 20, 85, 7):
        if place is not None:
            table.flat[place] = not edge
        intervals.append(hierarchical_rate(table, num_resamples=500))
        rises.append(hierarchical_difference(np.full((2, 50), edge), table, num_resamples=500))
    assert intervals[0] == wilson_interval(50 * edge, 50)
    for found in (intervals, rises):
        widths = [interval.high - interval.low for interval in found]
        assert widths == pytest.approx(sorted(widths))  # at this edge
        bounds = [(interval.low, interval.high) for interval in (found if edge else found[::-1])]
        for (low, high), (next_low, next_high) in itertools.pairwise(bounds):
            assert next_low <= low + 1e-12
            assert next_high <= high + 1e-12
    assert rises[0] == tango_interval(PairCounts(50 * edge, 0, 0, 50 * (not edge)))


def draw_tables(rng, mean, num):
    """Of two training seeds on 50 scenes of which most are hard or easy for both."""
    hard = rng.beta(mean, 1 - mean, 50)
    return [rng.random((2, 50)) < hard for _ in range(num)]


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.98])
def test_intervals_over_seeds_and_trials_hold_the_truth(mean):
    """A bootstrap alone does so in 77% of the cases near 0, and in 68% near 1."""
    rng, rates, differences = np.random.default_rng(0), [], []
    for _ in range(60):
        one, two = draw_tables(rng, mean, 2)
        rates.append(hierarchical_rate(one, num_resamples=100))
        differences.append(hierarchical_difference(one, two, num_resamples=100))
    assert sum(rate.low <= mean <= rate.high for rate in rates) >= 56
    assert sum(rise.low <= 0 <= rise.high for rise in differences) >= 56


def test_tangos_part_counts_the_mean_over_pairs_of_rows():
    # One and three of 50 trials that the base policy doesn't solve, in two training seeds: two of 50 on average.
    base, seeds = np.zeros((1, 50), bool), np.arange(50) < np.array([[1], [3]])
    found = hierarchical_difference(base, seeds, paired_seeds=False)
    wider = tango_interval(PairCounts(0, 0, 2, 48))
    assert (found.low, found.value, found.high) == pytest.approx((wider.low, wider.value, wider.high))
    # Paired rows keep what each wins and loses: one up and one down in each.
    one, two = (np.roll(np.arange(50) < 1, shift)[None].repeat(2, axis=0) for shift in (0, 5))
    found, wider = hierarchical_difference(one, two), tango_interval(PairCounts(0, 1, 1, 48))
    assert (found.low, found.value, found.high) == pytest.approx((wider.low, wider.value, wider.high))


def test_hierarchical_bootstrap_knows_that_few_training_seeds_are_few():
    # Two training seeds, one always right and one always wrong: trials say nothing, the seeds all.
    split = np.array([[True] * 200, [False] * 200])
    rate = hierarchical_rate(split)
    assert (rate.low, rate.value, rate.high) == (0.0, 0.5, 1.0)
    # One training seed: a plain bootstrap over trials, standard error sqrt(0.25 / 400) = 0.025.
    rng = np.random.default_rng(0)
    one = rng.permutation(np.arange(400) < 200)[None]
    plain = hierarchical_rate(one, seed=3)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * 0.025, rel=0.08)
    assert hierarchical_rate(one, seed=3) == plain


def test_hierarchical_difference_pairs_seeds_only_where_told():
    # Seeds differ by 0.5 in both methods, the second method is better by 0.25 on every seed.
    first = np.array([[True] * 20 + [False] * 60, [True] * 60 + [False] * 20] * 3)
    second = np.array([[True] * 40 + [False] * 40, [True] * 80] * 3)
    paired = hierarchical_difference(first, second)
    apart = hierarchical_difference(first, second, paired_seeds=False)
    assert paired.value == apart.value == 0.25
    assert apart.high - apart.low > 1.2 * (paired.high - paired.low)
    with pytest.raises(ValueError, match="same trials"):
        hierarchical_difference(first, second[:, :5])


def test_success_tables_need_equal_trials():
    runs = [trials([1, 0, 1]), trials([0, 0, 1])[::-1]]
    assert success_table(runs).tolist() == [[True, False, True], [False, False, True]]
    with pytest.raises(ValueError, match="same trials"):
        success_table([trials([1, 0]), trials([1, 0], first_seed=5)])


def test_forgetting_is_what_was_lost_per_world_and_in_all():
    before = {"a": trials([1] * 9 + [0]), "b": trials([1] * 5 + [0] * 5)}
    after = {"a": trials([0] * 6 + [1] * 3 + [0]), "b": trials([1] * 5 + [0] * 4 + [1])}
    first, second, overall = forgetting(before, after)
    assert (first.label, first.before, first.after) == ("a", 0.9, 0.3)
    assert first.forgotten.value == pytest.approx(0.6)
    assert first.p_value == pytest.approx(2 / 64)
    assert second.forgotten.value == pytest.approx(-0.1)
    assert (overall.label, overall.num_trials, overall.forgotten.value) == ("all", 20, pytest.approx(0.25))
    assert first.forgotten.low > 0 > second.forgotten.low
    with pytest.raises(ValueError, match="same worlds"):
        forgetting(before, {"a": after["a"]})
