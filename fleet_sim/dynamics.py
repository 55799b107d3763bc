"""A fleet's dynamics without learning: episodes are drawn, not played, so that a thousand robots run in seconds.

    robot:    move -> ask, hold still, be helped -> move ... -> reset -> (repair) -> move ...
    episode:  the robot's own link and the site's -> store -> intake -> replay      (the robot goes on meanwhile)
    learner:  from the first episode on, a publication every k steps               (it never blocks)
    version:  the site's link (or its cache) and the robot's own -> swap at the robot's next episode

A robot that asked holds still until a person acts: it asked because going on would fail. Frames of that are not kept.
Everything follows from the config and its seed; each robot has random numbers of its own, which others don't disturb.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from fleet_sim.deployment import Deployment
from fleet_sim.drawn_episodes import DrawnEpisode, DrawnFromMeans, DrawnHelp, EpisodeSource, draw_exponential
from fleet_sim.operator_pool import HelpRequest, OperatorPool
from fleet_sim.shared_link import SharedLink, outages
from fleet_sim.tally import DynamicsResult, Tally
from sop_jax.specs.errors import ConfigError

Events = Generator[simpy.Event, Any, None]


@dataclasses.dataclass(frozen=True)
class Shift:
    """Robots `first` to `first + num_robots - 1` are there from `joins_s` to `leaves_s`; they leave after an episode."""

    first: int
    num_robots: int
    joins_s: float = 0.0
    leaves_s: float = math.inf

    def __post_init__(self) -> None:
        if self.first < 0 or self.num_robots < 1 or not 0 <= self.joins_s < self.leaves_s:
            raise ConfigError(f"Shift needs first >= 0, num_robots >= 1 and 0 <= joins_s < leaves_s, got {self}")


@dataclasses.dataclass(frozen=True)
class DynamicsConfig:
    """What is simulated. Robots that no shift names are there throughout.

    warm_up_s: of `duration_s`, not measured. rule: how free operators choose (`operator_pool.RULES`).
    """

    deployment: Deployment
    duration_s: float = 7200.0
    warm_up_s: float = 1800.0
    seed: int = 0
    rule: str = "first_come"
    shifts: tuple[Shift, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up_s < self.duration_s < math.inf:
            raise ConfigError(
                f"DynamicsConfig needs 0 <= warm_up_s < duration_s, got {self.warm_up_s}, {self.duration_s}"
            )
        last = max((shift.first + shift.num_robots for shift in self.shifts), default=0)
        if last > self.deployment.robots.num_robots:
            raise ConfigError(f"DynamicsConfig.shifts: robot {last - 1} of {self.deployment.robots.num_robots}")

    def shift_of(self, robot: int) -> Shift:
        found = (shift for shift in self.shifts if shift.first <= robot < shift.first + shift.num_robots)
        return next(found, Shift(robot, 1))


def simulate(config: DynamicsConfig, source: EpisodeSource | None = None) -> DynamicsResult:
    """Plays a deployment on virtual time. `source`: of the episodes; default: drawn around the deployment's means."""
    return _Dynamics(config, source or DrawnFromMeans(config.deployment)).run()


class _Dynamics:
    def __init__(self, config: DynamicsConfig, source: EpisodeSource):
        self._config, self._deployment, self._source = config, config.deployment, source
        network, self._training = config.deployment.network, config.deployment.training
        self._environment = environment = simpy.Environment()
        own_bps, site_bps = config.deployment.link_goodput_bps, config.deployment.site_goodput_bps
        self._uplink = SharedLink(environment, own_bps, site_bps)
        self._downlink = SharedLink(environment, own_bps, math.inf if network.site_cache else site_bps)
        self._cache_link = SharedLink(environment, site_bps, site_bps)
        self._pool = OperatorPool(environment, config.deployment.operators.num_operators, config.rule)
        self._intake = simpy.Resource(environment)
        self._tally = Tally(config.warm_up_s)
        self._published_s: list[float] = []  # of versions 1, 2, ...
        self._offered = 0  # the newest version that robots can fetch
        self._cache_took_s = 0.0
        self._made, self._news = environment.event(), environment.event()
        self._versions = [0] * config.deployment.robots.num_robots
        self._first_delivered = environment.event()
        self._num_requests = 0
        self._in_transit = 0

    def run(self) -> DynamicsResult:
        config, environment, robots = self._config, self._environment, self._deployment.robots
        for robot in range(robots.num_robots):
            shift = config.shift_of(robot)
            self._tally.note_span(shift.joins_s, min(shift.leaves_s, config.duration_s), "present_s")
            environment.process(self._robot(robot))
            environment.process(self._follow(robot))
        environment.process(self._learn())
        rng = self._rng("outages")
        network = self._deployment.network
        environment.process(
            outages(
                environment,
                (self._uplink, self._downlink, self._cache_link),
                functools.partial(draw_exponential, rng, network.outage_every_s),
                functools.partial(draw_exponential, rng, network.outage_s),
            )
        )
        environment.run(until=config.duration_s)
        return self._tally.result(self._deployment, config.duration_s - config.warm_up_s, self._in_transit)

    def _rng(self, *names: str | int) -> np.random.Generator:
        entropy = [
            self._config.seed,
            *(name if isinstance(name, int) else int.from_bytes(name.encode()) for name in names),
        ]
        return np.random.default_rng(np.random.SeedSequence(entropy))

    def _robot(self, robot: int) -> Events:
        """A robot's life, from joining to leaving."""
        environment, robots = self._environment, self._deployment.robots
        rng, shift = self._rng("robot", robot), self._config.shift_of(robot)
        yield environment.timeout(shift.joins_s + rng.random() * self._deployment.moving_s)
        uplink = simpy.Resource(environment)  # a robot uploads one episode after another
        lasts_s = draw_exponential(rng, robots.failure_every_s)
        while environment.now < shift.leaves_s:
            moved_s = yield environment.process(self._episode(robot, uplink, self._source.draw(rng), rng))
            yield environment.timeout(robots.reset_s)
            self._tally.note_span(environment.now - robots.reset_s, environment.now, "moving_s")
            lasts_s -= moved_s + robots.reset_s
            while lasts_s <= 0:
                yield environment.timeout(draw_exponential(rng, robots.repair_s))
                lasts_s += draw_exponential(rng, robots.failure_every_s)

    def _episode(
        self, robot: int, uplink: simpy.Resource, drawn: DrawnEpisode, rng: np.random.Generator
    ) -> Generator[simpy.Event, Any, float]:
        """Moves, asks and is helped; returns the time in which the robot moved."""
        environment, version, started_s = self._environment, self._versions[robot], self._environment.now
        calls = sorted(drawn.policy_s * rng.random(len(drawn.helps)))
        moved_s, lost = 0.0, False
        for call_s, help_ in zip(calls, drawn.helps, strict=True):
            yield from self._move(call_s - moved_s)
            moved_s = call_s
            lost = yield from self._ask(help_)
            if lost:
                break
        helped_s = sum(help_.help_s for help_ in drawn.helps)
        if not lost:
            yield from self._move(drawn.policy_s - moved_s)
            moved_s = drawn.policy_s + helped_s
        self._note_episode(started_s, version, drawn.succeeds and not lost, lost)
        environment.process(self._upload(uplink, moved_s))
        return moved_s

    def _move(self, duration_s: float) -> Events:
        from_s = self._environment.now
        yield self._environment.timeout(duration_s)
        self._tally.note_span(from_s, self._environment.now, "moving_s")

    def _ask(self, drawn: DrawnHelp) -> Generator[simpy.Event, Any, bool]:
        """Holds still until a person acts, and moves with it; True if the episode is lost because nobody came."""
        environment, asked_s = self._environment, self._environment.now
        request = HelpRequest(self._num_requests, asked_s, asked_s + drawn.patience_s, drawn.expected_help_s)
        self._num_requests += 1
        turned = self._pool.ask(request)
        if math.isinf(drawn.patience_s):
            yield turned
        else:
            yield turned | environment.timeout(drawn.patience_s)
        self._tally.note(environment.now, "wait_s", environment.now - asked_s)
        if not turned.triggered:
            self._pool.withdraw(request)
            return True
        turned_s = environment.now
        yield environment.timeout(self._deployment.operators.reaction_s)
        yield from self._move(drawn.help_s)
        self._pool.release()
        self._tally.note_span(turned_s, environment.now, "people_s")
        return False

    def _note_episode(self, started_s: float, version: int, succeeded: bool, lost: bool) -> None:
        now_s, tally = self._environment.now, self._tally
        tally.note(now_s, "episode")
        tally.note(now_s, "success", float(succeeded))
        tally.note(now_s, "lost", float(lost))
        if version:
            middle_s = (started_s + now_s) / 2
            tally.note(now_s, "age_s", middle_s - self._published_s[version - 1])
            tally.note(now_s, "behind", bisect.bisect_right(self._published_s, middle_s) - version)

    def _upload(self, uplink: simpy.Resource, moved_s: float) -> Events:
        """To the store, and into the replay."""
        environment, tally, ended_s = self._environment, self._tally, self._environment.now
        robots = self._deployment.robots
        num_bytes = moved_s * robots.kept_hz * robots.frame_bytes
        self._in_transit += 1
        with uplink.request() as turn:
            yield turn
            yield self._uplink.transfer(8 * num_bytes)
        yield environment.timeout(self._deployment.network.latency_s)
        stored_s = environment.now
        tally.note(stored_s, "upload_s", stored_s - ended_s)
        tally.note(stored_s, "stored_bytes", num_bytes)
        with self._intake.request() as turn:
            yield turn
            yield environment.timeout(num_bytes / self._training.intake_bytes_per_s)
        tally.note(environment.now, "intake_s", environment.now - stored_s)
        tally.note(environment.now, "delivered")
        self._in_transit -= 1
        if not self._first_delivered.triggered:
            self._first_delivered.succeed()

    def _learn(self) -> Events:
        """A publication every k steps from the first episode on."""
        yield self._first_delivered
        if self._deployment.network.site_cache:
            self._environment.process(self._fill_cache())
        while True:
            yield self._environment.timeout(self._deployment.publication_period_s)
            self._published_s.append(self._environment.now)
            self._tally.note(self._environment.now, "publication")
            made, self._made = self._made, self._environment.event()
            made.succeed()
            if not self._deployment.network.site_cache:
                self._offer(len(self._published_s))

    def _fill_cache(self) -> Events:
        """The site's cache fetches what is newest, one version after another."""
        while True:
            newest, began_s = len(self._published_s), self._environment.now
            if newest == self._offered:
                yield self._made
                continue
            yield self._cache_link.transfer(8 * self._training.checkpoint_bytes)
            self._cache_took_s = self._environment.now - began_s
            self._offer(newest)

    def _offer(self, version: int) -> None:
        self._offered = version
        news, self._news = self._news, self._environment.event()
        news.succeed()

    def _follow(self, robot: int) -> Events:
        """Fetches the newest version whenever there is a newer one; the robot swaps to it when it next begins an episode."""
        environment, shift = self._environment, self._config.shift_of(robot)
        yield environment.timeout(shift.joins_s)
        while environment.now < shift.leaves_s:
            version, began_s = self._offered, environment.now - self._cache_took_s
            if version == self._versions[robot]:
                yield self._news
                continue
            yield self._downlink.transfer(8 * self._training.checkpoint_bytes)
            yield environment.timeout(self._deployment.network.latency_s)
            self._versions[robot] = version
            self._tally.note(environment.now, "fan_out_s", environment.now - began_s)
            self._tally.note(environment.now, "fetched_bytes", self._training.checkpoint_bytes)
