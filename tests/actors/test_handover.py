"""No jump when the hands change: a device that stands elsewhere, a fresh chunk that begins elsewhere, grippers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.handover import Handover, HandoverConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.evaluate import Candidate, WorkerTask
from sop_jax.evaluation.world import WorldConfig
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.robots.two_arm import two_arm_spec
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError

HEADER = EpisodeHeader("fake-1.00000000000000000001.000000", seed=0)
SPEC = two_arm_spec("fake", 16)
ARMS, GRIPPERS = slice(0, 14), slice(14, 16)
TAKEOVER, HANDBACK, NUM_FRAMES = 10, 30, 60
EASED = HandoverConfig(blend_s=0.5, max_step_rad=0.05)


def play(handover, device, policy=None, *, delay=0, num_frames=NUM_FRAMES, takeover=TAKEOVER, max_step=2.0, hold=None):
    """An episode in which somebody whose device gives `device` acts on frames 10 to 29. The robot goes where it's told."""
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=num_frames, max_step=max_step, tolerance=1e-6), ManualClock())
    supervisor = TimelineSupervisor(robot, [takeover], hold or HANDBACK - TAKEOVER, action=device)
    config = RolloutConfig(execute_steps=4, reaction_delay_s=0.0, inference_delay_frames=delay, handover=handover)
    return run_episode(robot, policy or FakePolicy(), supervisor, HEADER, config, ManualClock())


def device_off_by(rad, gripper=1.0):
    """Half a radian beside the pose that the robot starts with and a policy that stands still keeps."""
    robot = FakeRobot(FakeRobotConfig())
    robot.reset(HEADER.seed)
    action = robot.observe(images=False).state + np.float32(rad)
    action[GRIPPERS] = gripper
    return action


def steps_of(episode):
    return np.abs(np.diff(episode.arrays.action[:, ARMS], axis=0)).max(axis=1)


def test_a_device_half_a_radian_off_makes_the_robot_jump_without_easing():
    steps = steps_of(play(HandoverConfig(), device_off_by(0.5)))
    assert steps[TAKEOVER - 1] == pytest.approx(0.5, abs=1e-6)


def test_a_device_half_a_radian_off_makes_no_jump_with_easing():
    episode = play(EASED, device_off_by(0.5))
    steps, actions = steps_of(episode), episode.arrays.action
    assert steps.max() <= 0.05 + 1e-6
    # The first action is the present pose but for a fifteenth of the way, or the largest step if that is less.
    np.testing.assert_allclose(actions[TAKEOVER, ARMS] - actions[TAKEOVER - 1, ARMS], 0.5 / 15, atol=1e-6)
    # The device is caught up with after half a second, and followed exactly from there on.
    assert (actions[TAKEOVER + 15 : HANDBACK, ARMS] == device_off_by(0.5)[ARMS]).all()


def test_what_is_recorded_is_the_eased_command_and_the_human_is_said_to_act():
    episode = play(EASED, device_off_by(0.5))
    np.testing.assert_array_equal(np.flatnonzero(episode.arrays.intervention), np.arange(TAKEOVER, HANDBACK))
    # The robot reaches its target within a tick, so the state of a frame is the command of the one before.
    np.testing.assert_allclose(episode.arrays.state[1:], episode.arrays.action[:-1], atol=1e-6)


def test_every_step_by_hand():
    handover = Handover(HandoverConfig(blend_s=4 / 30, max_step_rad=0.25), SPEC)
    state, target = np.zeros(16, np.float32), np.ones(16, np.float32)
    handover.begin()
    position, found = state, []
    for _ in range(6):
        position = handover.ease(target, position)
        handover.end_tick(position)
        found.append(float(position[0]))
    # A quarter of 1; half of 0.75 is too much; three quarters of 0.5 is too much; then a quarter is missing.
    np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    moving = np.full(16, 9.0, np.float32)
    assert handover.ease(moving, position) is moving  # It's over: nothing holds the new hand back.


def test_the_share_grows_evenly():
    handover = Handover(HandoverConfig(blend_s=4 / 30, max_step_rad=9.0), SPEC)
    handover.end_tick(np.full(16, 0.1, np.float32))  # Executed last; where the robot is measured doesn't matter then.
    handover.begin()
    position, found = np.zeros(16, np.float32), []
    for _ in range(4):
        position = handover.ease(np.full(16, 1.1, np.float32), np.zeros(16, np.float32))
        handover.end_tick(position)
        found.append(float(position[0]))
    np.testing.assert_allclose(found, [0.35, 0.725, 1.00625, 1.1], rtol=1e-6)


def test_grippers_are_not_eased():
    episode = play(EASED, device_off_by(0.5, gripper=1.0))
    assert (episode.arrays.action[TAKEOVER:HANDBACK, GRIPPERS] == 1.0).all()
    assert (episode.arrays.action[:TAKEOVER, GRIPPERS] == 0.0).all()


def test_the_first_takeover_of_all_starts_from_the_measured_pose():
    episode = play(EASED, device_off_by(0.5), takeover=0)
    first = episode.arrays.action[0, ARMS] - episode.arrays.state[0, ARMS]
    np.testing.assert_allclose(first, 0.5 / 15, atol=1e-6)


@pytest.mark.parametrize("delay", [0, 3])
def test_the_handback_looks_afresh_and_starts_from_the_present_pose(delay):
    """A policy that wants to be half a radian away from wherever it looks."""

    def pull(observation):
        action = observation.state.copy()
        action[ARMS] += 0.5 * (observation.time_ns > 10**9 / 30 * HANDBACK - 1)
        return action

    device, policy = device_off_by(0.0), FakePolicy(pull)
    jumping = play(HandoverConfig(), device, FakePolicy(pull), delay=delay)
    eased = play(EASED, device, policy, delay=delay)
    first = HANDBACK + delay  # Until its chunk is there, the policy holds what it was left.
    assert steps_of(jumping)[first - 1] == pytest.approx(0.5, abs=1e-6)
    looks = [round(time_ns * 30 / 1e9) for time_ns in policy.times_ns]
    assert not [frame for frame in looks if TAKEOVER <= frame < HANDBACK]
    assert HANDBACK in looks
    actions = eased.arrays.action[:, ARMS]
    np.testing.assert_allclose(actions[HANDBACK:first], actions[HANDBACK - 1 :][:delay], atol=0)
    np.testing.assert_allclose(actions[first] - actions[first - 1], 0.5 / 15, atol=1e-6)
    assert steps_of(eased)[: first + 14].max() <= 0.05 + 1e-6


def test_a_policy_that_holds_after_the_handback_holds_the_eased_command_not_the_device():
    """The human gives back while the robot is still on its way to the device."""
    episode = play(EASED, device_off_by(0.5), delay=3, hold=4)
    actions = episode.arrays.action[:, ARMS]
    np.testing.assert_array_equal(actions[14:17], np.tile(actions[13], (3, 1)))
    assert np.abs(actions[13] - device_off_by(0.5)[ARMS]).max() > 0.2
    assert steps_of(episode).max() <= 0.05 + 1e-6


def test_without_easing_nothing_changes():
    off = play(HandoverConfig(), device_off_by(0.5))
    assert (off.arrays.action[TAKEOVER:HANDBACK, ARMS] == device_off_by(0.5)[ARMS]).all()
    assert RolloutConfig().handover == HandoverConfig(blend_s=0.0)


@given(
    blend_s=st.floats(0.03, 1.0),
    max_step=st.floats(0.005, 0.2),
    device=st.floats(-1.0, 1.0),
    hold=st.integers(1, 40),
    delay=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_no_step_of_a_handover_is_larger_than_the_bound(blend_s, max_step, device, hold, delay, seed):
    policy = FakePolicy(lambda observation: np.random.default_rng((seed, observation.time_ns)).uniform(-1, 1, 16))
    handover = HandoverConfig(blend_s, max_step)
    episode = play(handover, np.full(16, device), policy, delay=delay, hold=hold)
    steps = steps_of(episode)
    num_eased = max(1, round(blend_s * 30)) - 1
    for edge in (TAKEOVER, min(TAKEOVER + hold + delay, NUM_FRAMES)):
        assert steps[edge - 1 : edge + min(num_eased, hold)].max(initial=0.0) <= max_step + 1e-6


def test_the_setting_travels_to_a_worker():
    task = WorkerTask(Candidate(), (WorldConfig(),), RolloutConfig(handover=HandoverConfig(0.3, 0.1)))
    assert WorkerTask.from_json(task.to_json()) == task
    assert RolloutConfig.from_dict(dataclasses.asdict(task.rollout)) == task.rollout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blend_s": -0.1}, "blend_s must be >= 0, got -0.1"),
        ({"blend_s": float("inf")}, "blend_s must be >= 0, got inf"),
        ({"max_step_rad": 0.0}, "max_step_rad must be positive, got 0.0"),
        ({"max_step_rad": float("nan")}, "max_step_rad must be positive, got nan"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        HandoverConfig(**wrong)
