"""The benchmark's measure of motion, by hand."""

import numpy as np

from benchmarks.chunk_borders import measure_motion


def test_steps_and_jerks_are_told_apart_by_the_border():
    # Still but for a jump of 0.5 rad as tick 5 begins a chunk: one step, and the third differences 0.5, -1, 0.5 around it.
    targets = np.zeros((10, 2))
    targets[5:, 1] = 0.5
    borders = np.arange(10) == 5
    motion = measure_motion(targets, borders, control_hz=2.0)
    np.testing.assert_allclose(motion["step_border"], [0.25])
    assert len(motion["step_inside"]) == 8
    assert not motion["step_inside"].any()
    np.testing.assert_allclose(motion["jerk_border"], np.square(np.array([0.5, -1.0, 0.5]) * 8))
    assert len(motion["jerk_inside"]) == 4
    assert not motion["jerk_inside"].any()
