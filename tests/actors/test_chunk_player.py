"""Chunks beside the ticks: what is executed on which tick, whatever the delay."""

import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors.chunk_player import ChunkPlayer, ChunkStats
from sop_jax.actors.chunk_queue import ChunkQueue
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.episode import EpisodeHeader, run_episode, run_trial
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.inference import DelayedInference, ThreadedInference
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import inference_seed
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import ConfigError, InferenceTimeoutError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Observation, Outcome

HEADER = EpisodeHeader("fake-1.00000000000000000001.000000", seed=5)


class CountingPolicy(FakePolicy):
    """The chunk of frame f is f + 0.00, f + 0.01, ... in every dimension, over 100."""

    def infer(self, observation, seed, prefix=None):
        super().infer(observation, seed, prefix)
        frame = observation.time_ns / 1e9 * 30
        return np.repeat((frame + np.arange(self.horizon) / 100)[:, None] / 100, 16, axis=1).astype(np.float32)


def observe(frame, state=0.0):
    return Observation({}, np.full(16, state, np.float32), "x", round(frame * 1e9 / 30))


def play(player, num_ticks):
    """(frame of the chunk, index in it) of each tick's action, None where the robot held its start pose."""
    played = []
    for frame in range(num_ticks):
        player.begin_tick(frame)
        value = round(float(player.act(observe(frame))[0]) * 1e4)
        played.append(divmod(value, 100))
    return played


def test_without_delay_each_chunk_is_executed_from_its_first_action():
    player = ChunkPlayer(CountingPolicy(horizon=6), 0, 16, execute_steps=3)
    assert play(player, 7) == [(0, 0), (0, 1), (0, 2), (3, 0), (3, 1), (3, 2), (6, 0)]
    assert player.stats == ChunkStats(num_chunks=3, num_held_ticks=0, max_delay_ticks=0)


def test_the_actions_whose_time_has_passed_are_dropped():
    player = ChunkPlayer(CountingPolicy(horizon=6), 0, 16, execute_steps=3, delay_frames=2)
    # Ticks 0 and 1 hold (nothing has moved, so nothing is dropped). Looked at 3, there at 5: two actions have passed.
    held = (0, 0)
    expected = [held, held, (0, 0), (0, 1), (0, 2), (3, 2), (3, 3), (3, 4), (6, 2), (6, 3), (6, 4), (9, 2)]
    assert play(player, 12) == expected
    assert player.stats == ChunkStats(num_chunks=4, num_held_ticks=2, max_delay_ticks=2)


@given(execute_steps=st.integers(1, 8), delay=st.integers(0, 8), num_ticks=st.integers(1, 40))
@settings(max_examples=60)
def test_no_action_is_played_late_or_twice(execute_steps, delay, num_ticks):
    policy = CountingPolicy(horizon=16)
    player = ChunkPlayer(policy, 3, 16, execute_steps, delay)
    played = play(player, num_ticks)
    period = max(execute_steps, delay)
    assert policy.seeds == [inference_seed(3, frame) for frame in range(0, num_ticks, period)]
    first_played = delay  # Of the first chunk; the robot holds until then.
    for frame, (chunk_frame, index) in enumerate(played[first_played:], start=first_played):
        if chunk_frame:  # Every later chunk is where it would be had it been there at once.
            assert index == frame - chunk_frame
            assert index >= delay
        else:
            assert index == frame - delay
    assert player.stats.num_held_ticks == min(delay, num_ticks)


def test_a_held_robot_stays_at_its_last_target():
    policy, gates = CountingPolicy(horizon=2), [threading.Event(), threading.Event()]
    infer = policy.infer

    def slow(observation, seed):
        assert gates[len(policy.seeds)].wait(10)
        return infer(observation, seed)

    policy.infer = slow
    player = ChunkPlayer(policy, 0, 16, execute_steps=2, delay_frames=None)
    player.begin_tick(0)
    np.testing.assert_array_equal(player.act(observe(0, state=0.25)), np.full(16, 0.25, np.float32))
    gates[0].set()
    wait_for(player)
    actions = []
    for frame in range(1, 6):
        player.begin_tick(frame)
        actions.append(round(float(player.act(observe(frame, state=0.5))[0]) * 1e4))
    # Two actions of frame 0 are there; the inference of tick 2 is not.
    assert actions == [0, 1, 1, 1, 1]
    assert player.stats == ChunkStats(num_chunks=1, num_held_ticks=4, max_delay_ticks=1)
    gates[1].set()
    wait_for(player)
    player.begin_tick(6)
    # Looked at 2, when one action was left; that one has passed, the held ticks haven't.
    assert round(float(player.act(observe(6))[0]) * 1e4) == 201
    assert player.stats.max_delay_ticks == 4
    player.close()


def wait_for(player):
    """Until the inference under way is done."""
    player._inference._future.result(10)


def test_a_threaded_inference_reports_its_recent_longest_time():
    inference = ThreadedInference()
    assert inference.delay_ticks == 0
    for started, taken in ((0, 3), (5, 6)):
        inference.start(started, lambda: np.zeros(1))
        assert inference.is_busy
        inference._future.result(10)
        assert inference.take(taken) is not None
        assert not inference.is_busy
    assert (inference.delay_ticks, inference.max_delay_ticks) == (3, 3)
    for _ in range(10):
        inference.start(0, lambda: np.zeros(1))
        inference._future.result(10)
        inference.take(2)
    assert (inference.delay_ticks, inference.max_delay_ticks) == (2, 3)  # The 3 is too long ago.
    inference.close()


def test_a_dropped_computation_never_arrives():
    threaded, started, release = ThreadedInference(), threading.Event(), threading.Event()

    def slow():
        started.set()
        assert release.wait(10)
        return np.array([1.0])

    threaded.start(0, slow)
    assert started.wait(10)
    threaded.drop()
    assert not threaded.is_busy
    threaded.start(1, lambda: np.array([2.0]))
    release.set()
    threaded._future.result(10)
    assert threaded.take(2) == np.array([2.0])
    threaded.close()
    delayed = DelayedInference(3)
    delayed.start(0, lambda: np.array([1.0]))
    delayed.drop()
    assert delayed.take(3) is None


@pytest.mark.parametrize("delay", [2, None])
def test_what_fails_in_an_inference_reaches_the_episode(delay):
    policy = FakePolicy()

    def broken(observation, seed):
        raise InferenceTimeoutError("no chunk after 5 s")

    policy.infer = broken
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=10**6), ManualClock())
    config = RolloutConfig(inference_delay_frames=delay)
    result = run_trial(robot, policy, config, ManualClock(), seed=5)
    assert (result.outcome, result.failure_kind) == (Outcome.ERROR, "inference_timeout")


def test_a_threaded_episode_ends_with_nothing_left_running():
    before = threading.active_count()
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=50), ManualClock())
    metrics, policy = MemoryMetrics(), FakePolicy()
    infer, apply = policy.infer, robot.apply

    def slow(observation, seed):
        while not policy.seeds and robot.frame < 4:
            time.sleep(0.001)
        return infer(observation, seed)

    def unhurried(action):
        time.sleep(0.002)
        return apply(action)

    policy.infer, robot.apply = slow, unhurried
    config = RolloutConfig(inference_delay_frames=None)
    episode = run_episode(robot, policy, None, HEADER, config, ManualClock(), metrics=metrics)
    assert episode.manifest.num_frames == 50
    assert threading.active_count() == before
    (event,) = metrics.events
    assert event["max_inference_ticks"] >= 4
    assert event["num_held_ticks"] >= 4  # The first inference leaves the robot nothing to do.


REAL = RolloutConfig(realtime=True, inference_delay_frames=None, max_inference_s=0.3)


def hang_up(policy, first=0):
    """From call `first` on, `infer` doesn't come back until the event that this returns is set."""
    infer, release, num_calls = policy.infer, threading.Event(), itertools.count()

    def hung(observation, seed):
        if next(num_calls) >= first:
            release.wait(30)
        return infer(observation, seed)

    policy.infer = hung
    return release


@pytest.mark.parametrize("first", [0, 1])
def test_a_policy_that_hangs_ends_the_episode_in_bounded_time(first):
    policy, clock, metrics = FakePolicy(), WallClock(), MemoryMetrics()
    release = hang_up(policy, first)
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=10**6), clock)
    started = time.monotonic()
    try:
        episode = run_episode(robot, policy, None, HEADER, REAL, clock, metrics=metrics)
        assert time.monotonic() - started < 10  # and not the 30 for which it hangs
    finally:
        release.set()
    assert (episode.manifest.outcome, episode.manifest.failure_kind) == (Outcome.ERROR, "inference_timeout")
    # 9 ticks from the look to the end; the second look is taken when the first chunk's 8 ticks are over.
    assert 10 <= episode.manifest.num_frames <= 10 + first * 20


def test_a_hung_inference_does_not_keep_the_process_alive():
    program = (
        "import threading\n"
        "from sop_jax.actors.inference import ThreadedInference\n"
        "inference = ThreadedInference(max_ticks=3, close_s=0.1)\n"
        "inference.start(0, threading.Event().wait)\n"
        "inference.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_inference_has_its_ticks_and_no_more():
    release = threading.Event()
    inference = ThreadedInference(max_ticks=3, close_s=0.1)
    inference.start(5, lambda: np.zeros(1) if release.wait(30) else np.ones(1))
    assert [inference.take(frame) for frame in (6, 7, 8)] == [None] * 3
    with pytest.raises(
        InferenceTimeoutError, match="no chunk 4 ticks after its observation of frame 5, expected within 3"
    ):
        inference.take(9)
    inference.drop()  # Somebody takes over; the next question waits behind the hung one, and is late in its turn.
    inference.start(20, lambda: np.ones(1))
    with pytest.raises(InferenceTimeoutError, match="of frame 20"):
        inference.take(24)
    inference.close()
    release.set()


def test_a_chunk_older_than_its_horizon_is_not_played():
    policy, release = CountingPolicy(horizon=4), threading.Event()
    infer = policy.infer

    def slow(observation, seed):
        assert len(policy.seeds) != 1 or release.wait(10)
        return infer(observation, seed)

    policy.infer = slow
    player = ChunkPlayer(policy, 0, 16, execute_steps=2, delay_frames=None, max_inference_ticks=60)
    played = []
    for frame in range(12):
        if frame == 8:
            release.set()
        if frame in (1, 8, 9):  # The chunks of frames 0, 3 and 8 are done by now.
            wait_for(player)
        player.begin_tick(frame)
        played.append(divmod(round(float(player.act(observe(frame))[0]) * 1e4), 100))
    # Chunk 0 plays until 4, while the second look (at 3) hangs until 8: that chunk is 5 ticks old then, and dropped.
    assert played[1:9] == [(0, 0), (0, 1), (0, 2), (0, 3), *[(0, 3)] * 4]
    assert played[9][0] == 8
    assert player.stats.num_stale == 1
    player.close()


def test_only_a_thread_in_real_time_has_a_deadline():
    assert REAL.max_inference_ticks(30.0) == 9
    assert RolloutConfig(inference_delay_frames=None).max_inference_ticks(30.0) is None
    assert RolloutConfig(realtime=True).max_inference_ticks(30.0) is None


def test_held_ticks_are_counted_in_the_rollouts_metrics():
    robot, metrics = FakeRobot(FakeRobotConfig(time_limit_frames=30), ManualClock()), MemoryMetrics()
    config = RolloutConfig(execute_steps=8, inference_delay_frames=3)
    run_episode(robot, FakePolicy(), None, HEADER, config, ManualClock(), metrics=metrics)
    (event,) = metrics.events
    # Inferences begin at 0, 8, 16, 24 and arrive three ticks later.
    assert (event["num_chunks"], event["num_held_ticks"], event["max_inference_ticks"]) == (4, 3, 3)


def test_a_takeover_drops_the_chunk_and_the_inference_under_way():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=16), ManualClock())
    supervisor = TimelineSupervisor(robot, [5], 3, action=np.full(16, 0.3))
    policy = CountingPolicy(horizon=16)
    config = RolloutConfig(execute_steps=4, inference_delay_frames=2, reaction_delay_s=0.0)
    episode = run_episode(robot, policy, supervisor, HEADER, config, ManualClock())
    first = np.round(episode.arrays.action[:, 0] * 1e4).astype(int).tolist()
    # Looks at 0 and 4; the second chunk would arrive at 6, but the supervisor acts on 5, 6, 7. The handback at 8 looks
    # afresh, and holds the supervisor's last target until its chunk is there.
    assert first[2:5] == [0, 1, 2]
    assert first[5:8] == [3000] * 3
    assert first[8:10] == [3000] * 2
    assert first[10:12] == [800, 801]
    assert [round(time_ns * 30 / 1e9) for time_ns in policy.times_ns] == [0, 4, 8, 12]


def test_a_continuing_rollout_tells_the_policy_what_is_left():
    policy = CountingPolicy(horizon=8)
    player = ChunkPlayer(policy, 0, 16, execute_steps=4, delay_frames=2, continues=True)
    play(player, 11)
    first, second, third = policy.prefixes
    assert first is None
    # At tick 4 two actions of the first chunk are done, six are left; at tick 8 four are left of the second.
    assert (second.num_frozen, second.num_known) == (2, 6)
    np.testing.assert_allclose(second.actions[:6, 0] * 1e4, [2, 3, 4, 5, 6, 7], atol=1e-2)
    assert (third.num_frozen, third.num_known) == (2, 4)
    np.testing.assert_allclose(third.actions[:, 0] * 1e4, [404, 405, 406, 407, 407, 407, 407, 407], atol=1e-2)
    assert second.actions.dtype == np.float32


def test_a_policy_that_continues_its_chunk_jerks_less_at_the_borders():
    """Chunks of a wavering policy: each is off by an amount of its own. Continuing ones blend from one to the next."""

    class Wavering(FakePolicy):
        def infer(self, observation, seed, prefix=None):
            super().infer(observation, seed, prefix)
            offset = np.random.default_rng(seed).normal(0, 0.1)
            chunk = np.full((self.horizon, 16), offset, np.float32)
            if prefix is not None:
                weight = np.linspace(1, 0, self.horizon)[:, None]
                chunk = (weight * prefix.actions + (1 - weight) * chunk).astype(np.float32)
            return chunk

    def largest_jerk(continues):
        player = ChunkPlayer(Wavering(horizon=16), 1, 16, 8, 2, continues=continues)
        actions = []
        for frame in range(80):
            player.begin_tick(frame)
            actions.append(player.act(observe(frame))[0])
        return np.abs(np.diff(actions[3:], n=3)).max()

    assert largest_jerk(True) < 0.5 * largest_jerk(False)


def test_the_queue_by_hand():
    queue = ChunkQueue()
    assert queue.pop() is None
    assert queue.prefix(4, 1) is None
    queue.replace(np.arange(4.0)[:, None])
    assert queue.pop() == 0
    queue.mark()
    assert queue.pop() == 1
    prefix = queue.prefix(4, 9)
    assert (prefix.num_frozen, prefix.num_known, prefix.actions[:, 0].tolist()) == (2, 2, [2, 3, 3, 3])
    queue.replace(10 + np.arange(4.0)[:, None])
    assert queue.pop() == 11
    queue.clear()
    assert queue.num_left == 0
    queue.replace(np.arange(2.0)[:, None])
    assert queue.pop() == 0


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"9 \+ the larger of it and execute_steps 8 must be at most 16"):
        ChunkPlayer(FakePolicy(horizon=16), 0, 16, 8, delay_frames=9)
    with pytest.raises(ConfigError, match="horizon 4, got 5"):
        ChunkPlayer(FakePolicy(horizon=4), 0, 16, 5)
    with pytest.raises(ConfigError, match="inference_delay_frames must be >= 0"):
        RolloutConfig(inference_delay_frames=-1)
    with pytest.raises(ConfigError, match="max_inference_s must be positive, got 0"):
        RolloutConfig(max_inference_s=0)
    with pytest.raises(ConfigError, match="max_weight"):
        ChunkingConfig(max_guidance_weight=-1.0)
    with pytest.raises(ConfigError, match="mode must be one of"):
        ChunkingConfig("sometimes")
