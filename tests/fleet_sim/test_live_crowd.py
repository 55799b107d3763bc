"""Robots with bodies that share a thread and a policy: fakes, and two worlds, on a clock that a test moves."""

import numpy as np
import pytest

import envs
from fleet_sim.bodies import BatchedBodies, BatchedRobot
from fleet_sim.live_crowd import Life, LiveCrowd, TickClock
from sop_jax.actors.actor import Actor, ActorConfig
from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig
from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import episode_seed
from sop_jax.actors.weights_feed import SharedFeed
from sop_jax.episodes.format import pack
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import ManualClock, Ticker
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import Outcome, Publication
from sop_jax.weights.follower import LoadedWeights
from tests.actors.actor_parts import TinyModel

RATE_HZ = 30.0
NUM_FRAMES, RESET_TICKS = 20, 10
ROLLOUT = RolloutConfig(execute_steps=4)


def make_policy(rows, clock):
    model = TinyModel()
    return BatchedPolicy(
        model, model.init_params(None), identity_norm_stats(16, 16, model.horizon), clock, weights_base="base",
        config=BatchingConfig((rows,)),
    )  # fmt: skip


class Kept(list):
    """An EpisodeAcceptor that remembers."""

    num_given_up = 0
    accept = list.append


class FakeBodies:
    """FakeRobots look and move for themselves. `during` is called on each tick."""

    def __init__(self, during=lambda: None):
        self._during = during
        self.together = []

    def look(self, robots):
        pass

    def move(self, robots):
        self.together.append(tuple(robots))
        self._during()

    def close(self):
        pass


def make_life(number, robot, seat, clock, first_tick=0, feed=None, supervisor=None, world=""):
    config = ActorConfig(f"robot-{number}", robot.task, supervised=supervisor is not None, world=world, rollout=ROLLOUT)
    kept = Kept()
    return Life(Actor(config, robot, seat, kept, clock, supervisor=supervisor, feed=feed), seat, first_tick), kept


def fake_robot(clock, num_frames=NUM_FRAMES):
    return FakeRobot(FakeRobotConfig(time_limit_frames=num_frames), clock)


def run_ticks(crowd, wall, num_ticks):
    """The wall clock stands still but for `during`: each look at it is a tick."""
    looks = iter(range(num_ticks))
    return crowd.run(wall.now_ns() + 1, lambda: next(looks, None) is None)


class FeedByTick:
    """Publishes versions at given ticks of a TickClock. Their trained bias is 0.02 times the version."""

    num_refused = 0

    def __init__(self, ticks, published):
        self._ticks, self._published = ticks, published
        self.num_loads = 0

    def take(self, newer_than):
        now_s = self._ticks.now_ns() / 1e9
        version = max((v for v, tick in self._published.items() if tick <= now_s * RATE_HZ + 1e-3), default=0)
        if version <= newer_than:
            return None
        self.num_loads += 1
        params = {"head": {"gain": np.ones((8, 16), np.float32), "bias": np.full(16, 0.02 * version, np.float32)}}
        return LoadedWeights(Publication(version, 0, "base", "norm", 0, {}), params)

    def close(self):
        pass


def test_each_robot_swaps_at_its_own_boundary():
    """A's episodes begin at ticks 0, 30 and 60, B's at 10, 40 and 70; versions come at 15 and 35."""
    ticks, wall = TickClock(0, RATE_HZ), ManualClock(0)
    source = FeedByTick(ticks, {1: 15, 2: 35})
    feed = SharedFeed(source)
    with make_policy(2, wall) as policy:
        robots = [fake_robot(ticks) for _ in range(2)]
        seats = [policy.take_seat() for _ in robots]
        made = [
            make_life(n, robot, seat, ticks, 10 * n, feed)
            for n, (robot, seat) in enumerate(zip(robots, seats, strict=True))
        ]
        versions_held = []
        bodies = FakeBodies(lambda: versions_held.append(policy.loaded_versions))
        crowd = LiveCrowd([life for life, _ in made], bodies, policy, wall, ticks, RATE_HZ, RESET_TICKS)
        report = run_ticks(crowd, wall, 90)
    began = [[round(e.manifest.started_ns * RATE_HZ / 1e9) for e in kept] for _, kept in made]
    assert began == [[0, 30, 60], [10, 40, 70]]
    assert [[episode.manifest.policy_version for episode in kept] for _, kept in made] == [[0, 1, 2], [0, 2, 2]]
    for _, kept in made:
        for (
            episode
        ) in kept:  # The first action is the state, plus 0.01, plus the version's bias, plus up to 0.01 of light.
            step = float(np.mean(episode.arrays.action[0, :14] - episode.arrays.state[0, :14]))
            assert step == pytest.approx(0.01 + 0.02 * episode.manifest.policy_version, abs=0.011)
    assert source.num_loads == 2  # once for both robots
    assert max(map(len, versions_held)) == 2
    assert versions_held[-1] == (2,)
    assert (report.num_ticks, report.robot_s) == (90, pytest.approx(6 * NUM_FRAMES / RATE_HZ))


def test_robots_in_one_batch_make_the_episodes_that_each_makes_alone():
    def play(numbers):
        ticks, wall = TickClock(0, RATE_HZ), ManualClock(0)
        with make_policy(2, wall) as policy:
            made = {}
            for number in numbers:
                robot = fake_robot(ticks)
                supervisor = TimelineSupervisor(robot, (3 + 4 * number,), 5, np.zeros(16, np.float32))
                made[number] = make_life(number, robot, policy.take_seat(), ticks, supervisor=supervisor)
            crowd = LiveCrowd(
                [life for life, _ in made.values()], FakeBodies(), policy, wall, ticks, RATE_HZ, RESET_TICKS
            )
            run_ticks(crowd, wall, 55)
        return {number: [pack(episode) for episode in kept] for number, (_, kept) in made.items()}, policy.stats

    together, stats = play([0, 1])
    alone = {**play([0])[0], **play([1])[0]}
    assert [len(episodes) for episodes in together.values()] == [2, 2]
    assert together == alone
    assert stats.num_requests > stats.num_batches  # they did ask together
    assert together[0][0] != together[1][0]


def make_world(number, clock):
    individual = envs.draw_individual("workshop", f"robot-{number}")
    return SimulatedRobot(envs.load("restock_shelf", time_limit_s=0.5, individual=individual), clock)


def test_worlds_in_one_batch_make_the_episodes_that_each_makes_alone():
    ticks, wall = TickClock(0, RATE_HZ), ManualClock(0)
    with make_policy(2, wall) as policy:
        robots = [BatchedRobot(make_world(number, ticks)) for number in range(2)]
        bodies = BatchedBodies(robots, num_threads=2)
        made = [
            make_life(number, robot, policy.take_seat(), ticks, 3 * number, world=robot.body.world)
            for number, robot in enumerate(robots)
        ]
        crowd = LiveCrowd([life for life, _ in made], bodies, policy, wall, ticks, RATE_HZ, RESET_TICKS)
        run_ticks(crowd, wall, 20)
        bodies.close()
        for number, (_, kept) in enumerate(made):
            clock = ManualClock(round(3 * number * 1e9 / RATE_HZ))
            robot = make_world(number, clock)
            header = EpisodeHeader(
                make_episode_id(f"robot-{number}", 0, 0), episode_seed(0, f"robot-{number}", 0), world=robot.world,
                weights_base="base", norm_stats=policy.norm_stats,
            )  # fmt: skip
            alone = run_episode(robot, policy.take_seat(), None, header, ROLLOUT, clock)
            robot.close()
            assert alone.manifest.num_frames == 15
            assert len(alone.jpegs) == 5
            assert [pack(episode) for episode in kept] == [pack(alone)]


def test_calls_of_other_sizes_round_differently_and_no_more():
    """One row is another program than two: chunks agree to float tolerance, so a process keeps to one size."""
    robot = fake_robot(ManualClock(0))
    robot.reset(3)
    chunks = []
    for rows in (1, 2):
        with make_policy(rows, ManualClock(0)) as policy:
            seat = policy.take_seat()
            policy.answer([(seat, ChunkRequest(robot.observe(), 11))])
            chunks.append(seat.infer(robot.observe(), 11))
    np.testing.assert_allclose(*chunks, rtol=0, atol=1e-6)


def test_late_ticks_are_counted_and_said():
    """Of ticks that take 10 ms, two take 100: each makes the next one late by 67 ms, which nobody hurries to catch up."""
    clock = ManualClock(0)
    costs_s = iter([0.1 if tick in (5, 9) else 0.01 for tick in range(1000)])
    with make_policy(1, clock) as policy:
        life, _ = make_life(0, fake_robot(clock, num_frames=1000), policy.take_seat(), clock)
        bodies = FakeBodies(lambda: clock.advance_s(next(costs_s)))
        crowd = LiveCrowd([life], bodies, policy, clock, Ticker(clock, RATE_HZ), RATE_HZ, RESET_TICKS)
        report = crowd.run(round(1e9) - 1000)
    assert report.num_ticks == 26  # and not 30
    assert report.max_late_s == pytest.approx(0.1 - 1 / RATE_HZ, abs=1e-6)
    assert report.late_share == pytest.approx(2 / 26)
    assert (report.late_p50_s, report.late_p99_s > 0.05) == (0.0, True)
    assert report.real_time_factor == pytest.approx(26 / 30, abs=1e-3)
    assert report.robot_s == pytest.approx(26 / 30)


@pytest.mark.parametrize(
    ("is_stopped", "outcomes"), [(True, [Outcome.TIMEOUT, Outcome.ABORTED]), (False, [Outcome.TIMEOUT])]
)
def test_what_becomes_of_the_episode_under_way(is_stopped, outcomes):
    """Told to stop, a robot hands on what it has, as at Ctrl-C; at the end of the time it is dropped, as on virtual time."""
    ticks, wall = TickClock(0, RATE_HZ), ManualClock(0)
    with make_policy(1, wall) as policy:
        life, kept = make_life(0, fake_robot(ticks), policy.take_seat(), ticks)
        crowd = LiveCrowd([life], FakeBodies(), policy, wall, ticks, RATE_HZ, RESET_TICKS)
        if is_stopped:
            run_ticks(crowd, wall, 35)
        else:
            crowd.run(35, lambda: wall.advance_s(1e-9) is not None)
        seat_is_free = not life.seat.in_episode
    assert [episode.manifest.outcome for episode in kept] == outcomes
    assert [episode.manifest.num_frames for episode in kept] == [20, 5][: len(outcomes)]
    assert seat_is_free


def test_a_robot_waits_until_its_episode_is_durable():
    ticks, wall = TickClock(0, RATE_HZ), ManualClock(0)
    bodies = FakeBodies()
    with make_policy(1, wall) as policy:
        seat, kept = policy.take_seat(), Kept()
        actor = Actor(
            ActorConfig("robot-0", "fake_task", supervised=False, rollout=ROLLOUT), fake_robot(ticks), seat, kept, ticks
        )
        life = Life(actor, seat, 0, lambda: len(kept) == 1 and ticks.now_ns() < 1.5e9)
        run_ticks(LiveCrowd([life], bodies, policy, wall, ticks, RATE_HZ, RESET_TICKS), wall, 70)
    assert [round(episode.manifest.started_ns * RATE_HZ / 1e9) for episode in kept] == [0, 45]


def test_a_tick_clock_never_sleeps():
    with pytest.raises(RuntimeError, match="nothing may sleep between ticks"):
        TickClock(0, RATE_HZ).sleep_s(1.0)
