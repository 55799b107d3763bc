"""The restock task: the expert's success, what the words mean, judgement of failures, grasping, the gate."""

import collections

import numpy as np
import pytest

import envs
from envs.restock.config import SLOTS, RestockConfig
from envs.restock.draws import draw_spots
from envs.restock.expert import Style, plan
from envs.restock.gate import GateConfig
from envs.restock.items import ItemStates
from envs.restock.progress import funnel, progress_of
from envs.restock.situation import Goal, Situation, is_done, slot_of, stage_of


@pytest.fixture(scope="module")
def env():
    made = envs.load("restock_shelf")
    yield made
    made.close()


def run(env, seed: int, instruction: str | None = None, style_seed: int = 0) -> list[str]:
    """Lets the expert do one episode; returns what the gate said."""
    timestep = env.reset(seed)
    expert, gate = envs.make_expert(env, style_seed, instruction), envs.make_gate(env)
    expert.reset()
    gate.reset()
    reasons = []
    while not timestep.last():
        timestep = env.step(expert.act())
        reasons.append(gate.check())
    return [reason for reason in reasons if reason]


def test_expert_succeeds_without_alarms_and_in_time(env):
    seconds = []
    for seed in range(8):
        assert run(env, seed, style_seed=seed) == []
        assert env.success(), (seed, env.failure_kind())
        assert env.failure_kind() == ""
        seconds.append(env.time_s)
    assert 1.5 < np.mean(seconds) < 4.0
    assert max(seconds) < env.task.time_limit_s / 2


def test_episode_ends_early_when_another_item_is_put_in_a_slot(env):
    env.reset(2)
    wrong = next(name for i, name in enumerate(env.task.item_names) if i != env.task.goal.item)
    reasons = run(env, 2, f"put the {wrong} in the left slot")
    assert env.failure_kind() == "wrong_object"
    assert env.time_s < env.task.time_limit_s - 1.0
    assert set(reasons) >= {"wrong_object"}


def test_right_item_in_the_wrong_slot_times_out_as_wrong_slot_and_the_gate_warns(env):
    env.reset(2)
    goal = env.task.goal
    wrong = next(slot for slot in SLOTS if slot != goal.slot)
    reasons = run(env, 2, f"put the {env.task.item_names[goal.item]} in the {wrong} slot")
    assert env.failure_kind() == "wrong_slot"
    assert "wrong_slot" in reasons


def test_gripper_closed_on_nothing_is_noticed_and_counts_as_a_missed_grasp():
    env = envs.load("restock_shelf", time_limit_s=1.0)
    timestep = env.reset(4)
    gate = envs.make_gate(env)
    gate.reset()
    action = env.executed_action.copy()
    action[15] = 1.0
    reasons = []
    while not timestep.last():
        timestep = env.step(action)
        reasons.append(gate.check())
    assert "empty_grasp" in reasons
    assert env.failure_kind() == "missed_grasp"


def test_gate_notices_standing_still_and_moving_away(env):
    gate = envs.make_gate(env)
    env.reset(4)
    gate.reset()
    reasons = []
    for _ in range(40):
        env.step(env.executed_action)
        reasons.append(gate.check())
    first = next(tick for tick, reason in enumerate(reasons) if reason)
    assert reasons[first] == "no_progress"
    assert first == pytest.approx(0.7 * 30, abs=2)
    env.reset(4)
    gate.reset()
    action = env.executed_action.copy()
    for _ in range(25):
        action[8] += 0.05
        env.step(action)
        reason = gate.check()
        if reason:
            break
    assert reason == "rising_distance"


def test_expert_takes_over_from_a_shaky_hand(env):
    outcomes = collections.Counter()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        timestep = env.reset(seed)
        expert = envs.make_expert(env)
        drift = np.zeros(16)
        for _ in range(30):
            drift[7:14] = 0.9 * drift[7:14] + rng.normal(0.0, 0.01, size=7)
            timestep = env.step(env.executed_action + drift)
        expert.reset()
        while not timestep.last():
            timestep = env.step(expert.act())
        outcomes[env.success()] += 1
    assert outcomes[True] >= 5


def test_nothing_is_held_until_both_pads_touch_it_and_opening_lets_go(env):
    timestep = env.reset(1)
    expert = envs.make_expert(env)
    expert.reset()
    while env.task.situation.held is None:
        assert not env.data.eq_active[env.task.model.equality("right_grasp_0").id]
        timestep = env.step(expert.act())
        assert not timestep.last()
    situation = env.task.situation
    assert situation.held == env.task.goal.item
    assert np.linalg.norm(situation.tool - situation.items[situation.held]) < 0.04
    action = env.executed_action.copy()
    action[15] = 0.0
    env.step(action)
    assert env.task.situation.held is None


def test_items_start_apart_inside_the_staging_area_and_colours_are_distinct(env):
    config = env.task.config
    for seed in range(20):
        env.reset(seed)
        colours = [name.split()[0] for name in env.task.item_names]
        assert len(set(colours)) == config.num_items
        spots = draw_spots(config, np.random.default_rng(seed))
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)
        assert gaps[~np.eye(config.num_items, dtype=bool)].min() >= config.item_spacing_m
        assert (spots >= [config.staging_x_m[0], config.staging_y_m[0]]).all()
        assert (spots <= [config.staging_x_m[1], config.staging_y_m[1]]).all()


def test_instruction_round_trips_and_nonsense_is_refused(env):
    env.reset(0)
    assert env.task.parse(env.instruction) == env.task.goal
    with pytest.raises(ValueError, match="must name one of"):
        env.task.parse("put the pink elephant in the left slot")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_distractors": 4}, "num_distractors must be 0 .. 3"),
        ({"colours": ("red", "mauve", "blue")}, "colours must be distinct names"),
        ({"timestep_s": 0.007}, "must divide 1/30 s"),
        ({"lighting": 2.0}, "lighting must be in 0 .. 1"),
        ({"time_limit_s": 0.0}, "time_limit_s must be positive"),
    ],
)
def test_config_refuses_impossible_worlds(change, message):
    with pytest.raises(ValueError, match=message):
        RestockConfig(**change)


def test_too_small_a_staging_area_says_so():
    config = RestockConfig(staging_x_m=(0.60, 0.62), staging_y_m=(0.0, 0.02))
    with pytest.raises(ValueError, match="fewer distractors or a larger staging area"):
        draw_spots(config, np.random.default_rng(0))


def test_gate_config_refuses_thresholds_that_fire_at_once():
    with pytest.raises(ValueError, match="rising_m must be positive"):
        GateConfig(rising_m=0.0)


CONFIG = RestockConfig()
GOAL = Goal(item=0, slot="middle")
SLOT_X, SLOT_Y = CONFIG.slots["middle"].x_m, CONFIG.slots["middle"].y_m
IN_SLOT = (SLOT_X, SLOT_Y, CONFIG.shelf_top_m + 0.035)
STAGED = (0.62, 0.0, CONFIG.table_height_m + 0.035)


def situation(tool=(0.65, -0.08, 0.75), item=STAGED, held=None, closure=0.0, command=0.0, speed=0.0) -> Situation:
    return Situation(
        tool=np.array(tool),
        goods=ItemStates(
            positions=np.array([item, (0.66, -0.15, CONFIG.table_height_m + 0.035)]),
            rotations=np.eye(3).reshape(1, 9).repeat(2, axis=0),
            velocities=np.array([(speed, 0.0, 0.0), (0.0, 0.0, 0.0)]),
            half_heights=np.array([0.035, 0.035]),
            half_widths=np.array([0.03, 0.03]),
        ),
        held=held,
        closure=closure,
        command=command,
        time_s=1.0,
    )


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        (situation(), "approach"),
        (situation(tool=(0.62, 0.0, 0.67)), "grasp"),
        (situation(tool=STAGED, held=0, closure=0.5), "move"),
        (situation(tool=IN_SLOT, item=IN_SLOT, held=0, closure=0.5), "place"),
        (situation(tool=IN_SLOT, item=IN_SLOT), "place"),
        (situation(tool=(SLOT_X, SLOT_Y, 0.80), item=IN_SLOT), "done"),
        (situation(tool=(SLOT_X, SLOT_Y, 0.80), item=IN_SLOT, speed=0.2), "place"),
    ],
)
def test_stages_follow_from_the_state(state, stage):
    assert stage_of(CONFIG, state, GOAL) == stage
    assert is_done(CONFIG, state, GOAL) == (stage == "done")


def test_slots_have_edges():
    assert slot_of(CONFIG, situation(item=IN_SLOT), 0) == "middle"
    assert slot_of(CONFIG, situation(item=(SLOT_X + 0.06, SLOT_Y, IN_SLOT[2])), 0) is None
    assert slot_of(CONFIG, situation(item=(SLOT_X, SLOT_Y, IN_SLOT[2] + 0.03)), 0) is None
    assert slot_of(CONFIG, situation(item=IN_SLOT, held=0), 0) is None


def test_plan_decides_from_state_alone():
    style = Style()
    aligned = (STAGED[0], STAGED[1], STAGED[2] + 0.012)
    assert plan(CONFIG, situation(tool=aligned), GOAL, style).gripper == 1.0
    assert plan(CONFIG, situation(), GOAL, style).gripper == 0.0
    reopening = plan(CONFIG, situation(tool=aligned, closure=0.95, command=1.0), GOAL, style)
    assert reopening.gripper == 0.0
    assert reopening.tool[2] > aligned[2] + 0.05
    wrong = plan(CONFIG, situation(tool=aligned, held=1, closure=0.5, command=1.0), GOAL, style)
    assert wrong.gripper in (0.0, 1.0)
    released = plan(CONFIG, situation(tool=IN_SLOT, item=IN_SLOT), GOAL, style)
    assert released.gripper == 0.0
    assert released.tool[2] > IN_SLOT[2]


def test_funnel_and_progress_by_hand():
    assert funnel(0.0) == 0.0
    assert funnel(0.04) == pytest.approx(0.5)
    assert funnel(1.0) == 1.0
    above = situation(tool=(STAGED[0] + 0.1, STAGED[1], STAGED[2] + 0.085))
    assert progress_of(CONFIG, above, GOAL).phase == 0
    assert progress_of(CONFIG, above, GOAL).remaining_m == pytest.approx(0.1)
    assert progress_of(CONFIG, situation(tool=IN_SLOT, item=IN_SLOT), GOAL).phase == 2


@pytest.mark.slow
def test_expert_on_two_hundred_seeds(env):
    outcomes, alarms = [], 0
    for seed in range(10_000, 10_200):
        alarms += bool(run(env, seed, style_seed=seed))
        outcomes.append(env.success())
    assert np.mean(outcomes) >= 0.95
    assert alarms / 200 < 0.05
