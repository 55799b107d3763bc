"""What every gate calls unsafe."""

import numpy as np
import pytest

import envs
from envs.watching import HandWatch

APART = np.array([[0.6, 0.2, 0.8], [0.6, -0.2, 0.8]])


def test_slow_hands_apart_are_safe_and_fast_or_near_ones_are_not():
    watch = HandWatch(fastest_m_s=1.2, nearest_m=0.03)
    step = np.array([0.0, 0.039, 0.0])  # 1.17 m/s at 30 Hz
    assert not watch.is_unsafe(APART)
    assert not watch.is_unsafe(APART + step)
    assert watch.is_unsafe(APART + 2.1 * step)
    watch.reset()
    assert not watch.is_unsafe(APART - 5.0)
    near = np.array([[0.6, 0.0, 0.8], [0.6, 0.029, 0.8]])
    watch.reset()
    assert watch.is_unsafe(near)


@pytest.mark.parametrize("task", envs.TASKS)
def test_every_gate_objects_to_an_arm_that_is_flung(task):
    env = envs.load(task)
    env.reset(0)
    gate = envs.make_gate(env)
    gate.reset()
    seen = set()
    action = env.executed_action.copy()
    for _ in range(25):
        action[[0, 3]] += 0.26
        action[[7, 10]] -= 0.26
        if env.step(action).last():
            break
        seen.add(gate.check())
    assert "unsafe" in seen
