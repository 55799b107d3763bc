"""Robots with bodies on wall time: `python -m fleet_sim.live_crowd_process SETTINGS` (`LiveCrowdSettings` as JSON).

it:   make worlds and policy                               ->  "ready"
you:  {"start_ns": ..., "duration_s": ...}
it:   live until then, or until SIGTERM; drain the spools  ->  a `LiveReport`
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal, final

from fleet_sim.bodies import BatchedBodies, BatchedRobot, make_cast
from fleet_sim.crew_worker import WorkerSettings
from fleet_sim.live_crowd import Life, LiveCrowd, TickClock, TickReport
from fleet_sim.porter import Porter
from fleet_sim.told_to_stop import told_to_stop
from fleet_sim.wall_processes import WallOrder, serve_until_stopped
from sop_jax.actors.actor import Actor, ActorConfig, ActorReport
from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig, BatchingStats
from sop_jax.actors.policy_seat import PolicySeat
from sop_jax.actors.rollout import never
from sop_jax.actors.spool import Spool
from sop_jax.actors.weights_feed import BackgroundFeed, InlineFeed, SharedFeed
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.clock import Clock, Ticker, WallClock
from sop_jax.specs.identifiers import number_of_episode
from sop_jax.specs.metrics import NoMetrics
from sop_jax.weights.follower import Follower

_POLL_S = 0.5
_DRAIN_S = 60.0


@dataclasses.dataclass(frozen=True)
class LiveCrowdSettings:
    """Who works where, beside what a simulator's worker is told (`worker`; its scratch is the folder of the spools).

    first_s: when each robot begins, after the start; the same number as robots. rows: of every call of the policy.
    pace: "real" holds the robots' control rate; "free" runs as the machine can, and a robot's clock is its number of ticks.
    num_threads: for physics and images; 0 = one per usable core.
    """

    worker: WorkerSettings
    task: str
    robot_ids: tuple[str, ...]
    first_s: tuple[float, ...]
    reset_s: float
    rows: int
    pace: Literal["real", "free"] = "real"
    num_threads: int = 0
    seed: int = 0

    @staticmethod
    def from_json(text: str) -> "LiveCrowdSettings":
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("robot_ids", "first_s")}
        return LiveCrowdSettings(**{**values, **tuples, "worker": WorkerSettings.from_json(values["worker"])})


@dataclasses.dataclass(frozen=True)
class LiveReport:
    """What a process did. num_waiting: episodes that its spools still hold. policy: the policy's requests and calls."""

    num_robots: int
    num_episodes: int
    num_given_up: int
    num_waiting: int
    num_swaps: int
    num_refused: int
    ticks: TickReport
    policy: BatchingStats

    @staticmethod
    def from_json(values: dict[str, Any]) -> "LiveReport":
        nested = {"ticks": TickReport(**values["ticks"]), "policy": BatchingStats(**values["policy"])}
        return LiveReport(**{**values, **nested})


@final
class LiveProcess:
    """Everything that the robots of one process need, made once.

        with contextlib.closing(LiveProcess(settings, WallClock())) as process:
            report = process.run(order, should_stop)

    After a kill the next one on the same folders uploads what the spools had accepted, and goes on with new episodes.
    """

    def __init__(self, settings: LiveCrowdSettings, clock: Clock):
        self._settings, self._clock = settings, clock
        self._stack = contextlib.ExitStack()
        worker = settings.worker
        self._casts = [
            make_cast(worker.world.for_task(settings.task), _Late(self._now_ns), robot_id, worker.supervisor)
            for robot_id in settings.robot_ids
        ]
        self._rate_hz = self._casts[0].robot.spec.control_hz
        self._robots = [BatchedRobot(cast.robot) for cast in self._casts]
        self._bodies = BatchedBodies(self._robots, settings.num_threads)
        self._stack.callback(self._bodies.close)
        self._bodies.look(range(len(self._robots)))  # a first look takes long: not in a tick
        bundle = load_bundle(pathlib.Path(worker.bundle))
        self._policy = self._stack.enter_context(
            BatchedPolicy.from_bundle(
                bundle, clock, chunking=worker.rollout.chunking, conditioning=worker.conditioning,
                config=BatchingConfig(batch_sizes=(settings.rows,)),
            )
        )  # fmt: skip
        self._policy.warm_up(self._casts[0].robot.spec, "warm up")
        self._ticks: TickClock | None = None

    def run(self, order: WallOrder, should_stop: Callable[[], bool] = never) -> LiveReport:
        """Blocks until the order's end by the clock, and then until the spools are empty or a minute is over."""
        settings, clock = self._settings, self._clock
        clock.sleep_s(max(0.0, (order.start_ns - clock.now_ns()) / 1e9))
        if settings.pace == "free":
            self._ticks = TickClock(clock.now_ns(), self._rate_hz)
        store = EpisodeStore(settings.worker.store, clock=clock)
        porter = Porter(
            {
                robot_id: Spool(pathlib.Path(settings.worker.scratch) / robot_id, store, clock, background=False)
                for robot_id in settings.robot_ids
            }
        )
        feed = self._open_feed()
        try:
            lives = self._make_lives(store, porter, feed)
            crowd = LiveCrowd(
                lives, self._bodies, self._policy, clock, self._ticks or Ticker(clock, self._rate_hz), self._rate_hz,
                round(settings.reset_s * self._rate_hz),
            )  # fmt: skip
            ticks = crowd.run(order.end_ns, should_stop)
        finally:
            feed.close()
            porter.close(_DRAIN_S)
        return self._report(porter, [life.actor.report() for life in lives], feed.num_refused, ticks)

    def close(self) -> None:
        self._stack.close()

    def _now_ns(self) -> int:
        """The robots' time."""
        return (self._ticks or self._clock).now_ns()

    def _open_feed(self) -> SharedFeed:
        policy = self._policy
        follower = Follower(self._settings.worker.store, policy.weights_base, policy.norm_stats)
        inline = InlineFeed(follower, policy.trained_template, NoMetrics())
        first = inline.take(
            version := max(policy.loaded_versions)
        )  # what is there already is acted with from the start
        version = version if first is None else first.publication.version
        return SharedFeed(BackgroundFeed(inline, self._clock, version, _POLL_S), first)

    def _make_lives(self, store: EpisodeStore, porter: Porter, feed: SharedFeed) -> list[Life]:
        settings, lives = self._settings, []
        for index, robot_id in enumerate(settings.robot_ids):
            seat = self._policy.take_seat()
            # After a restart the robot goes on with new scenes instead of repeating those it has seen.
            # (What its spool uploads meanwhile is counted twice rather than not at all.)
            numbers = [number_of_episode(episode_of_path(path)) for path in store.list_paths(robot_id)]
            first_episode = max(porter.num_kept_of(robot_id) + len(numbers), max(numbers, default=-1) + 1)
            actor = self._make_actor(index, seat, porter, feed, first_episode)
            first_tick = round(settings.first_s[index] * self._rate_hz)
            lives.append(Life(actor, seat, first_tick, lambda robot_id=robot_id: porter.is_busy(robot_id)))
        return lives

    def _make_actor(self, index: int, seat: PolicySeat, porter: Porter, feed: SharedFeed, first_episode: int) -> Actor:
        settings, cast, robot_id = self._settings, self._casts[index], self._settings.robot_ids[index]
        config = ActorConfig(
            robot_id=robot_id,
            task=settings.task,
            seed=settings.seed,
            first_episode=first_episode,
            world=cast.robot.world,
            rollout=dataclasses.replace(settings.worker.rollout, realtime=False),
            recording=settings.worker.recording,
        )
        return Actor(
            config, self._robots[index], seat, porter.door(robot_id), _Late(self._now_ns),
            supervisor=cast.supervisor, feed=feed,
        )  # fmt: skip

    def _report(self, porter: Porter, actors: list[ActorReport], num_refused: int, ticks: TickReport) -> LiveReport:
        shared = num_refused * len(actors)  # each actor counts what the feed that they share refused
        return LiveReport(
            num_robots=len(actors),
            num_episodes=porter.num_accepted,
            num_given_up=porter.num_given_up,
            num_waiting=porter.num_pending,
            num_swaps=sum(actor.num_swaps for actor in actors),
            num_refused=num_refused + sum(actor.num_refused for actor in actors) - shared,
            ticks=ticks,
            policy=self._policy.stats,
        )


class _Late:
    """A clock that asks for the time when it is asked: the robots are made before it is known when they start."""

    def __init__(self, now_ns: Callable[[], int]):
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns()

    def sleep_s(self, duration_s: float) -> None:
        raise RuntimeError(f"robots that share a thread must not sleep, asked for {duration_s} s")


def main(text: str) -> None:
    should_stop = told_to_stop()
    with contextlib.closing(LiveProcess(LiveCrowdSettings.from_json(text), WallClock())) as process:
        serve_until_stopped(lambda order: process.run(order, should_stop))


if __name__ == "__main__":
    main(sys.argv[1])
