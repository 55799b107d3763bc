"""Every expert that takes over from a bad policy begins where the robot is: its takeovers need no easing."""

import numpy as np
import pytest

import envs
from envs.failing import FAILING_POLICIES
from envs.g1.drive import NUM_ARM_JOINTS

LARGEST_STEP_RAD = 0.08
NUM_SEEDS = 2


def first_steps(task, make_policy):
    """Distance [rad] from the measured pose to the expert's first action, of the joint that is farthest, per takeover."""
    env = envs.load(task)
    expert = envs.make_expert(env)
    found = []
    for seed in range(NUM_SEEDS):
        rng = np.random.default_rng((seed, 1))
        timestep, act = env.reset(seed), make_policy(env, rng)
        for _ in range(rng.integers(10, 60)):
            timestep = env.step(act())
            if timestep.last():
                break
        if not timestep.last():
            expert.reset()
            found.append(np.abs(expert.act() - timestep.observation["state"])[:NUM_ARM_JOINTS].max())
    return found


@pytest.mark.parametrize("policy", list(FAILING_POLICIES))
@pytest.mark.parametrize("task", envs.TASKS)
def test_an_experts_first_action_is_near_the_present_pose(task, policy):
    steps = first_steps(task, FAILING_POLICIES[policy])
    assert steps
    assert max(steps) < LARGEST_STEP_RAD
    assert max(steps) > 1e-4  # It does move.
