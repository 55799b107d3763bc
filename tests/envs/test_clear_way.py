"""An arm's way out from under the table, and hands that reach between goods and a wall."""

import mujoco
import numpy as np
import pytest

import envs
from envs.g1.clear_way import ClearWay
from envs.g1.drive import LEFT_ARM, RIGHT_ARM
from envs.restock.hand_motion import HandMotion
from envs.restock.hand_pose import LEFT_READY_RAD, READY_RAD, READY_TOOL_M, hand_rotation

READY = np.array(READY_RAD)
HOOKED = np.array([-0.01, -0.47, -2.15, 1.01, -1.33, -1.17, -0.37])
"""The right arm as two wandering arms left it: straight from here to the ready posture, the forearm meets the table."""


@pytest.fixture
def env():
    made = envs.load("restock_freezer", time_limit_s=30.0)
    made.reset(0)
    yield made
    made.close()


def put(env, arm: slice, posture: np.ndarray) -> None:
    """The robot at rest, one arm in this posture."""
    state = env.task.rest_state
    state[arm] = posture
    env.task.drive.place(env.data, state)
    mujoco.mj_forward(env.task.model, env.data)


def follow(env, way: list[np.ndarray]) -> float:
    """Leads the right arm along a way; how far it is from its end at last, in rad."""
    target = env.task.drive.state(env.data)
    for posture in way:
        for _ in range(90):
            left = posture - target[RIGHT_ARM]
            target[RIGHT_ARM] += left * min(1.0, 0.05 / max(np.abs(left).max(), 1e-9))
            env.step(target)
    return float(np.abs(way[-1] - env.task.drive.state(env.data)[RIGHT_ARM]).max())


def test_a_way_leads_out_where_the_straight_line_is_barred(env):
    put(env, RIGHT_ARM, HOOKED)
    assert follow(env, [READY]) > 0.3
    put(env, RIGHT_ARM, HOOKED)
    way = ClearWay(env.task.model, env.data, "right").find(HOOKED, READY)
    assert len(way) > 1
    np.testing.assert_array_equal(way[-1], READY)
    assert follow(env, way) < 0.05


def test_a_search_follows_from_the_situation_alone_and_leaves_it_alone(env):
    put(env, RIGHT_ARM, HOOKED)
    before, bits = env.data.qpos.copy(), env.task.model.geom_contype.copy()
    ways = ClearWay(env.task.model, env.data, "right")
    np.testing.assert_array_equal(ways.find(HOOKED, READY), ways.find(HOOKED, READY))
    np.testing.assert_array_equal(env.data.qpos, before)
    np.testing.assert_array_equal(env.task.model.geom_contype, bits)


def test_a_free_line_is_taken_and_a_goal_inside_the_table_is_not_found(env):
    put(env, RIGHT_ARM, READY)
    ways = ClearWay(env.task.model, env.data, "right")
    np.testing.assert_array_equal(ways.find(READY, READY + 0.1), [READY + 0.1])
    assert ways.find(READY, READY + np.array([-0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])) == []


def test_the_left_arm_finds_the_same_way_in_a_mirror(env):
    put(env, LEFT_ARM, -HOOKED)
    way = ClearWay(env.task.model, env.data, "left").find(-HOOKED, np.array(LEFT_READY_RAD))
    assert len(way) > 1


def test_an_arm_that_went_astray_comes_back_to_its_work(env):
    put(env, RIGHT_ARM, HOOKED)
    config = env.task.config
    motion = HandMotion(config.workspace_m, config.robot, ClearWay(env.task.model, env.data, "right"))
    motion.reset(HOOKED)
    action, goal = env.task.rest_state, np.array(READY_TOOL_M)
    for _ in range(150):
        action[RIGHT_ARM] = motion.step(env.task.drive.state(env.data)[RIGHT_ARM], goal, 0.36)
        env.step(action)
    np.testing.assert_allclose(env.data.site("g1/right_tcp").xpos, goal, atol=0.02)


def test_a_hand_turns_straight_ahead_and_down():
    usual, ahead = (hand_rotation(np.array([0.69, -0.08, 0.7]), 0.7, share) for share in (0.0, 1.0))
    np.testing.assert_allclose(ahead, np.diag([1.0, -1.0, -1.0]), atol=1e-12)
    assert abs(usual[0, 1]) > 0.9  # as it usually points, its fingers spread along x


@pytest.mark.parametrize(
    ("task", "y_m"), [("restock_freezer", -0.08), ("restock_freezer", -0.16), ("restock_cooler", -0.08)]
)
def test_goods_against_a_wall_are_picked_up_and_put_where_they_belong(task, y_m):
    env = envs.load(task, num_distractors=0)
    timestep = env.reset(4)
    x_m = env.task.config.wall_x_m - 0.036
    start = env.task.model.joint("item_0").qposadr[0]
    env.data.qpos[start : start + 2] = x_m, y_m
    env.data.qpos[start + 3 : start + 7] = 1.0, 0.0, 0.0, 0.0
    expert = envs.make_expert(env)
    expert.reset()
    while not timestep.last():
        timestep = env.step(expert.act())
    assert env.success(), env.failure_kind()
