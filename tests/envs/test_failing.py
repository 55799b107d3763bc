"""Every expert takes over from states that bad policies left behind."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import envs
from envs.box.config import TABS, WALLS
from envs.failing import DONE, FAILING_POLICIES, OVER, MakePolicy, Takeover, take_over
from envs.task import Expert

QUICK_TASKS = [task for task in envs.TASKS if task != "laundry_fold"]


def disordered(env: envs.Environment, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """A box's flaps folded in any order, by nobody: each at an angle of its own after reset."""
    for name in (*WALLS, *TABS):
        env.data.joint(f"hinge_{name}").qpos[0] = rng.uniform(0.1, 1.6)
    return lambda: env.executed_action


def long_enough(task: str) -> tuple[envs.Environment, Expert]:
    """An environment in which there is time left after the bad policy, and its expert."""
    env = envs.load(task, time_limit_s=1.5 * envs.load(task).task.time_limit_s)
    return env, envs.make_expert(env)


def takeovers(task: str, policy: MakePolicy, first_seed: int) -> Iterator[Takeover]:
    """Takeovers without end, of episodes that the bad policy had not ended."""
    env, expert = long_enough(task)
    seed = first_seed
    while True:
        takeover = take_over(env, expert, policy, seed)
        seed += 1
        if takeover.outcome != OVER:
            yield takeover


def share_done(found: Iterator[Takeover], num: int) -> float:
    return float(np.mean([next(found).outcome == DONE for _ in range(num)]))


@pytest.mark.parametrize("policy", list(FAILING_POLICIES))
@pytest.mark.parametrize("task", QUICK_TASKS)
def test_expert_recovers(task, policy):
    assert share_done(takeovers(task, FAILING_POLICIES[policy], 0), 3) >= 0.5


def test_box_expert_recovers_from_flaps_in_any_order():
    assert share_done(takeovers("box_assembly", disordered, 0), 3) >= 0.5


def test_laundry_expert_recovers():
    assert share_done(takeovers("laundry_fold", FAILING_POLICIES["wandering"], 0), 1) == 1.0


def test_a_takeover_depends_on_its_seed_alone_and_the_bad_policies_do_fail():
    env, expert = long_enough("restock_shelf")
    once = [take_over(env, expert, policy, 5) for policy in FAILING_POLICIES.values()]
    again = [take_over(env, expert, policy, 5) for policy in reversed(FAILING_POLICIES.values())]
    assert once == again[::-1]
    for policy in FAILING_POLICIES.values():
        env.reset(1)
        act = policy(env, np.random.default_rng(1))
        for _ in range(200):
            if env.step(act()).last():
                break
        assert not env.success()


def test_a_policy_that_ends_its_episode_leaves_nothing_to_take_over():
    env = envs.load("restock_shelf", time_limit_s=0.5)
    takeover = take_over(env, envs.make_expert(env), FAILING_POLICIES["wandering"], 0)
    assert takeover == Takeover(OVER, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("task", envs.TASKS)
def test_expert_recovers_nine_times_in_ten(task):
    shares = {name: share_done(takeovers(task, policy, 20_000), 67) for name, policy in FAILING_POLICIES.items()}
    print(f"{task}: {shares}")
    assert min(shares.values()) >= 0.9


@pytest.mark.slow
def test_box_expert_recovers_from_any_order_nine_times_in_ten():
    assert share_done(takeovers("box_assembly", disordered, 30_000), 67) >= 0.9
