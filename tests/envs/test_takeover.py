"""The expert takes over from states that a bad policy left behind."""

from collections.abc import Callable

import numpy as np
import pytest

import envs
from envs.restock.config import SLOTS

BadPolicy = Callable[[envs.Environment, np.random.Generator], Callable[[], np.ndarray]]


def uniform(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Any action in the limits, afresh at every tick."""
    spec = env.action_spec()
    return lambda: rng.uniform(spec.minimum, spec.maximum)


def drifting(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """A right arm that wanders, and a gripper that opens and closes about once a second."""
    drift, phase, ticks = np.zeros(16), rng.uniform(0, 6), iter(range(1000))

    def act() -> np.ndarray:
        drift[7:14] = 0.9 * drift[7:14] + rng.normal(0.0, 0.012, size=7)
        action = env.executed_action + drift
        action[15] = np.sin(next(ticks) / 5 + phase) > 0
        return action

    return act


def mistaken(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """The expert with any instruction at all, and a constant error in every joint."""
    words = f"put the {rng.choice(env.task.item_names)} in the {rng.choice(SLOTS)} slot"
    expert, error = envs.make_expert(env, style_seed=9, instruction=words), rng.normal(0.0, 0.05, size=16)
    error[14:] = 0.0
    expert.reset()
    return lambda: expert.act() + error


def takeover_rate(make_policy: BadPolicy, seeds: range) -> tuple[float, int]:
    """Success of the expert after 1 to 3 s of a bad policy, over the episodes that were not over by then."""
    env = envs.load("restock_shelf", time_limit_s=15.0)
    expert = envs.make_expert(env)
    outcomes = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 1))
        timestep = env.reset(seed)
        policy = make_policy(env, rng)
        for _ in range(rng.integers(30, 90)):
            timestep = env.step(policy())
            if timestep.last():
                break
        if timestep.last():
            continue
        expert.reset()
        while not timestep.last():
            timestep = env.step(expert.act())
        outcomes.append(env.success())
    return float(np.mean(outcomes)), len(outcomes)


@pytest.mark.parametrize("policy", [uniform, drifting, mistaken])
def test_expert_recovers(policy):
    rate, num = takeover_rate(policy, range(3))
    assert num >= 1
    assert rate >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("policy", [uniform, drifting, mistaken])
def test_expert_recovers_nine_times_in_ten(policy):
    rate, num = takeover_rate(policy, range(100, 200))
    print(f"{policy.__name__}: {rate:.3f} of {num}")
    assert num >= 60
    assert rate >= 0.9
