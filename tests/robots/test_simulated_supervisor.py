"""The world's own expert and gate behind the supervisor's interface, and a whole supervised episode of it."""

import numpy as np
import pytest
from supervisor_contract import SupervisorContract

import envs
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor, SupervisorConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import EpisodeEnd, Outcome


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


def make_pair(environment, config=None):
    robot = SimulatedRobot(environment, ManualClock())
    supervisor = ScriptedSupervisor(environment, envs.make_expert(environment), envs.make_gate(environment), config)
    return robot, supervisor


class TestScriptedSupervisorOnRestockShelf(SupervisorContract):
    @pytest.fixture
    def pair(self, environment):
        return make_pair(environment)


def test_hand_back_after_the_stage_has_changed(environment):
    robot, supervisor = make_pair(environment, SupervisorConfig("hand_back", min_control_s=0.2, max_control_s=20.0))
    robot.reset(1)
    supervisor.reset()
    hold = robot.observe(images=False).state
    while supervisor.wants_control() is None:
        robot.apply(hold)
    stage = environment.stage()
    num_ticks = 0
    while True:
        robot.apply(supervisor.act())
        num_ticks += 1
        if supervisor.releases_control():
            break
    assert num_ticks >= 6
    assert environment.stage() != stage


def test_the_expert_alone_succeeds_through_the_robot(environment):
    robot, supervisor = make_pair(environment)
    robot.reset(2)
    supervisor.reset()
    while (end := robot.check_end()) is None:
        executed = robot.apply(supervisor.act())
        assert np.all(executed >= np.array(robot.spec.action_low, np.float32))
    assert end == EpisodeEnd(Outcome.SUCCESS)
