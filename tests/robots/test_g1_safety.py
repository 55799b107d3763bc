"""Limits by hand-computed numbers; a body whose postures are judged by rule, and the real model."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.g1.kinematics import load_kinematics
from sop_jax.robots.g1.body_model import BodyModel, Reach
from sop_jax.robots.g1.config import G1RobotConfig, LimitsConfig, PostureConfig
from sop_jax.robots.g1.safety import SafetyFilter
from sop_jax.robots.g1.safety_log import SafetyLog
from sop_jax.specs.metrics import MemoryMetrics

PERIOD_NS = 33_333_333
PERIOD_S = PERIOD_NS / 1e9
FREE = LimitsConfig(soft_start_s=0.0)
HOME = np.r_[load_kinematics().home.left_arm_rad, load_kinematics().home.right_arm_rad]


class Rule:
    """A body model of one number: joint 1 beyond 0.05 is too near, joint 8 beyond 0.05 is outside."""

    def examine(self, arms):
        return Reach(0.06 - max(0.0, arms[0]), "rule", max(0.0, arms[7] - 0.05))


class Anywhere:
    def examine(self, arms):
        return Reach(1.0, "", 0.0)


def make_filter(limits=FREE, body=None, measured=None, **changes):
    config = G1RobotConfig(limits=limits, **changes)
    made = SafetyFilter(config, body or Anywhere())
    made.reset(np.zeros(16) if measured is None else measured, 0)
    return made


def kinds(verdict):
    return [breach.kind for breach in verdict.breaches]


def target(**joints):
    values = np.zeros(16)
    for name, value in joints.items():
        values[int(name[1:])] = value
    return values


def test_a_small_slow_command_passes_as_it_is():
    made = make_filter()
    verdict = made.check(target(j3=0.006, j14=1.0), np.zeros(16), PERIOD_NS)
    assert verdict.breaches == ()
    np.testing.assert_array_equal(verdict.command, target(j3=0.006, j14=1.0))


def test_speed_and_its_growth_are_limited():
    made = make_filter()
    measured = np.zeros(16)
    speeds = []
    for tick in range(1, 20):
        last = made.command
        verdict = made.check(target(j0=3.0), measured, tick * PERIOD_NS)
        speeds.append((verdict.command[0] - last[0]) / PERIOD_S)
        measured = verdict.command
        assert kinds(verdict) == ["speed", "acceleration"] if tick < 15 else ["speed"]
    np.testing.assert_allclose(speeds[:3], [0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(speeds[15:], 3.0, atol=1e-6)


def test_slowing_down_is_not_limited_but_turning_round_is():
    made = make_filter()
    measured = np.zeros(16)
    for tick in range(1, 11):
        measured = made.check(target(j0=3.0), measured, tick * PERIOD_NS).command
    assert made.check(measured, measured, 11 * PERIOD_NS).breaches == ()
    back = made.check(target(j0=-1.0), measured, 12 * PERIOD_NS)
    assert measured[0] - back.command[0] == pytest.approx(6.0 * PERIOD_S**2, rel=1e-4)


def test_a_command_that_comes_early_may_not_hurry():
    made = make_filter()
    verdict = made.check(target(j0=1.0), np.zeros(16), PERIOD_NS)
    assert verdict.command[0] == pytest.approx(6.0 * PERIOD_S**2, rel=1e-4)
    early = made.check(target(j0=1.0), verdict.command, PERIOD_NS + PERIOD_NS // 2)
    grown = 6.0 * PERIOD_S + 6.0 * PERIOD_S / 2
    assert early.command[0] - verdict.command[0] == pytest.approx(grown * PERIOD_S / 2, rel=1e-4)


def test_the_step_from_the_measured_joint_is_the_last_word():
    made = make_filter(dataclasses.replace(FREE, max_acceleration=1e6, max_speed=1e4))
    verdict = made.check(target(j0=1.0, j9=-1.0), np.zeros(16), PERIOD_NS)
    np.testing.assert_allclose(verdict.command[[0, 9]], [0.2618, -0.2618])
    assert kinds(verdict) == ["step"]
    pushed = made.check(target(j0=0.2618), np.full(16, -0.1), 2 * PERIOD_NS)
    assert pushed.command[0] == pytest.approx(0.1618)


def test_joint_limits_and_names_of_joints():
    made = make_filter(dataclasses.replace(FREE, max_acceleration=1e6, max_speed=1e4), measured=target(j8=2.0))
    verdict = made.check(target(j8=2.5, j15=1.4), target(j8=2.0), PERIOD_NS)
    assert verdict.command[8] == pytest.approx(2.09)
    assert verdict.command[15] == 1.0
    (breach,) = verdict.breaches
    assert (breach.kind, breach.where) == ("joint_limit", "right_joint2")
    assert breach.amount == pytest.approx(0.41)


def test_nan_becomes_a_hold():
    made = make_filter(measured=target(j0=0.3))
    verdict = made.check(np.full(16, np.nan), target(j0=0.3), PERIOD_NS)
    assert kinds(verdict) == ["not_finite"]
    np.testing.assert_array_equal(verdict.command, target(j0=0.3))
    with pytest.raises(ValueError, match="16 values"):
        made.check(np.zeros(14), np.zeros(16), 2 * PERIOD_NS)


def test_an_arm_that_is_not_ours_stays():
    made = make_filter(arms=("right",), measured=target(j0=0.3, j14=0.5))
    verdict = made.check(np.full(16, 0.005), target(j0=0.3, j14=0.5), PERIOD_NS)
    np.testing.assert_array_equal(verdict.command[:7], target(j0=0.3)[:7])
    assert verdict.command[14] == 0.5
    np.testing.assert_array_equal(verdict.command[7:14], np.full(7, 0.005))
    assert verdict.command[15] == 0.005


def test_soft_start_raises_the_speed_and_is_no_breach():
    made = make_filter(LimitsConfig(soft_start_s=1.0, soft_start_share=0.2, max_speed=0.1, max_acceleration=100.0))
    first = made.check(target(j0=0.1 * PERIOD_S), np.zeros(16), 0)
    assert first.breaches == ()
    assert first.command[0] == pytest.approx(0.02 * PERIOD_S, rel=1e-4)
    half = made.check(first.command + target(j0=0.1 * PERIOD_S), first.command, 500_000_000)
    assert half.command[0] - first.command[0] == pytest.approx(0.06 * PERIOD_S, rel=1e-4)
    late = made.check(half.command + target(j0=0.1 * PERIOD_S), half.command, 1_000_000_000)
    assert late.command[0] - half.command[0] == pytest.approx(0.1 * PERIOD_S, rel=1e-6)
    made.rest(2_000_000_000)
    again = made.check(late.command + target(j0=0.1 * PERIOD_S), late.command, 2_000_000_000)
    assert again.command[0] - late.command[0] == pytest.approx(0.02 * PERIOD_S, rel=1e-4)


def test_after_a_hold_speed_grows_from_nothing():
    made = make_filter()
    measured = np.zeros(16)
    for tick in range(1, 11):
        measured = made.check(target(j0=3.0), measured, tick * PERIOD_NS).command
    made.rest(10 * PERIOD_NS)
    again = made.check(target(j0=3.0), measured, 11 * PERIOD_NS)
    assert again.command[0] - measured[0] == pytest.approx(6.0 * PERIOD_S**2, rel=1e-4)


LOOSE = dataclasses.replace(FREE, max_acceleration=1e6, max_speed=1e4)


def test_a_command_into_the_body_is_held_and_the_other_arm_goes_on():
    made = make_filter(LOOSE, Rule())
    verdict = made.check(target(j0=0.055, j8=0.02, j14=1.0), np.zeros(16), PERIOD_NS)
    (breach,) = verdict.breaches
    assert (breach.kind, breach.where) == ("self_collision", "rule")
    assert breach.amount == pytest.approx(0.005)
    np.testing.assert_array_equal(verdict.command, target(j8=0.02))
    both = made.check(target(j0=0.055, j7=0.06), verdict.command, 2 * PERIOD_NS)
    np.testing.assert_array_equal(both.command, verdict.command)


def test_the_workspace_is_kept():
    made = make_filter(LOOSE, Rule())
    verdict = made.check(target(j0=0.01, j7=0.06), np.zeros(16), PERIOD_NS)
    assert kinds(verdict) == ["workspace"]
    np.testing.assert_array_equal(verdict.command, target(j0=0.01))


def test_out_of_a_forbidden_place_the_way_out_is_open_and_the_way_in_is_not():
    start = target(j7=0.2)
    made = make_filter(LOOSE, Rule(), measured=start)
    assert kinds(made.check(target(j7=0.21), start, PERIOD_NS)) == ["workspace"]
    verdict = made.check(target(j7=0.1), start, 2 * PERIOD_NS)
    assert verdict.breaches == ()
    assert verdict.command[7] == 0.1


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-10, 10), min_size=16, max_size=16), min_size=1, max_size=8), st.integers(0, 5))
def test_no_command_passes_a_limit_whatever_is_asked_for(targets, lag):
    made = make_filter(LimitsConfig(max_step_rad=0.05))
    history = [np.zeros(16)]
    for tick, values in enumerate(targets, 1):
        measured = history[max(0, len(history) - 1 - lag)]
        command = made.check(np.array(values), measured, tick * PERIOD_NS).command
        assert np.all(np.abs(command[:14] - measured[:14]) <= 0.05 + 1e-12)
        assert np.all(command <= np.array(made._high))
        assert np.all(command >= np.array(made._low))
        if lag == 0:
            assert np.all(np.abs(command[:14] - history[-1][:14]) <= 3.0 * PERIOD_S + 1e-9)
        history.append(command)


@pytest.fixture(scope="module")
def body():
    return BodyModel(PostureConfig(), LimitsConfig())


def test_the_home_posture_and_the_arms_stretched_out_are_clear(body):
    home = body.examine(HOME)
    assert home.clearance_m > 0.01
    assert home.outside_m == 0.0
    stretched = body.examine(np.zeros(14))
    assert stretched.clearance_m > 0.01


# Left arms that inverse kinematics found for the right hand's place, and for a place inside the robot's column.
AT_THE_RIGHT_HAND = (-1.204, 1.353, 0.65, -1.48, 1.213, 0.997, -0.416)
IN_THE_COLUMN = (1.295, 1.011, 0.477, -1.48, 0.474, 1.74, 2.14)


@pytest.mark.parametrize(
    ("left", "nearest"),
    [(AT_THE_RIGHT_HAND, "left_finger_1 and right_finger"), (IN_THE_COLUMN, "base_link and gripper_l")],
)
def test_hands_that_meet_and_hands_in_the_body_are_seen(body, left, nearest):
    reach = body.examine(np.r_[left, HOME[7:]])
    assert reach.clearance_m < 0.0
    assert reach.nearest.startswith(nearest)


def test_the_box_around_the_tools_is_measured_in_metres():
    # Published home pose: both tool points 0.624 m in front of the robot, 0.16 m to its sides, 0.786 m high.
    tight = LimitsConfig(workspace_high_m=(0.5, 1.1, 2.0))
    assert BodyModel(PostureConfig(), tight).examine(HOME).outside_m == pytest.approx(0.124, abs=0.02)


@pytest.mark.parametrize("left", [AT_THE_RIGHT_HAND, IN_THE_COLUMN])
def test_a_real_collision_is_never_sent(body, left):
    """The left arm goes for the robot itself, tick by tick: the command stops before it touches anything."""
    made = make_filter(FREE, body, measured=np.r_[HOME, 0, 0])
    goal = np.r_[left, HOME[7:], 0, 0]
    measured, breaches = np.r_[HOME, 0, 0], []
    for tick in range(1, 90):
        verdict = made.check(goal, measured, tick * PERIOD_NS)
        breaches += kinds(verdict)
        measured = verdict.command
        assert body.examine(measured[:14]).clearance_m >= 0.01 - 1e-9
    assert "self_collision" in breaches


def test_a_breach_that_lasts_is_one_event_and_is_counted():
    metrics = MemoryMetrics()
    log = SafetyLog(metrics)
    log.reset(77)
    made = make_filter()
    for tick, asked in enumerate((3.0, 3.0, 0.0, 3.0), 1):
        verdict = made.check(target(j0=asked) if asked else made.command, made.command, tick * PERIOD_NS)
        log.note(tick, verdict.breaches)
    speeds = [event for event in metrics.events if event["kind"] == "speed"]
    assert [(event["event"], event["frame"], event["episode_started_ns"]) for event in speeds] == [
        ("g1_breach", 1, 77),
        ("g1_breach", 4, 77),
    ]
    assert speeds[0]["where"] == "left_joint1"
    assert log.counts == {"speed": 3, "acceleration": 3}
