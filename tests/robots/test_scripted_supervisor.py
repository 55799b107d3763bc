import numpy as np
import pytest

from sop_jax.robots.scripted_supervisor import ScriptedSupervisor, SupervisorConfig
from sop_jax.specs.errors import ConfigError


class World:
    control_hz = 10.0

    def __init__(self):
        self.name = "reach"

    def stage(self) -> str:
        return self.name


class Counter:
    """Expert and gate in one: counts what it was asked for."""

    def __init__(self):
        self.num_resets = 0
        self.num_acts = 0
        self.reason = ""

    def reset(self) -> None:
        self.num_resets += 1

    def act(self) -> np.ndarray:
        self.num_acts += 1
        return np.full(16, self.num_acts, np.float32)

    def check(self) -> str:
        return self.reason


@pytest.fixture
def parts():
    return World(), Counter(), Counter()


def test_the_gates_reason_is_the_request(parts):
    world, expert, gate = parts
    supervisor = ScriptedSupervisor(world, expert, gate)
    supervisor.reset()
    assert supervisor.wants_control() is None
    gate.reason = "wrong_object"
    request = supervisor.wants_control()
    assert request is not None
    assert request.reason == "wrong_object"


def test_by_default_the_expert_finishes_the_episode(parts):
    world, expert, gate = parts
    supervisor = ScriptedSupervisor(world, expert, gate)
    supervisor.reset()
    for number in range(1, 101):
        assert supervisor.act()[0] == number
        world.name = f"stage{number}"
        assert not supervisor.releases_control()


def test_hand_back_waits_for_the_next_stage_and_the_least_time(parts):
    world, expert, gate = parts
    supervisor = ScriptedSupervisor(world, expert, gate, SupervisorConfig("hand_back", min_control_s=0.3))
    supervisor.reset()
    supervisor.act()
    world.name = "lift"  # After 0.1 s: too soon.
    assert not supervisor.releases_control()
    supervisor.act()
    assert not supervisor.releases_control()
    supervisor.act()
    assert supervisor.releases_control()


def test_hand_back_without_a_new_stage_comes_at_the_latest_time(parts):
    world, expert, gate = parts
    supervisor = ScriptedSupervisor(world, expert, gate, SupervisorConfig("hand_back", 0.1, max_control_s=0.5))
    supervisor.reset()
    released = []
    for _ in range(5):
        supervisor.act()
        released.append(supervisor.releases_control())
    assert released == [False, False, False, False, True]


def test_each_turn_starts_the_expert_afresh_and_each_handback_the_gate(parts):
    world, expert, gate = parts
    supervisor = ScriptedSupervisor(world, expert, gate, SupervisorConfig("hand_back", 0.0, 0.1))
    supervisor.reset()
    assert (expert.num_resets, gate.num_resets) == (1, 1)
    supervisor.wants_control()
    assert gate.num_resets == 1
    supervisor.act()
    supervisor.act()
    assert expert.num_resets == 2
    supervisor.wants_control()
    assert gate.num_resets == 2
    supervisor.wants_control()
    assert gate.num_resets == 2
    supervisor.act()
    assert expert.num_resets == 3


@pytest.mark.parametrize("wrong", [{"handback": "never"}, {"min_control_s": -1.0}, {"min_control_s": 5.0}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SupervisorConfig(**wrong)
