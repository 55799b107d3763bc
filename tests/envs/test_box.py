"""The box task: what latches, what is a fold error, how the expert folds, recovers and listens, what the gate says."""

import math
from types import MappingProxyType

import mujoco
import numpy as np
import pytest

import envs
from envs.box.config import BlankSize, BoxConfig
from envs.box.expert import must_reopen
from envs.box.gate import GateConfig
from envs.box.hand_pose import READY_RAD, READY_TOOL_M, right_hand_rotation
from envs.box.progress import progress_of
from envs.box.situation import Goal, Situation, has_tab_outside, may_latch, stage_of, tab_depth
from envs.box.strokes import Surroundings, end_stroke, go_round, is_engaged, push, side_stroke
from envs.box.task import CRUSHING_N, INSTRUCTIONS
from envs.g1.arm_ik import ArmIk
from envs.g1.drive import RIGHT_ARM

UPRIGHT = math.pi / 2
SIDES_UP = MappingProxyType({"left": UPRIGHT, "right": UPRIGHT})
FAR_TABS_IN = MappingProxyType({"left_far": 1.5, "right_far": 1.5})


@pytest.fixture(scope="module")
def env():
    made = envs.load("box_assembly")
    yield made
    made.close()


def seed_of(env, instruction: str) -> int:
    """The first seed whose episode has this instruction."""
    for seed in range(50):
        env.reset(seed)
        if env.instruction == instruction:
            return seed
    raise AssertionError(f"no seed with {instruction!r}")


def bend(env, **angles: float) -> None:
    """Puts flaps at angles [rad]."""
    for name, angle in angles.items():
        env.data.joint(f"hinge_{name}").qpos[0] = angle
        env.data.joint(f"hinge_{name}").qvel[0] = 0.0
    mujoco.mj_forward(env.task.model, env.data)


def wait(env, seconds: float) -> None:
    """Lets the robot stand still."""
    action = env.executed_action.copy()
    for _ in range(round(30 * seconds)):
        if env.step(action).last():
            break


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


def test_expert_folds_without_alarms_and_in_time(env):
    for seed in range(4):
        assert run(env, seed, style_seed=seed) == []
        assert env.success(), (seed, env.failure_kind())
        assert 3.0 < env.time_s < env.task.time_limit_s * 0.6
        assert env.task.situation.latched == set(env.task.goal.ends)
        assert env.stage() == "done"


def test_stages_come_in_order(env):
    seed = seed_of(env, "fold the box and leave the near end open")
    timestep = env.reset(seed)
    expert = envs.make_expert(env)
    expert.reset()
    stages = [env.stage()]
    while not timestep.last():
        timestep = env.step(expert.act())
        if env.stage() != stages[-1]:
            stages.append(env.stage())
    assert stages == ["reach", "fold_sides", "tuck_tabs", "close", "release", "done"]


def test_closing_the_end_that_should_stay_open_fails_at_once(env):
    seed = seed_of(env, "fold the box and leave the far end open")
    reasons = run(env, seed, "fold the box and leave the near end open")
    assert env.failure_kind() == "fold_error"
    assert env.time_s < env.task.time_limit_s / 2
    assert "wrong_end" in reasons


def test_the_right_order_latches_and_holds(env):
    env.reset(seed_of(env, "fold the box and close both ends"))
    bend(env, **SIDES_UP, **FAR_TABS_IN, far=1.5)
    wait(env, 1.0)
    assert env.task.situation.latched == {"far"}
    assert env.task.situation.end("far") == pytest.approx(UPRIGHT, abs=0.05)
    assert env.failure_kind() == ""
    bend(env, near=1.2)  # and the other end does not latch without its tabs
    wait(env, 0.3)
    assert env.task.situation.latched == {"far"}


def test_wrong_order_leaves_the_tabs_outside_never_latches_and_is_a_fold_error(env):
    env.reset(seed_of(env, "fold the box and leave the near end open"))
    gate = envs.make_gate(env)
    gate.reset()
    bend(env, far=1.55)
    wait(env, 0.1)
    assert gate.check() == "wrong_order"
    assert env.failure_kind() == ""  # it can still be undone
    bend(env, **SIDES_UP, far=1.55)
    wait(env, 5.0)
    assert env.task.situation.latched == frozenset()
    assert env.failure_kind() == "fold_error"
    assert env.time_s < env.task.time_limit_s / 2


def test_expert_undoes_a_wrong_order_and_a_wrong_end(env):
    env.reset(seed_of(env, "fold the box and leave the near end open"))
    for wrong in ({"far": 1.55}, {"near": 1.5, **SIDES_UP}, {**SIDES_UP, "far": 1.55}):
        timestep = env.reset(env.episode_seed)
        bend(env, **wrong)
        expert = envs.make_expert(env)
        expert.reset()
        while not timestep.last():
            timestep = env.step(expert.act())
        assert env.success(), (wrong, env.failure_kind())


def test_pressing_a_hand_onto_the_board_crushes_it(env):
    env.reset(0)
    ik, joints = ArmIk("right", np.array(READY_RAD["right"]), env.task.config.robot), np.array(READY_RAD["right"])
    above = np.array([env.task.config.stand_x_m, -0.03, env.task.config.blank_height_m + 0.08])
    gate, reasons = envs.make_gate(env), []
    gate.reset()
    for tick in range(120):
        goal = above - [0.0, 0.0, 0.16 * max(tick - 60, 0) / 60]
        joints = ik.step(joints, goal, right_hand_rotation(goal))
        action = env.executed_action.copy()
        action[RIGHT_ARM] = joints
        timestep = env.step(action)
        reasons.append(gate.check())
        if timestep.last():
            break
    assert env.failure_kind() == "fold_error"
    assert env.task.situation.force_n > CRUSHING_N
    assert "crushed_flap" in reasons


def test_flaps_stay_where_they_are_put_and_one_pressed_in_too_far_springs_back(env):
    env.reset(1)
    bend(env, far=0.4, near=0.9)
    wait(env, 1.0)
    assert env.task.situation.end("far") == pytest.approx(0.4, abs=0.05)
    assert env.task.situation.end("near") == pytest.approx(0.9, abs=0.05)
    env.reset(1)
    bend(env, left=0.8, right=1.9)
    wait(env, 1.0)
    assert env.task.situation.side(0) == pytest.approx(0.8, abs=0.05)
    assert env.task.situation.side(1) < 1.72


def test_same_seed_gives_the_same_blank_bit_by_bit_and_other_seeds_differ(env):
    def trace(seed: int) -> bytes:
        env.reset(seed)
        expert = envs.make_expert(env, style_seed=3)
        expert.reset()
        for _ in range(40):
            env.step(expert.act())
        return env.data.qpos.tobytes() + env.task.model.geom_size.tobytes()

    first = trace(5)
    assert trace(6) != first
    assert trace(5) == first


def test_gate_notices_standing_still_and_going_away(env):
    gate = envs.make_gate(env)
    env.reset(4)
    gate.reset()
    reasons = []
    for _ in range(45):
        env.step(env.executed_action)
        reasons.append(gate.check())
    first = next(tick for tick, reason in enumerate(reasons) if reason)
    assert reasons[first] == "no_progress"
    assert first == pytest.approx(GateConfig().no_progress_s * 30, abs=2)
    env.reset(4)
    gate.reset()
    action, reasons = env.executed_action.copy(), []
    for _ in range(30):
        action[RIGHT_ARM] *= 0.9  # towards arms spread wide
        env.step(action)
        reasons.append(gate.check())
    assert "rising_distance" in reasons


def test_blanks_vary_within_bounds(env):
    config, poses, sizes = env.task.config, [], []
    for seed in range(20):
        env.reset(seed)
        situation = env.task.situation
        poses.append(np.array(situation.pose) - [config.stand_x_m, 0.0, 0.0])
        sizes.append([situation.size.half_length, situation.size.half_width, situation.size.height])
        assert min(situation.walls) >= config.crease_rad[0]
        assert max(situation.tabs) <= config.crease_rad[1]
    assert (np.abs(poses) <= [config.place_m, config.place_m, config.place_yaw_rad]).all()
    base = np.array([config.size.half_length, config.size.half_width, config.size.height])
    assert (np.abs(np.array(sizes) / base - 1.0) <= config.size_share + 1e-9).all()
    assert np.ptp(poses, axis=0).min() > 0.015
    assert np.ptp(sizes, axis=0).min() > 0.004


def test_instruction_round_trips_and_nonsense_is_refused(env):
    seen = set()
    for seed in range(30):
        env.reset(seed)
        assert env.task.parse(env.instruction) == env.task.goal
        seen.add(env.instruction)
    assert seen == set(INSTRUCTIONS)
    with pytest.raises(ValueError, match="must be one of"):
        env.task.parse("fold the napkin")


def test_ready_posture_is_where_it_says(env):
    ik = ArmIk("right", np.array(READY_RAD["right"]), env.task.config.robot)
    np.testing.assert_allclose(ik.pose(np.array(READY_RAD["right"]))[0], READY_TOOL_M["right"], atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep_s": 0.007}, "must divide 1/30 s"),
        ({"lighting": 2.0}, "lighting must be in 0 .. 1"),
        ({"time_limit_s": 0.0}, "time_limit_s must be positive"),
        ({"size_share": 0.5}, "size_share must be in 0 .. 0.1"),
        ({"boards": ("kraft", "velvet")}, "boards must be names out of"),
        ({"crease_rad": (0.0, 0.2)}, "crease_rad must rise within"),
        ({"size": BlankSize(0.07, 0.06, 0.06, 0.055)}, "would meet in a box"),
    ],
)
def test_config_refuses_impossible_worlds(change, message):
    with pytest.raises(ValueError, match=message):
        BoxConfig(**change)


def test_gate_config_refuses_thresholds_that_fire_at_once():
    with pytest.raises(ValueError, match="rising_m must be positive"):
        GateConfig(rising_m=0.0)


SIZE = BlankSize(0.07, 0.06, 0.06, 0.042)
BOTH = Goal(("far", "near"))
AWAY = ((0.6, 0.3, 0.7), (0.6, -0.3, 0.7))


def situation(walls=(0.2, 0.2, 0.2, 0.2), tabs=(0.2, 0.2, 0.2, 0.2), latched=(), tips=AWAY) -> Situation:
    return Situation(SIZE, (0.6, 0.0, 0.0), 0.66, walls, tabs, frozenset(latched), tips, 0.0, 1.0)


def test_tab_depth_by_hand():
    assert tab_depth(situation((UPRIGHT, UPRIGHT, UPRIGHT, 0), (0, 0, 0, 0)), 0, "far") == pytest.approx(-0.0375)
    tucked = situation((UPRIGHT, UPRIGHT, UPRIGHT, 0), (UPRIGHT, 0, UPRIGHT, 0))
    assert tab_depth(tucked, 0, "far") == pytest.approx(0.0045)
    assert not has_tab_outside(tucked, "far")
    assert has_tab_outside(situation((0.2, 0.2, UPRIGHT, 0)), "far")
    assert not has_tab_outside(situation((0.2, 0.2, 0.9, 0)), "far")  # not standing yet


def test_an_end_latches_only_when_everything_is_square():
    square = {"walls": (1.6, 1.5, 1.55, 0.2), "tabs": (1.6, 0.2, 1.5, 0.2)}
    assert may_latch(situation(**square), "far")
    assert not may_latch(situation(**square), "near")
    assert not may_latch(situation(walls=(1.2, 1.5, 1.55, 0.2), tabs=square["tabs"]), "far")
    assert not may_latch(situation(walls=(1.6, 1.5, 1.40, 0.2), tabs=square["tabs"]), "far")
    assert not may_latch(situation(walls=square["walls"], tabs=(1.6, 0.2, 1.2, 0.2)), "far")


@pytest.mark.parametrize(
    ("state", "stage", "step"),
    [
        (situation(), "reach", 0),
        (situation(walls=(0.9, 0.3, 0.2, 0.2)), "fold_sides", 0),
        (situation(walls=(1.5, 1.5, 0.2, 0.2)), "tuck_tabs", 1),
        (situation(walls=(1.5, 1.5, 0.2, 0.2), tabs=(1.2, 0.2, 1.2, 0.2)), "close", 2),
        (situation(walls=(1.5, 1.5, 1.6, 0.2), tabs=(1.6, 0.2, 1.6, 0.2), latched=("far",)), "tuck_tabs", 3),
        (situation(walls=(1.5, 1.5, 1.6, 1.6), latched=("far", "near"), tips=((0.6, 0.07, 0.7),) * 2), "release", 6),
        (situation(walls=(1.5, 1.5, 1.6, 1.6), latched=("far", "near")), "done", 6),
    ],
)
def test_stages_and_progress_follow_from_the_state(state, stage, step):
    assert stage_of(state, BOTH) == stage
    assert progress_of(state, BOTH).step == step


def test_what_has_to_be_opened_again():
    early = situation(walls=(0.2, 0.2, 1.5, 0.2))
    assert must_reopen(early, BOTH, "far", is_at_it=False)
    assert not must_reopen(early, BOTH, "near", is_at_it=False)
    assert must_reopen(situation(walls=(1.5, 1.5, 0.2, 1.5), tabs=(1.5,) * 4), Goal(("far",)), "near", is_at_it=False)
    half = situation(walls=(1.5, 1.5, 0.45, 0.2))
    assert must_reopen(half, BOTH, "far", is_at_it=True)
    assert not must_reopen(half, BOTH, "far", is_at_it=False)
    assert not must_reopen(situation(walls=(1.5, 1.5, 1.2, 0.2), tabs=(1.3,) * 4), BOTH, "far", is_at_it=False)


def test_a_hand_beside_its_flap_pushes_it_and_one_elsewhere_goes_round():
    around = Surroundings(SIZE, 0.15, False)
    stroke = side_stroke(SIZE, 0.5, UPRIGHT)
    at_it = stroke.touching()
    assert is_engaged(stroke, at_it)
    wanted = push(stroke, at_it, around)
    assert wanted[2] > at_it[2]
    assert wanted[1] < at_it[1]
    far_end = end_stroke(SIZE, 1.0, 0.2, UPRIGHT)
    assert not is_engaged(far_end, at_it)
    first = go_round(at_it, far_end.touching(), around)
    assert first[1] == pytest.approx(0.15)  # out first, not across the flaps
    assert abs(first[0] - at_it[0]) < 0.01


@pytest.mark.slow
def test_expert_on_two_hundred_seeds(env):
    outcomes, alarms, seconds = [], 0, []
    for seed in range(10_000, 10_200):
        alarms += bool(run(env, seed, style_seed=seed))
        outcomes.append(env.success())
        seconds.append(env.time_s)
    print(
        f"{sum(outcomes)} of 200, {np.mean(seconds):.2f} s ({min(seconds):.1f} .. {max(seconds):.1f}), {alarms} alarms"
    )
    assert np.mean(outcomes) >= 0.95
    assert alarms / 200 < 0.05
