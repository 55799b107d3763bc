import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.evaluation.statistics import Interval, bootstrap_median, difference_interval, wilson_interval


def test_wilson_hand_computed():
    # z = 1.959964, z^2 = 3.841459. 8 of 10: centre 0.8 + 0.192073 = 0.992073,
    # spread 1.959964 * sqrt(0.016 + 0.00960365) = 0.313617, scale 1.3841459.
    interval = wilson_interval(8, 10)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.678456 / 1.3841459, abs=1e-5)
    assert interval.high == pytest.approx(1.305690 / 1.3841459, abs=1e-5)
    # All or nothing: the closed bound is z^2 / (n + z^2).
    none, every = wilson_interval(0, 10), wilson_interval(10, 10)
    assert (none.low, none.value) == (0.0, 0.0)
    assert none.high == pytest.approx(3.841459 / 13.841459, abs=1e-6)
    assert every.low == pytest.approx(10 / 13.841459, abs=1e-6)
    assert (every.value, every.high) == (1.0, 1.0)


def test_wilson_without_trials_knows_nothing():
    assert wilson_interval(0, 0) == Interval(0.0, 0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="num_successes <= num_trials"):
        wilson_interval(successes, trials)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_and_symmetry(counts):
    successes, trials = counts
    interval = wilson_interval(successes, trials)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)


def test_difference_hand_computed():
    # Newcombe (1998), table II, example (a), method 10: 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339.
    interval = difference_interval((48, 80), (56, 70))
    assert interval.value == pytest.approx(0.2)
    assert interval.low == pytest.approx(0.0524, abs=5e-5)
    assert interval.high == pytest.approx(0.3339, abs=5e-5)


def test_bootstrap_median_is_seeded_and_exact_on_easy_data():
    assert bootstrap_median([3.0, 3.0, 3.0]) == Interval(3.0, 3.0, 3.0)
    values = list(range(101))
    first, second = bootstrap_median(values, seed=1), bootstrap_median(values, seed=1)
    assert first == second
    assert first is not None
    assert first.value == 50
    # The standard error of a uniform median is about range / (2 sqrt(n)) = 5: two of them each side.
    assert 36 <= first.low <= 45
    assert 55 <= first.high <= 64


def test_bootstrap_median_of_nothing_and_of_nonsense():
    assert bootstrap_median([]) is None
    with pytest.raises(ValueError, match="finite"):
        bootstrap_median([1.0, math.nan])
    assert bootstrap_median(np.array([2.0])) == Interval(2.0, 2.0, 2.0)
