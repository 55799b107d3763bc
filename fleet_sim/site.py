"""What a fleet shares, on virtual time: links, people, intake, publications on their way. Dynamics and learning both use it.

    episode:  the robot's own link and the site's -> store -> intake -> replay
    version:  the site's link (or its cache) and the robot's own -> the robot
    help:     a robot asks and holds still -> a person turns to it, reacts, acts -> the person is free

Robots are numbered from 0. Each process below is a SimPy generator; sums go to a `Tally`.
"""

import bisect
import functools
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import simpy

from fleet_sim.deployment import Deployment, Robots, Shift, shift_of
from fleet_sim.drawn_episodes import draw_exponential
from fleet_sim.operator_pool import HelpRequest, OperatorPool
from fleet_sim.shared_link import SharedLink, outages
from fleet_sim.tally import Span, Tally

Events = Generator[simpy.Event, Any, None]


class Site:
    """The shared part of a deployment.

    site = Site(environment, deployment, rule, shifts, seed, tally)
    for robot in range(num_robots): environment.process(site.follow(robot))
    environment.process(site.outages())
    """

    def __init__(
        self,
        environment: simpy.Environment,
        deployment: Deployment,
        rule: str,
        shifts: Sequence[Shift],
        seed: int,
        tally: Tally,
    ):
        self._environment, self._deployment, self._shifts, self._seed = environment, deployment, shifts, seed
        network = deployment.network
        own_bps, site_bps = deployment.link_goodput_bps, deployment.site_goodput_bps
        self._uplink = SharedLink(environment, own_bps, site_bps)
        self._downlink = SharedLink(environment, own_bps, math.inf if network.site_cache else site_bps)
        self._cache_link = SharedLink(environment, site_bps, site_bps)
        self._pool = OperatorPool(environment, deployment.operators.num_operators, rule)
        self._intake = simpy.Resource(environment)
        num_robots = deployment.robots.num_robots
        self._turns = [simpy.Resource(environment) for _ in range(num_robots)]  # one upload after another
        self.tally = tally
        self.versions = [0] * num_robots
        self.published_s: list[float] = []
        self.reached: list[tuple[float, int]] = []  # when each version first reached a robot, where it did
        self.first_delivered = environment.event()
        self.num_in_transit = 0
        self._offered = 0  # the newest version that robots can fetch
        self._cache_took_s = 0.0
        self._made, self._news = environment.event(), environment.event()
        self._num_requests = 0

    def rng(self, *names: str | int) -> np.random.Generator:
        """Random numbers of something's own, which others don't disturb."""
        entropy = [
            self._seed,
            *(name if isinstance(name, int) else int.from_bytes(name.encode()) for name in names),
        ]
        return np.random.default_rng(np.random.SeedSequence(entropy))

    def shift_of(self, robot: int) -> Shift:
        return shift_of(self._shifts, robot)

    def outages(self) -> Events:
        """All links go down and come up, again and again."""
        rng, network = self.rng("outages"), self._deployment.network
        yield from outages(
            self._environment,
            (self._uplink, self._downlink, self._cache_link),
            functools.partial(draw_exponential, rng, network.outage_every_s),
            functools.partial(draw_exponential, rng, network.outage_s),
        )

    def move(self, duration_s: float) -> Events:
        """A robot moves for so long."""
        span = self.tally.open(self._environment.now, "moving_s")
        try:
            yield self._environment.timeout(duration_s)
        finally:  # interrupted too: it has moved so far
            self.tally.close(self._environment.now, span)

    def move_until(self, until_s: float) -> Events:
        """A robot moves until then, which by the last bits of the sums may be past."""
        yield from self.move(max(0.0, until_s - self._environment.now))

    def wait_for_person(self, expected_help_s: float, patience_s: float) -> Generator[simpy.Event, Any, Span | None]:
        """A robot asks and holds still until a person turns to it and has reacted; None: nobody came in time.

        Returns the help, which takes the person until `free_person`. An interrupted robot takes its request back.
        """
        environment, asked_s = self._environment, self._environment.now
        request = HelpRequest(self._num_requests, asked_s, asked_s + patience_s, expected_help_s)
        self._num_requests += 1
        turned = self._pool.ask(request)
        try:
            if math.isinf(patience_s):
                yield turned
            else:
                yield turned | environment.timeout(patience_s)
        except simpy.Interrupt:
            self._take_back(request, turned)
            raise
        self.tally.note(environment.now, "wait_s", environment.now - asked_s)
        if not turned.triggered:
            self._pool.withdraw(request)
            return None
        helping = self.tally.open(environment.now, "people_s")
        try:
            yield environment.timeout(self._deployment.operators.reaction_s)
        except simpy.Interrupt:
            self.free_person(helping)
            raise
        return helping

    def free_person(self, helping: Span) -> None:
        """That help is over."""
        self._pool.release()
        self.tally.close(self._environment.now, helping)

    def note_episode(self, started_s: float, version: int, succeeded: bool, lost: bool) -> None:
        """An episode has ended."""
        now_s, tally = self._environment.now, self.tally
        tally.note(now_s, "episode")
        tally.note(now_s, "success", float(succeeded))
        tally.note(now_s, "lost", float(lost))
        if version > 0:
            middle_s = (started_s + now_s) / 2
            tally.note(now_s, "age_s", middle_s - self.published_s[version - 1])
            tally.note(now_s, "behind", bisect.bisect_right(self.published_s, middle_s) - version)

    def upload(self, robot: int, moved_s: float) -> Events:
        """An episode of so much moving time: to the store, and through the intake."""
        environment, tally, ended_s = self._environment, self.tally, self._environment.now
        robots = self._deployment.robots
        num_bytes = moved_s * robots.kept_hz * robots.frame_bytes
        self.num_in_transit += 1
        with self._turns[robot].request() as turn:
            yield turn
            yield self._uplink.transfer(8 * num_bytes)
        yield environment.timeout(self._deployment.network.latency_s)
        stored_s = environment.now
        tally.note(stored_s, "upload_s", stored_s - ended_s)
        tally.note(stored_s, "stored_bytes", num_bytes)
        with self._intake.request() as turn:
            yield turn
            yield environment.timeout(num_bytes / self._deployment.training.intake_bytes_per_s)
        tally.note(environment.now, "intake_s", environment.now - stored_s)
        tally.note(environment.now, "delivered")
        self.num_in_transit -= 1
        if not self.first_delivered.triggered:
            self.first_delivered.succeed()

    def publish(self) -> None:
        """A new version is in the store."""
        self.published_s.append(self._environment.now)
        self.tally.note(self._environment.now, "publication")
        made, self._made = self._made, self._environment.event()
        made.succeed()
        if not self._deployment.network.site_cache:
            self._offer(len(self.published_s))

    def fill_cache(self) -> Events:
        """The site's cache, if there is one, fetches what is newest, one version after another."""
        while self._deployment.network.site_cache:
            newest, began_s = len(self.published_s), self._environment.now
            if newest == self._offered:
                yield self._made
                continue
            yield self._cache_link.transfer(8 * self._deployment.training.checkpoint_bytes)
            self._cache_took_s = self._environment.now - began_s
            self._offer(newest)

    def follow(self, robot: int) -> Events:
        """Fetches the newest version whenever there is a newer one; the robot swaps to it when it next begins an episode."""
        environment, shift, size = self._environment, self.shift_of(robot), self._deployment.training.checkpoint_bytes
        yield environment.timeout(shift.joins_s)
        while environment.now < shift.leaves_s:
            version, began_s = self._offered, environment.now - self._cache_took_s
            if version == self.versions[robot]:
                yield self._news
                continue
            yield self._downlink.transfer(8 * size)
            yield environment.timeout(self._deployment.network.latency_s)
            self.versions[robot] = version
            if not self.reached or self.reached[-1][1] < version:
                self.reached.append((environment.now, version))
            self.tally.note(environment.now, "fan_out_s", environment.now - began_s)
            self.tally.note(environment.now, "fetched_bytes", size)

    def _offer(self, version: int) -> None:
        self._offered = version
        news, self._news = self._news, self._environment.event()
        news.succeed()

    def _take_back(self, request: HelpRequest, turned: simpy.Event) -> None:
        if turned.triggered:
            self._pool.release()
        else:
            self._pool.withdraw(request)


class Breakage:
    """A robot's failures: it breaks after so much moving, between episodes, and stands until it is repaired."""

    def __init__(self, environment: simpy.Environment, robots: Robots, rng: np.random.Generator):
        self._environment, self._robots, self._rng = environment, robots, rng
        self._lasts_s = draw_exponential(rng, robots.failure_every_s)

    def repairs(self, moved_s: float) -> Events:
        """What is due after the robot has moved for so long."""
        self._lasts_s -= moved_s
        while self._lasts_s <= 0:
            yield self._environment.timeout(draw_exponential(self._rng, self._robots.repair_s))
            self._lasts_s += draw_exponential(self._rng, self._robots.failure_every_s)
