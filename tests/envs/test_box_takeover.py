"""The box expert takes over from states that a bad policy left behind."""

from collections.abc import Callable

import numpy as np
import pytest

import envs
from envs.box.task import INSTRUCTIONS

BadPolicy = Callable[[envs.Environment, np.random.Generator], Callable[[], np.ndarray]]


def uniform(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Any action in the limits, afresh at every tick."""
    spec = env.action_spec()
    return lambda: rng.uniform(spec.minimum, spec.maximum)


def drifting(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Two arms that wander."""
    drift = np.zeros(16)

    def act() -> np.ndarray:
        drift[:14] = 0.9 * drift[:14] + rng.normal(0.0, 0.012, size=14)
        return env.executed_action + drift

    return act


def mistaken(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """The expert with any instruction at all, and a constant error in every joint."""
    words = str(rng.choice(tuple(INSTRUCTIONS)))
    expert, error = envs.make_expert(env, style_seed=9, instruction=words), rng.normal(0.0, 0.04, size=16)
    error[14:] = 0.0
    expert.reset()
    return lambda: expert.act() + error


def disordered(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Flaps folded in any order, by nobody: each at an angle of its own after reset."""
    for name, angle in {
        f"hinge_{name}": rng.uniform(0.1, 1.6)
        for name in ("left", "right", "far", "near", "left_far", "left_near", "right_far", "right_near")
    }.items():
        env.data.joint(name).qpos[0] = angle
    return lambda: env.executed_action


def takeover_rate(make_policy: BadPolicy, seeds: range) -> tuple[float, int]:
    """Success of the expert after 1 to 4 s of a bad policy, over the episodes that were not over by then."""
    env = envs.load("box_assembly", time_limit_s=25.0)
    expert = envs.make_expert(env)
    outcomes = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 1))
        timestep = env.reset(seed)
        policy = make_policy(env, rng)
        for _ in range(rng.integers(30, 120)):
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


@pytest.mark.parametrize("policy", [uniform, drifting, mistaken, disordered])
def test_expert_recovers(policy):
    rate, num = takeover_rate(policy, range(3))
    assert num >= 1
    assert rate >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("policy", [uniform, drifting, mistaken, disordered])
def test_expert_recovers_nine_times_in_ten(policy):
    rate, num = takeover_rate(policy, range(100, 150))
    print(f"{policy.__name__}: {rate:.3f} of {num}")
    assert num >= 25
    assert rate >= 0.9
