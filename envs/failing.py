"""Policies that fail, and an expert's takeovers from what they leave behind.

A supervisor takes over where a policy went wrong, so an expert that stands in for one has to succeed from such states:

    takeover = take_over(env, expert, FAILING_POLICIES["mistaken"], seed=7)
    takeover.outcome      # "done", the kind of failure, or "over" where the bad policy had ended the episode itself
"""

import dataclasses
import types
from collections.abc import Callable, Mapping

import numpy as np

from envs.environment import Environment
from envs.g1.drive import LEFT_GRIPPER, NUM_ARM_JOINTS, STATE_DIM
from envs.registry import make_expert
from envs.task import Expert

ActionSource = Callable[[], np.ndarray]
"""Gives an action [16] per control tick."""

MakePolicy = Callable[[Environment, np.random.Generator], ActionSource]
"""Makes a policy for the episode that an environment is in."""

OVER, DONE = "over", "done"
_FAILING_TICKS = (30, 120)  # 1 to 4 s
_SNAP_TICKS = 5.0
_JOINT_ERROR_RAD = 0.05


@dataclasses.dataclass(frozen=True)
class Takeover:
    """What became of one episode: `outcome` as above, and the time that the expert needed [s]."""

    outcome: str
    expert_s: float


def take_over(env: Environment, expert: Expert, make_policy: MakePolicy, seed: int) -> Takeover:
    """Lets a bad policy act for 1 to 4 s in the episode of this seed, then the expert to its end."""
    rng = np.random.default_rng((seed, 1))
    timestep = env.reset(seed)
    act = make_policy(env, rng)
    for _ in range(rng.integers(*_FAILING_TICKS)):
        timestep = env.step(act())
        if timestep.last():
            return Takeover(OVER, 0.0)
    started_s = env.time_s
    expert.reset()
    while not timestep.last():
        timestep = env.step(expert.act())
    return Takeover(DONE if env.success() else env.failure_kind(), env.time_s - started_s)


def uniform(env: Environment, rng: np.random.Generator) -> ActionSource:
    """Any action inside the limits, afresh at every tick."""
    spec = env.action_spec()
    return lambda: rng.uniform(spec.minimum, spec.maximum)


def wandering(env: Environment, rng: np.random.Generator) -> ActionSource:
    """Two arms that wander, and grippers that open and close about once a second."""
    drift, phases, tick = np.zeros(STATE_DIM), rng.uniform(0.0, 6.0, size=2), 0

    def act() -> np.ndarray:
        nonlocal tick
        drift[:NUM_ARM_JOINTS] = 0.9 * drift[:NUM_ARM_JOINTS] + rng.normal(0.0, 0.012, size=NUM_ARM_JOINTS)
        action = env.executed_action + drift
        action[LEFT_GRIPPER:] = np.sin(tick / _SNAP_TICKS + phases) > 0.0
        tick += 1
        return action

    return act


def mistaken(env: Environment, rng: np.random.Generator) -> ActionSource:
    """The expert with anything that could be asked for in the scene, and a constant error in every joint."""
    expert = make_expert(env, style_seed=9, instruction=str(rng.choice(env.task.instructions)))
    error = np.zeros(STATE_DIM)
    error[:NUM_ARM_JOINTS] = rng.normal(0.0, _JOINT_ERROR_RAD, size=NUM_ARM_JOINTS)
    expert.reset()
    return lambda: expert.act() + error


FAILING_POLICIES: Mapping[str, MakePolicy] = types.MappingProxyType(
    {"uniform": uniform, "wandering": wandering, "mistaken": mistaken}
)
