import numpy as np
import pytest
from robot_contract import RobotContract
from supervisor_contract import SupervisorContract

from sop_jax.robots.fake import FakeExpert, FakeGate, FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeEnd, Outcome


class TestFakeRobot(RobotContract):
    @pytest.fixture
    def robot(self):
        robot = FakeRobot(clock=ManualClock(7))
        yield robot
        robot.close()
        assert robot.closed


class TestScriptedSupervisorOnTheFakeRobot(SupervisorContract):
    @pytest.fixture
    def pair(self):
        robot = FakeRobot()
        return robot, ScriptedSupervisor(robot, FakeExpert(robot), FakeGate(robot))


def test_the_expert_succeeds_in_the_ticks_that_the_farthest_dimension_needs():
    robot = FakeRobot(FakeRobotConfig(max_step=0.02, tolerance=0.03))
    robot.reset(0)
    expected = int(np.ceil(round((robot.distance - 0.03) / 0.02, 4)))
    num_ticks = 0
    while robot.check_end() is None:
        robot.apply(FakeExpert(robot).act())
        num_ticks += 1
    assert robot.check_end() == EpisodeEnd(Outcome.SUCCESS)
    assert num_ticks == expected


def test_the_red_column_of_a_dimension_shows_its_goal():
    robot = FakeRobot()
    robot.reset(4)
    image = robot.observe().images["head"]
    np.testing.assert_array_equal(image[0, :16, 0], ((robot.goal + 1) * 127.5).astype(np.uint8))


def test_ends_by_kind():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=3))
    robot.reset(0)
    for _ in range(3):
        robot.apply(robot.observe(images=False).state)
    assert robot.check_end() == EpisodeEnd(Outcome.TIMEOUT, "timeout")

    robot = FakeRobot(FakeRobotConfig(out_of_bounds=0.11))
    robot.reset(0)
    robot.apply(np.full(16, 1.0, np.float32))
    robot.apply(np.full(16, 1.0, np.float32))
    assert robot.check_end() == EpisodeEnd(Outcome.FAILURE, "out_of_bounds")

    robot = FakeRobot(FakeRobotConfig(fault_at_frame=1))
    robot.reset(0)
    robot.apply(np.zeros(16, np.float32))
    assert robot.check_end() == EpisodeEnd(Outcome.ERROR, "robot_fault")


@pytest.mark.parametrize(
    "wrong", [{"image_size": 15}, {"time_limit_frames": 0}, {"max_step": 0.0}, {"tolerance": -1.0}]
)
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FakeRobotConfig(**wrong)


def test_the_timeline_supervisor_holds_for_as_long_as_told():
    robot = FakeRobot()
    robot.reset(0)
    supervisor = TimelineSupervisor(robot, asks_at=[0], hold_frames=2, action=np.zeros(16))
    assert supervisor.wants_control() is not None
    supervisor.act()
    assert not supervisor.releases_control()
    supervisor.act()
    assert supervisor.releases_control()
