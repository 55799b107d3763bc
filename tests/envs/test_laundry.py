"""The laundry task: crumpled starts, the expert's success, grasping, failures, the gate."""

import dataclasses

import numpy as np
import pytest

import envs
from envs.laundry.config import STACKS, LaundryConfig
from envs.laundry.crumple import Crumpler, place_shirt
from envs.laundry.gate import GateConfig
from envs.laundry.moves import plan
from envs.laundry.pinch import tip_height, vertices_in_reach
from envs.laundry.shirt import Shirt
from envs.laundry.situation import STAGES


@pytest.fixture(scope="module")
def env():
    made = envs.load("laundry_fold")
    yield made
    made.close()


def run(env, seed: int, instruction: str | None = None, style_seed: int = 0) -> tuple[list[str], list[str]]:
    """Lets the expert do one episode; returns what the gate said, and the stages in the order of their coming."""
    timestep = env.reset(seed)
    expert, gate = envs.make_expert(env, style_seed, instruction), envs.make_gate(env)
    expert.reset()
    gate.reset()
    reasons, stages = [], [env.stage()]
    while not timestep.last():
        timestep = env.step(expert.act())
        reasons.append(gate.check())
        if env.stage() != stages[-1]:
            stages.append(env.stage())
    return [reason for reason in reasons if reason], stages


def test_crumpled_starts_differ_by_seed_repeat_to_the_bit_and_grow_with_strength():
    def start(seed: int, strength: float) -> np.ndarray:
        return Crumpler(LaundryConfig(crumple=strength)).make(np.random.default_rng(seed))

    crumpler = Crumpler(LaundryConfig())
    crumpler.make(np.random.default_rng(8))  # what came before must not matter
    assert (crumpler.make(np.random.default_rng(7)) == start(7, 1.0)).all()
    assert np.abs(start(7, 1.0) - start(8, 1.0)).max() > 0.02
    config = LaundryConfig()
    flat = start(7, 0.0)
    np.testing.assert_allclose(np.ptp(flat[:, :2], axis=0), np.ptp(config.shirt.rest, axis=0), atol=1e-6)
    spans = [np.mean([np.ptp(start(seed, s)[:, :2], axis=0).sum() for seed in range(4)]) for s in (0.3, 1.0)]
    assert spans[0] > spans[1]


def test_instruction_names_colour_and_stack_and_nonsense_is_refused(env):
    seen = set()
    for seed in range(8):
        env.reset(seed)
        assert env.task.parse(env.instruction) == env.task.goal
        assert env.instruction.startswith("fold the ")
        seen.add(env.task.goal.stack)
    assert seen == set(STACKS)
    with pytest.raises(ValueError, match="must name one of the stacks"):
        env.task.parse("fold the blue T-shirt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crumple": 3.0}, "crumple must be in 0"),
        ({"colours": ("red", "mauve")}, "colours must be distinct names"),
        ({"timestep_s": 0.007}, "must divide 1/30 s"),
        ({"time_limit_s": 0.0}, "time_limit_s must be positive"),
    ],
)
def test_config_refuses_impossible_worlds(change, message):
    with pytest.raises(ValueError, match=message):
        LaundryConfig(**change)


def test_gate_config_refuses_thresholds_that_fire_at_once():
    with pytest.raises(ValueError, match="dropped_m must be positive"):
        GateConfig(dropped_m=0.0)


def test_expert_folds_a_flat_shirt_through_all_stages_without_alarms():
    env = envs.load("laundry_fold", crumple=0.0)
    reasons, stages = run(env, 3)
    assert env.success(), env.failure_kind()
    assert reasons == []
    assert stages == list(STAGES[1:])
    assert env.time_s < 30.0


def test_the_other_stack_times_out_as_wrong_slot():
    env = envs.load("laundry_fold", crumple=0.0, time_limit_s=0.2)
    timestep = env.reset(3)
    config = env.task.config
    other = next(name for name in STACKS if name != env.task.goal.stack)
    packet = np.full((len(config.shirt.folded), 3), config.table_height_m + 0.03)
    packet[:, :2] = config.shirt.folded + config.stack_centres_m[other]
    place_shirt(env.task.model, env.data, packet)
    while not timestep.last():
        timestep = env.step(env.executed_action)
    assert not env.success()
    assert env.failure_kind() == "wrong_slot"


def test_cloth_is_held_only_where_closed_fingertips_are_and_opening_lets_go():
    env = envs.load("laundry_fold", crumple=0.0)
    timestep = env.reset(1)
    action = env.executed_action.copy()
    for _ in range(15):
        action[14:] = 1.0
        timestep = env.step(action)
    assert env.task.situation.held == ((), ())
    timestep = env.reset(1)
    expert = envs.make_expert(env)
    expert.reset()
    while env.task.situation.hands_empty:
        timestep = env.step(expert.act())
        assert not timestep.last()
    situation = env.task.situation
    hand = next(hand for hand in (0, 1) if situation.held[hand])
    assert situation.closures[hand] > 0.8
    vertex = situation.held[hand][0]
    assert np.linalg.norm(situation.tips[hand] - situation.vertices[vertex]) < 0.035
    for _ in range(20):
        timestep = env.step(expert.act())
    moved = env.task.situation
    offset = moved.vertices[vertex] - moved.tips[hand]
    assert np.linalg.norm(offset - (situation.vertices[vertex] - situation.tips[hand])) < 0.02
    action = env.executed_action.copy()
    action[14:] = 0.0
    env.step(action)
    assert env.task.situation.hands_empty


def test_gate_notices_standing_still_closing_on_nothing_and_letting_go_in_the_air():
    env = envs.load("laundry_fold", crumple=0.0)
    env.reset(4)
    gate = envs.make_gate(env, GateConfig(no_progress_s=1.0))
    seen = set()
    for _ in range(40):
        env.step(env.executed_action)
        seen.add(gate.check())
    assert seen == {"", "no_progress"}
    env.reset(4)
    gate = envs.make_gate(env)
    action = env.executed_action.copy()
    action[15] = 1.0
    seen = set()
    for _ in range(40):
        env.step(action)
        seen.add(gate.check())
    assert "empty_grasp" in seen
    env.reset(4)
    gate, expert = envs.make_gate(env), envs.make_expert(env)
    expert.reset()
    while True:
        env.step(expert.act())
        assert gate.check() == ""
        held = env.task.situation.held[0]
        if held and env.task.situation.vertices[held[0], 2] > env.task.config.table_height_m + 0.045:
            break
    high = envs.make_gate(env, GateConfig(dropped_m=0.03))
    high.check()
    action = env.executed_action.copy()
    action[14:] = 0.0
    env.step(action)
    assert high.check() == "dropped"


def laid(shirt: Shirt, shape: np.ndarray) -> np.ndarray:
    """A shape [V, 2] of the shirt on the middle of the table [V, 3]."""
    config = LaundryConfig()
    return np.column_stack([shape + config.work_m, np.full(len(shape), config.table_height_m)])


def test_a_seam_that_pulls_do_not_straighten_is_laid_out_anew(env):
    config, shirt = env.task.config, env.task.config.shirt
    env.reset(1)
    folded_over = shirt.rest.copy()
    folded_over[shirt.rest[:, 1] > shirt.rest[shirt.hems[0], 1] - 1e-9, 1] -= 2 * config.cell_m
    situation = dataclasses.replace(env.task.situation, vertices=laid(shirt, folded_over))
    pulled = plan(config, situation, env.task.goal)
    laid_out = plan(config, situation, env.task.goal, in_vain=True)
    assert pulled is not None
    assert laid_out is not None
    assert (pulled.name, laid_out.name) == ("pull", "lay_out")
    assert laid_out.vertices == shirt.tops


def test_every_layer_is_taken_where_a_corner_stands_up():
    shirt = LaundryConfig().shirt
    packet, (shoulder, hem) = laid(shirt, shirt.folded), (shirt.shoulders[0], shirt.hems[0])
    for raised_m in (0.0, 0.024):
        packet[shoulder, 2] += raised_m
        over = packet[shoulder].copy()
        over[2] = tip_height(packet[shoulder], packet, deep=True)
        assert hem in vertices_in_reach(over, packet, shirt)
        over[2] = tip_height(packet[shoulder], packet, deep=False)
        assert len(vertices_in_reach(over, packet, shirt)) == 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_expert_on_two_hundred_seeds(env):
    outcomes, alarms, seconds = [], 0, []
    for seed in range(10_000, 10_200):
        alarms += bool(run(env, seed, style_seed=seed)[0])
        outcomes.append(env.success())
        seconds.append(env.time_s)
    print(f"success {np.mean(outcomes):.3f}, {np.mean(seconds):.1f} s, alarms in {alarms}")
    assert np.mean(outcomes) >= 0.95
    assert alarms / 200 < 0.1
