import numpy as np
import pytest
from robot_contract import RobotContract

import envs
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import EpisodeEnd, Outcome

START_NS = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32, time_limit_s=2.0)
    yield environment
    environment.close()


class TestSimulatedRobot(RobotContract):
    @pytest.fixture
    def robot(self, environment):
        return SimulatedRobot(environment, ManualClock(START_NS))


def test_time_starts_at_the_clock_and_counts_ticks(environment):
    clock = ManualClock(START_NS)
    robot = SimulatedRobot(environment, clock)
    clock.advance_s(5.0)
    robot.reset(0)
    assert robot.observe(images=False).time_ns == START_NS + 5 * 10**9
    for _ in range(3):
        robot.apply(robot.observe(images=False).state)
    assert robot.observe(images=False).time_ns == START_NS + 5 * 10**9 + 10**8


def test_names_world_and_size_come_from_the_world(environment):
    robot = SimulatedRobot(environment, ManualClock())
    assert (robot.task, robot.world) == ("restock_shelf", environment.world)
    assert [(camera.name, camera.height) for camera in robot.spec.cameras] == [
        ("head", 32),
        ("hand_left", 32),
        ("hand_right", 32),
    ]
    np.testing.assert_allclose(robot.spec.action_low, environment.action_spec().minimum)
    assert not environment.render_on_step


def test_time_up_is_a_timeout(environment):
    robot = SimulatedRobot(environment, ManualClock())
    robot.reset(0)
    hold = robot.observe(images=False).state
    num_ticks = 0
    while (end := robot.check_end()) is None:
        robot.apply(hold)
        num_ticks += 1
    assert end.outcome is Outcome.TIMEOUT
    assert num_ticks == 60
    with pytest.raises(RuntimeError, match="the episode is over"):
        robot.apply(hold)


@pytest.mark.parametrize(
    ("success", "kind", "expected"),
    [
        (True, "", EpisodeEnd(Outcome.SUCCESS)),
        (False, "dropped", EpisodeEnd(Outcome.FAILURE, "dropped")),
        (False, "", EpisodeEnd(Outcome.FAILURE, "failure")),
    ],
)
def test_what_the_world_judges_is_the_outcome(environment, monkeypatch, success, kind, expected):
    robot = SimulatedRobot(environment, ManualClock())
    robot.reset(0)
    monkeypatch.setattr(environment.task, "success", lambda: success)
    monkeypatch.setattr(environment.task, "failure_kind", lambda: kind or ("" if success else "?"))
    robot.apply(robot.observe(images=False).state)
    if expected.failure_kind == "failure":
        monkeypatch.setattr(environment.task, "failure_kind", lambda: "")
    assert robot.check_end() == expected


def test_diverged_physics_end_the_episode_as_an_error(environment):
    robot = SimulatedRobot(environment, ManualClock())
    robot.reset(0)
    environment.data.qvel[:] = np.inf
    robot.apply(robot.observe(images=False).state)
    assert robot.check_end() == EpisodeEnd(Outcome.ERROR, "diverged_physics")
    robot.reset(0)
    assert robot.check_end() is None


def test_a_robot_must_be_reset_first(environment):
    with pytest.raises(RuntimeError, match="never reset"):
        SimulatedRobot(environment, ManualClock()).check_end()
