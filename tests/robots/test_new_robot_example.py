"""The robot of examples/new_robot.py is held to the same rules as ours."""

import pathlib
import runpy

import numpy as np
import pytest
from robot_contract import RobotContract

from sop_jax.specs.clock import ManualClock

EXAMPLE = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "examples" / "new_robot.py"))


class TestBenchArm(RobotContract):
    action_dim = 7

    @pytest.fixture
    def robot(self):
        return EXAMPLE["BenchArm"](EXAMPLE["ServoBus"](), ManualClock())


def test_units_by_hand():
    bus = EXAMPLE["ServoBus"]()
    robot = EXAMPLE["BenchArm"](bus, ManualClock())
    robot.reset(1)
    bus.position = np.array([2048 + 1024, 2048 - 512, 2048, 2048, 2048, 2048, 2524])
    expected = [np.pi / 2, -np.pi / 4, 0, 0, 0, 0, 0.5]
    np.testing.assert_allclose(robot.observe(images=False).state, expected, atol=1e-6)
    bus.position = np.full(7, 2048)
    robot.apply(np.array([0.03, 0, 0, 0, 0, 0, 0.02], np.float32))
    np.testing.assert_array_equal(bus.position, [2048 + 20, 2048, 2048, 2048, 2048, 2048, 2048 + 19])
