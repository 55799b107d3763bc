"""The restocking worlds beyond the flat shelf: the experts' success, language, failures, the door, the gate."""

import numpy as np
import pytest

import envs
from envs.restock.situation import Goal
from tests.envs.test_restock import run

WORLDS = ("restock_misplaced", "restock_freezer", "restock_cooler")


@pytest.fixture(scope="module", params=WORLDS)
def env(request):
    made = envs.load(request.param, catalogue="pool")
    yield made
    made.close()


@pytest.mark.parametrize("catalogue", ["basic", "evaluation"])
@pytest.mark.parametrize("task", ["restock_shelf", *WORLDS])
def test_expert_succeeds_with_every_catalogue(task, catalogue):
    env = envs.load(task, catalogue=catalogue)
    for seed in range(2):
        assert run(env, seed, style_seed=seed) == []
        assert env.success(), (seed, env.failure_kind(), env.instruction)
        assert env.time_s < env.task.time_limit_s / 2


def test_another_item_put_into_a_place_ends_the_episode_and_the_gate_objects(env):
    env.reset(3)
    goal = env.task.goal
    reasons = run(env, 3, env.task.instruction_for(Goal((goal.item + 1) % env.task.config.num_items, goal.slot)))
    assert env.failure_kind() == "wrong_object"
    assert "wrong_object" in reasons


def test_the_right_item_in_another_place_counts_as_wrong_slot():
    env = envs.load("restock_cooler", catalogue="pool")
    env.reset(2)
    goal = env.task.goal
    other = next(name for name in env.task.config.slots if name != goal.slot)
    reasons = run(env, 2, env.task.instruction_for(Goal(goal.item, other)))
    assert env.failure_kind() == "wrong_slot"
    assert "wrong_slot" in reasons


def test_standing_still_times_out_without_blame_for_where_a_misplaced_item_stood():
    env = envs.load("restock_misplaced", time_limit_s=1.5)
    timestep, gate, reasons = env.reset(0), envs.make_gate(env), set()
    gate.reset()
    while not timestep.last():
        timestep = env.step(env.executed_action)
        reasons.add(gate.check())
    assert env.failure_kind() == "timeout"
    assert "wrong_slot" not in reasons
    assert "no_progress" in reasons


def test_the_misplaced_item_stands_in_a_wrong_slot_and_its_own_is_free():
    env = envs.load("restock_misplaced")
    for seed in range(30):
        env.reset(seed)
        origins = env.task.situation.origins
        assert len(set(origins)) == env.task.config.num_items
        assert env.task.goal.slot not in origins


def test_the_freezer_is_not_done_before_its_lid_is_shut():
    env = envs.load("restock_freezer", catalogue="pool")
    timestep = env.reset(1)
    expert, widest = envs.make_expert(env), 0.0
    expert.reset()
    joint = env.task.model.joint("door").qposadr[0]
    while not timestep.last():
        if env.stage() == "close":
            assert not env.success()
            widest = max(widest, env.task.situation.door.opening_m)
        timestep = env.step(expert.act())
    assert env.success()
    assert widest > 0.2
    assert env.data.qpos[joint] < 0.012


def test_a_lid_that_slid_shut_is_opened_again():
    env = envs.load("restock_freezer", catalogue="pool")
    timestep = env.reset(1)
    expert, slammed = envs.make_expert(env), False
    expert.reset()
    while not timestep.last():
        action = expert.act()
        if not slammed and env.task.situation.door.opening_m > 0.15:
            slammed = True
            action[14] = 0.0  # the left hand lets go, and the lid is pushed shut
            env.step(action)
            env.data.qpos[env.task.model.joint("door").qposadr[0]] = 0.0
            continue
        timestep = env.step(action)
    assert slammed
    assert env.success()


def test_what_is_in_the_hand_stays_upright(env):
    expert, lowest = envs.make_expert(env), 1.0
    for seed in range(3):
        timestep = env.reset(seed)
        expert.reset()
        body = env.data.body(f"item_{env.task.goal.item}")
        while not timestep.last():
            timestep = env.step(expert.act())
            lowest = min(lowest, float(body.xmat[8]))
    assert lowest > np.cos(np.radians(13))


@pytest.mark.slow
def test_expert_on_two_hundred_seeds(env):
    outcomes, seconds, alarms = [], [], 0
    for seed in range(10_000, 10_200):
        alarms += bool(run(env, seed, style_seed=seed))
        outcomes.append(env.success())
        seconds.append(env.time_s)
    print(f"{env.task_name}: {sum(outcomes)} of 200, {np.mean(seconds):.2f} s, {alarms} with an alarm")
    assert np.mean(outcomes) >= 0.95
    assert alarms / 200 < 0.05
