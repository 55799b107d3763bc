"""The loop itself: chunks, images, labels, ends, pacing."""

import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors.episode import (
    EmptyEpisodeError,
    EpisodeHeader,
    RecordingConfig,
    run_episode,
    run_trial,
    was_interrupted,
)
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import inference_seed
from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.verify import verify_bytes
from sop_jax.robots.fake import FakeExpert, FakeGate, FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import NO_POLICY, EpisodeEnd, Outcome, Source

EPISODE_ID = "fake-1.00000000000000000001.000000"
HEADER = EpisodeHeader(EPISODE_ID, seed=5, world="fake/1", weights_base="base", norm_stats="norm")
FAST = RolloutConfig()


def short_robot(num_frames, **settings):
    return FakeRobot(FakeRobotConfig(time_limit_frames=num_frames, **settings), ManualClock(10**9))


def play(robot, policy, config=FAST, supervisor=None, **options):
    return run_episode(robot, policy, supervisor, HEADER, config, ManualClock(), **options)


def test_the_episode_carries_header_robot_and_policy():
    episode = play(short_robot(7), FakePolicy(version=3))
    manifest = episode.manifest
    assert (manifest.episode_id, manifest.robot_id, manifest.task) == (EPISODE_ID, "fake-1", "fake_task")
    assert (manifest.seed, manifest.world, manifest.weights_base, manifest.norm_stats) == (5, "fake/1", "base", "norm")
    assert (manifest.policy_version, manifest.source) == (3, Source.ONLINE)
    assert (manifest.outcome, manifest.failure_kind) == (Outcome.TIMEOUT, "timeout")
    assert manifest.num_frames == 7
    assert manifest.started_ns == 10**9
    assert set(episode.arrays.policy_version.tolist()) == {3}


@given(num_frames=st.integers(1, 40), execute_steps=st.integers(1, 8), stride=st.integers(1, 9), ask=st.integers(0, 45))
@settings(max_examples=40)
def test_images_are_rendered_only_when_kept_or_inferred_on(num_frames, execute_steps, stride, ask):
    robot = short_robot(num_frames)
    policy = FakePolicy(horizon=8)
    supervisor = TimelineSupervisor(robot, [ask], 5, action=np.zeros(16))
    config = RolloutConfig(execute_steps=execute_steps, reaction_delay_s=0.1)
    episode = play(robot, policy, config, supervisor, recording=RecordingConfig(stride))

    inferred = {round((time_ns - 10**9) * 30 / 1e9) for time_ns in policy.times_ns}
    kept = set(range(0, episode.manifest.num_frames, stride))
    assert set(episode.arrays.image_frames.tolist()) == kept
    assert len(episode.jpegs) == len(kept)
    assert robot.num_renders == len(kept | inferred)
    assert not any(episode.arrays.intervention[frame] for frame in inferred)
    verify_bytes(pack(episode), episode_path(EPISODE_ID), spec=robot.spec, decode_all_images=True)


@pytest.mark.parametrize(("execute_steps", "inferred"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (4, [0, 4])])
def test_each_chunk_is_executed_for_execute_steps_ticks(execute_steps, inferred):
    policy = FakePolicy(horizon=4)
    chunks = []
    infer = policy.infer

    def numbered(observation, seed):
        chunk = infer(observation, seed)
        chunk[:, 0] = len(chunks) / 10 + np.arange(4) / 100
        chunks.append(chunk)
        return chunk

    policy.infer = numbered
    episode = play(short_robot(7), policy, RolloutConfig(execute_steps=execute_steps))
    expected = [number // execute_steps / 10 + number % execute_steps / 100 for number in range(7)]
    np.testing.assert_allclose(episode.arrays.action[:, 0], expected, atol=1e-6)
    assert policy.seeds == [inference_seed(5, frame) for frame in inferred]


def test_an_episode_is_a_pure_function_of_version_robot_seed_and_world():
    def once(seed):
        robot = short_robot(30)
        header = EpisodeHeader(EPISODE_ID, seed)
        supervisor = ScriptedSupervisor(robot, FakeExpert(robot), FakeGate(robot))
        return pack(run_episode(robot, FakePolicy(noise=0.01), supervisor, header, FAST, ManualClock()))

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_the_executed_action_is_recorded_not_the_wish():
    policy = FakePolicy(lambda observation: np.full(16, 99.0, np.float32))
    robot = short_robot(3)
    episode = play(robot, policy)
    np.testing.assert_array_equal(episode.arrays.action[0], np.array(robot.spec.action_high, np.float32))


def test_a_policy_that_reads_the_images_succeeds():
    episode = play(short_robot(120), FakePolicy(reads_goal))
    assert episode.manifest.outcome is Outcome.SUCCESS
    assert episode.manifest.failure_kind == ""


def test_a_broken_robot_is_an_error():
    manifest = play(short_robot(50, fault_at_frame=4), FakePolicy()).manifest
    assert (manifest.outcome, manifest.failure_kind, manifest.num_frames) == (Outcome.ERROR, "robot_fault", 4)


def test_a_nan_never_reaches_the_robot():
    policy = FakePolicy(lambda observation: observation.state + (np.nan if observation.time_ns > 10**9 else 0))
    manifest = play(short_robot(50), policy, RolloutConfig(execute_steps=4)).manifest
    assert (manifest.outcome, manifest.failure_kind, manifest.num_frames) == (Outcome.ERROR, "non_finite_action", 4)


def test_max_frames_ends_it():
    manifest = play(short_robot(50), FakePolicy(), RolloutConfig(max_frames=9)).manifest
    assert (manifest.outcome, manifest.failure_kind, manifest.num_frames) == (Outcome.TIMEOUT, "max_frames", 9)


def test_stop_keeps_what_was_recorded():
    robot = short_robot(50)
    episode = play(robot, FakePolicy(), should_stop=lambda: robot.frame >= 5)
    assert (episode.manifest.outcome, episode.manifest.failure_kind) == (Outcome.ABORTED, "stopped")
    assert episode.manifest.num_frames == 5
    assert not was_interrupted(episode)


def press_ctrl_c_at(robot, frame):
    apply = robot.apply

    def pressing(action):
        if robot.frame == frame:
            os.kill(os.getpid(), signal.SIGINT)
        return apply(action)

    robot.apply = pressing
    return robot


def test_ctrl_c_ends_it_after_a_whole_tick():
    before = signal.getsignal(signal.SIGINT)
    episode = play(press_ctrl_c_at(short_robot(50), 5), FakePolicy())
    assert (episode.manifest.outcome, episode.manifest.failure_kind) == (Outcome.ABORTED, "keyboard_interrupt")
    assert episode.manifest.num_frames == 6
    assert was_interrupted(episode)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_from_the_robots_own_code_is_kept_too():
    robot = short_robot(50)
    robot.check_end = lambda: (_ for _ in ()).throw(KeyboardInterrupt) if robot.frame == 3 else None
    assert play(robot, FakePolicy()).manifest.num_frames == 3


def test_an_episode_without_frames_is_none():
    with pytest.raises(EmptyEpisodeError, match="robot_fault"):
        play(short_robot(50, fault_at_frame=0), FakePolicy())


def test_the_policy_may_not_change_on_the_way():
    policy = FakePolicy()
    infer = policy.infer

    def swapping(observation, seed):
        chunk = infer(observation, seed)
        if len(policy.seeds) == 2:
            policy.version = 4
        return chunk

    policy.infer = swapping
    with pytest.raises(RuntimeError, match="from version 0 to 4 at frame 8"):
        play(short_robot(50), policy)


def test_chunks_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[H, A\] = \(16, 16\), got \(16, 3\)"):
        play(short_robot(9), FakePolicy(lambda observation: np.zeros(3)))
    with pytest.raises(ConfigError, match="horizon 4, got 5"):
        play(short_robot(9), FakePolicy(horizon=4), RolloutConfig(execute_steps=5))


@pytest.mark.parametrize("wrong", [{"execute_steps": 0}, {"max_frames": 0}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RolloutConfig(**wrong)
    with pytest.raises(ConfigError, match="image_stride"):
        RecordingConfig(image_stride=0)
    with pytest.raises(ConfigError, match="jpeg_quality"):
        RecordingConfig(jpeg_quality=101)


class SlowRobot(FakeRobot):
    """Takes `costs_s[frame]` of the clock's time to apply an action."""

    def __init__(self, costs_s, clock):
        super().__init__(FakeRobotConfig(time_limit_frames=len(costs_s)), clock)
        self._costs_s = costs_s
        self.clock = clock
        self.applied_s = []

    def apply(self, action):
        self.applied_s.append(self.clock.now_ns() / 1e9)
        self.clock.sleep_s(self._costs_s[self.frame])
        return super().apply(action)


def test_a_paced_run_keeps_the_rate_and_reports_what_was_late():
    clock, metrics = ManualClock(), MemoryMetrics()
    robot = SlowRobot([0.01, 0.01, 0.05, 0.01, 0.01], clock)
    run_episode(robot, FakePolicy(), None, HEADER, RolloutConfig(realtime=True), clock, metrics=metrics)
    period = 1 / 30
    np.testing.assert_allclose(robot.applied_s, [0, period, 2 * period, 2 * period + 0.05, 4 * period], atol=1e-6)
    (event,) = metrics.events
    assert event["num_late_ticks"] == 1
    assert event["max_late_s"] == pytest.approx(0.05 - period, abs=1e-6)
    assert event["max_tick_s"] == pytest.approx(0.05)
    assert event["mean_tick_s"] == pytest.approx(0.018)
    assert event["wall_s"] == pytest.approx(5 * period, abs=1e-6)
    assert event["duration_s"] == pytest.approx(5 / 30)


def test_an_unpaced_run_never_waits():
    clock = ManualClock()
    play(SlowRobot([0.0] * 9, clock), FakePolicy())
    assert clock.now_ns() == 0


def test_without_a_policy_the_expert_demonstrates():
    robot = short_robot(120)
    episode = play(robot, None, expert=FakeExpert(robot))
    assert episode.manifest.outcome is Outcome.SUCCESS
    assert episode.manifest.policy_version == NO_POLICY
    assert episode.manifest.takeovers == ()
    assert episode.arrays.intervention.all()
    assert set(episode.arrays.policy_version.tolist()) == {NO_POLICY}
    verify_bytes(pack(episode), episode_path(EPISODE_ID), spec=robot.spec)


def test_somebody_must_act():
    with pytest.raises(ConfigError, match="nobody acts"):
        play(short_robot(9), None)


def test_a_trial_is_the_same_episode_unrecorded():
    robot, policy = short_robot(120), FakePolicy(reads_goal, noise=0.002)
    episode = play(robot, policy)
    rendered, seeds = robot.num_renders, list(policy.seeds)
    policy.seeds.clear()
    result = run_trial(robot, policy, FAST, ManualClock(), seed=5)
    assert (result.outcome, result.failure_kind) == (episode.manifest.outcome, "")
    assert result.success
    assert result.num_frames == episode.manifest.num_frames
    assert result.duration_s == pytest.approx(result.num_frames / 30)
    assert policy.seeds == seeds
    assert robot.num_renders - rendered == len(seeds)


def test_an_expert_trial_renders_nothing():
    robot = short_robot(120)
    result = run_trial(robot, None, FAST, ManualClock(), seed=5, expert=FakeExpert(robot))
    assert result.success
    assert robot.num_renders == 0


def test_ctrl_c_in_a_trial_is_raised():
    with pytest.raises(KeyboardInterrupt):
        run_trial(press_ctrl_c_at(short_robot(50), 2), FakePolicy(), FAST, ManualClock(), seed=5)


def test_the_end_of_a_trial_says_why():
    result = run_trial(short_robot(4), FakePolicy(), FAST, ManualClock(), seed=5)
    assert EpisodeEnd(result.outcome, result.failure_kind) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    assert not result.success
