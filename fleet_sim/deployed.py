"""A simulated fleet in a whole deployment: links, people, failures, robots that come and go, publications on their way."""

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from fleet_sim.config import Operation, TimingConfig
from fleet_sim.crew import EpisodeInPlay
from fleet_sim.drawn_episodes import draw_exponential
from fleet_sim.site import Breakage, Events, Site
from fleet_sim.surroundings import HZ, FixedTimes, Lived, next_look
from fleet_sim.tally import DynamicsResult, Span, Tally

_SETTLE_LOOK_S = 1.0
_UNTOLD_HELP_S = 0.0
"""A call doesn't tell how long the help will take, so all are alike and `shortest_help` serves whoever asked first."""


class DeployedFleet:
    """Implements Surroundings with the `Site` that the dynamics use.

    An episode stays a function of (weights, robot, seed, world): a robot that asked goes on for the rollout's
    `reaction_delay_s` and then holds still, so waiting for a person takes time and changes nothing in the world. Only if
    nobody comes in time is the episode cut where the robot stopped.
    """

    def __init__(self, environment: simpy.Environment, operation: Operation, seed: int):
        self._environment, self._operation = environment, operation
        self._robots = operation.deployment.robots
        num_robots = self._robots.num_robots
        self.site = Site(environment, operation.deployment, operation.rule, operation.shifts, seed, Tally())
        self._rngs = [self.site.rng("robot", robot) for robot in range(num_robots)]
        self._breakages = [Breakage(environment, self._robots, self.site.rng("breakage", n)) for n in range(num_robots)]
        self._drift_s = [_DriftTimes(self.site.rng("drift", n), self._robots.drift_every_s) for n in range(num_robots)]
        self._began_s = self._there_s = 0.0
        self._backlog = 0
        for robot in range(num_robots):
            environment.process(self.site.follow(robot))
        environment.process(self.site.fill_cache())
        environment.process(self.site.outages())

    @property
    def learner_steps_per_s(self) -> float:
        return self._operation.deployment.training.learner_steps_per_s

    @property
    def spread_s(self) -> float:
        return self._robots.reset_s

    def join(self, robot: int) -> Events:
        missing_s = self.site.shift_of(robot).joins_s - self._environment.now
        if missing_s > 0:
            yield self._environment.timeout(missing_s)

    def is_there(self, robot: int) -> bool:
        return self._environment.now < self.site.shift_of(robot).leaves_s

    def version_of(self, robot: int) -> int:
        return self.site.versions[robot]

    def version_at(self, time_s: float) -> int:
        """The newest that had reached any robot."""
        return max((version for reached_s, version in self.site.reached if reached_s <= time_s), default=0)

    def drifts_of(self, robot: int) -> int:
        return self._drift_s[robot].count_until(self._environment.now)

    def live(self, robot: int, playing: EpisodeInPlay) -> Generator[simpy.Event, Any, Lived]:
        started_s, version = self._environment.now, playing.order.version
        from_s, from_tick = started_s, 0  # when it last began to move
        tick, num_helps, waited_s = 0, 0, 0.0
        helping: Span | None = None
        try:
            while True:
                played = playing.wait(next_look(tick))
                last = next_look(tick) if played is None else played.num_frames
                helps = playing.helps_until(last)
                edges = helps.starts if helping is None else helps.ends
                edge = edges[num_helps] if num_helps < len(edges) else None
                tick = last if edge is None else edge
                yield from self.site.move_until(from_s + (tick - from_tick) / HZ)
                playing.reach(tick)
                if edge is None:
                    if played is not None:
                        break
                elif helping is None:
                    asked_s = self._environment.now
                    helping = yield from self.site.wait_for_person(_UNTOLD_HELP_S, self._patience_s(robot))
                    from_s, from_tick = self._environment.now, tick
                    waited_s += from_s - asked_s
                    if helping is None:
                        return self._lose(started_s, version, playing, tick, waited_s)
                else:
                    self.site.free_person(helping)
                    helping, num_helps = None, num_helps + 1
        finally:
            if helping is not None:  # interrupted while a person acted
                self.site.free_person(helping)
        self.site.note_episode(started_s, version, played.succeeded, lost=False)
        return Lived(played, played.num_frames, waited_s=waited_s)

    def deliver(self, robot: int, lived: Lived) -> Events:
        yield from self.site.upload(robot, lived.moved_s)

    def rest(self, robot: int, moved_s: float) -> Events:
        yield from self.site.move(self._robots.reset_s)
        yield from self._breakages[robot].repairs(moved_s + self._robots.reset_s)

    def published(self) -> None:
        self.site.publish()

    def settle(self) -> None:
        environment = self._environment
        while any(
            version < len(self.site.published_s)
            for robot, version in enumerate(self.site.versions)
            if self.site.shift_of(robot).joins_s <= environment.now and self.is_there(robot)
        ):
            environment.run(until=environment.now + _SETTLE_LOOK_S)

    def begin(self) -> None:
        self._began_s = self._environment.now
        self.site.tally.begin(self._began_s)

    def end(self) -> float:
        from_s, until_s, there_s = self._began_s, self._environment.now, 0.0
        self.site.tally.end(until_s)
        self._backlog = self.site.num_in_transit
        for robot in range(self._robots.num_robots):
            shift = self.site.shift_of(robot)
            there_s += max(0.0, min(until_s, shift.leaves_s) - max(from_s, shift.joins_s))
        self._there_s += there_s
        return (until_s - from_s) * self._robots.num_robots - there_s

    def result(self) -> DynamicsResult:
        """The figures that a plan predicts, of what happened while robots worked."""
        return self.site.tally.result(self._operation.deployment, self._environment.now, self._there_s, self._backlog)

    def _lose(self, started_s: float, version: int, playing: EpisodeInPlay, tick: int, waited_s: float) -> Lived:
        """Nobody came. The worker plays on to the end that the episode would have had; what comes after `tick` is cut."""
        self.site.note_episode(started_s, version, succeeded=False, lost=True)
        return Lived(playing.wait_for_end(), tick, True, waited_s)

    def _patience_s(self, robot: int) -> float:
        return draw_exponential(self._rngs[robot], self._operation.patience_s)


class _DriftTimes:
    """When a robot becomes another individual."""

    def __init__(self, rng: np.random.Generator, every_s: float):
        self._rng, self._every_s = rng, every_s
        self._times_s = [draw_exponential(rng, every_s)]

    def count_until(self, time_s: float) -> int:
        while self._times_s[-1] <= time_s:
            self._times_s.append(self._times_s[-1] + draw_exponential(self._rng, self._every_s))
        return len(self._times_s) - 1


def make_surroundings(
    environment: simpy.Environment, timing: TimingConfig, operation: Operation | None, seed: int
) -> FixedTimes | DeployedFleet:
    """The deployment's, if there is one."""
    return FixedTimes(environment, timing) if operation is None else DeployedFleet(environment, operation, seed)
