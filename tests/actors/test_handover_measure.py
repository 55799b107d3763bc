"""The benchmark's measure of takeovers and handbacks, by hand."""

import numpy as np
import pytest

from benchmarks.handovers import measure_edge, summarise_edges


def test_the_first_step_the_largest_step_and_the_jerk_around_the_edge():
    # Still but for a jump of 0.5 rad at the edge, tick 5, and one of -0.7 rad in the other joint four ticks later.
    targets = np.zeros((20, 2))
    targets[5:, 1] = 0.5
    targets[9:, 0] = -0.7
    edge = measure_edge(targets, 5, control_hz=2.0)
    assert (edge.first_step, edge.largest_step) == (
        pytest.approx(0.5),
        pytest.approx(0.5),
    )  # Half a second is one tick.
    np.testing.assert_allclose(edge.jerk, np.square(np.array([0.5, -1.0, 0.5]) * 8))
    longer = measure_edge(targets, 5, control_hz=10.0)  # Ticks 5 to 9.
    assert (longer.first_step, longer.largest_step) == (pytest.approx(0.5), pytest.approx(0.7))
    np.testing.assert_allclose(longer.jerk, np.square(np.array([0.5, -1.0, 0.5]) * 1000))
    # Up to the third difference that ends with tick 9.
    np.testing.assert_allclose(longer.jerk_after, np.square(np.array([0.5, -1.0, 0.5, 0.0, -0.7]) * 1000))


def test_sums_over_edges():
    jump, still = np.zeros((12, 1)), np.zeros((12, 1))
    jump[4:] = 0.2
    found = summarise_edges([measure_edge(targets, 4, 2.0) for targets in (jump, still)])
    assert found["num"] == 2
    assert (found["first_step_max"], found["first_step_rms"]) == (0.2, round(0.2 / np.sqrt(2), 4))
    assert found["jerk_rms"] == pytest.approx(8 * 0.2 * np.sqrt((1 + 4 + 1) / 6), abs=1e-3)


def test_nobody_took_over():
    with pytest.raises(SystemExit, match="more --trials"):
        summarise_edges([])
