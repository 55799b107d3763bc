"""A fleet's dynamics without learning: episodes are drawn, not played, so that a thousand robots run in seconds.

    robot:    move -> ask, hold still, be helped -> move ... -> reset -> (repair) -> move ...
    episode:  the robot's own link and the site's -> store -> intake -> replay      (the robot goes on meanwhile)
    learner:  from the first episode on, a publication every k steps               (it never blocks)
    version:  the site's link (or its cache) and the robot's own -> swap at the robot's next episode

A robot that asked holds still until a person acts: it asked because going on would fail. Frames of that are not kept.
Everything follows from the config and its seed; each robot has random numbers of its own, which others don't disturb.
"""

import dataclasses
import math
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from fleet_sim.deployment import Deployment, Shift, check_shifts
from fleet_sim.drawn_episodes import DrawnEpisode, DrawnFromMeans, DrawnHelp, EpisodeSource
from fleet_sim.site import Breakage, Events, Site
from fleet_sim.tally import DynamicsResult, Tally
from sop_jax.specs.errors import ConfigError


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
        if self.seed < 0:
            raise ConfigError(f"DynamicsConfig.seed must be >= 0, got {self.seed}")
        check_shifts("DynamicsConfig", self.shifts, self.deployment)


def simulate(config: DynamicsConfig, source: EpisodeSource | None = None) -> DynamicsResult:
    """Plays a deployment on virtual time. `source`: of the episodes; default: drawn around the deployment's means."""
    return _Dynamics(config, source or DrawnFromMeans(config.deployment)).run()


class _Dynamics:
    def __init__(self, config: DynamicsConfig, source: EpisodeSource):
        self._config, self._deployment, self._source = config, config.deployment, source
        self._environment = simpy.Environment()
        self._tally = Tally()
        self._tally.begin(config.warm_up_s)
        self._site = Site(
            self._environment, config.deployment, config.rule, config.shifts, config.seed, self._tally
        )  # fmt: skip

    def run(self) -> DynamicsResult:
        config, environment, site = self._config, self._environment, self._site
        present_s = 0.0
        for robot in range(self._deployment.robots.num_robots):
            shift = site.shift_of(robot)
            present_s += max(0.0, min(shift.leaves_s, config.duration_s) - max(shift.joins_s, config.warm_up_s))
            environment.process(self._robot(robot))
            environment.process(site.follow(robot))
        environment.process(self._learn())
        environment.process(site.outages())
        environment.run(until=config.duration_s)
        return self._tally.result(self._deployment, environment.now, present_s, site.num_in_transit)

    def _robot(self, robot: int) -> Events:
        """A robot's life, from joining to leaving."""
        environment, robots, site = self._environment, self._deployment.robots, self._site
        rng, shift = site.rng("robot", robot), site.shift_of(robot)
        yield environment.timeout(shift.joins_s + rng.random() * self._deployment.moving_s)
        breakage = Breakage(environment, robots, rng)
        while environment.now < shift.leaves_s:
            moved_s = yield environment.process(self._episode(robot, self._source.draw(rng), rng))
            yield from site.move(robots.reset_s)
            yield from breakage.repairs(moved_s + robots.reset_s)

    def _episode(self, robot: int, drawn: DrawnEpisode, rng: np.random.Generator) -> Generator[simpy.Event, Any, float]:
        """Moves, asks and is helped; returns the time in which the robot moved."""
        environment, site = self._environment, self._site
        version, started_s = site.versions[robot], environment.now
        calls = sorted(drawn.policy_s * rng.random(len(drawn.helps)))
        moved_s, helped_s, lost = 0.0, 0.0, False
        for call_s, help_ in zip(calls, drawn.helps, strict=True):
            yield from site.move(call_s - moved_s)
            moved_s = call_s
            lost = not (yield from self._be_helped(help_))
            if lost:
                break
            helped_s += help_.help_s
        if not lost:
            yield from site.move(drawn.policy_s - moved_s)
            moved_s = drawn.policy_s
        site.note_episode(started_s, version, drawn.succeeds and not lost, lost)
        environment.process(site.upload(robot, moved_s + helped_s))
        return moved_s + helped_s

    def _be_helped(self, drawn: DrawnHelp) -> Generator[simpy.Event, Any, bool]:
        """Holds still until a person acts, and moves with it; False if the episode is lost because nobody came."""
        helping = yield from self._site.wait_for_person(drawn.expected_help_s, drawn.patience_s)
        if helping is None:
            return False
        yield from self._site.move(drawn.help_s)
        self._site.free_person(helping)
        return True

    def _learn(self) -> Events:
        """A publication every k steps from the first episode on."""
        yield self._site.first_delivered
        self._environment.process(self._site.fill_cache())
        while True:
            yield self._environment.timeout(self._deployment.publication_period_s)
            self._site.publish()
