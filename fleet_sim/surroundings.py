"""What a simulated fleet works in, and the simplest of it: fixed times. The other is a whole deployment (`deployed.py`).

Robots are numbered in the order of `SimulatedFleetConfig.robot_ids`.
"""

import dataclasses
from collections.abc import Generator
from typing import Any, Protocol

import simpy

from envs import Environment
from fleet_sim.config import TimingConfig
from fleet_sim.crew import LOOK_TICKS, EpisodeInPlay, PlayedEpisode
from fleet_sim.site import Events

HZ = Environment.control_hz


def next_look(tick: int) -> int:
    """How far a robot's life may move on before it asks again whether its episode still lasts (`crew.LOOK_TICKS`)."""
    return tick - tick % LOOK_TICKS + LOOK_TICKS


@dataclasses.dataclass(frozen=True)
class Lived:
    """How an episode went in the fleet's time.

    num_frames: that are kept: fewer than were played if the episode was `lost` because nobody came. waited_s: for people.
    """

    played: PlayedEpisode
    num_frames: int
    lost: bool = False
    waited_s: float = 0.0

    @property
    def moved_s(self) -> float:
        return self.num_frames / HZ


class Surroundings(Protocol):
    """Where robots live, one call after another:

        yield from surroundings.join(robot)
        while surroundings.is_there(robot):
            version, drifts = surroundings.version_of(robot), surroundings.drifts_of(robot)
            lived = yield from surroundings.live(robot, playing)
            environment.process(surroundings.deliver(robot, lived))
            yield from surroundings.rest(robot, lived.moved_s)

    `live` tells `playing` how far it has come. `published` is told each new version; `settle` lets time pass until the last
    one is with the robots. `version_at`: with which version robots began at a time. Robots work from `begin` to `end`, which
    says for how long they were missing in that stretch, all together.
    """

    @property
    def learner_steps_per_s(self) -> float: ...

    @property
    def spread_s(self) -> float: ...

    def join(self, robot: int) -> Events: ...

    def is_there(self, robot: int) -> bool: ...

    def version_of(self, robot: int) -> int: ...

    def version_at(self, time_s: float) -> int: ...

    def drifts_of(self, robot: int) -> int: ...

    def live(self, robot: int, playing: EpisodeInPlay) -> Generator[simpy.Event, Any, Lived]: ...

    def deliver(self, robot: int, lived: Lived) -> Events: ...

    def rest(self, robot: int, moved_s: float) -> Events: ...

    def published(self) -> None: ...

    def settle(self) -> None: ...

    def begin(self) -> None: ...

    def end(self) -> float: ...


class FixedTimes:
    """Implements Surroundings: everything takes as long as a TimingConfig says, and nobody is missing."""

    def __init__(self, environment: simpy.Environment, timing: TimingConfig):
        self._environment, self._timing = environment, timing
        self._published_s: list[float] = []

    @property
    def learner_steps_per_s(self) -> float:
        return self._timing.learner_steps_per_s

    @property
    def spread_s(self) -> float:
        return self._timing.reset_s

    def join(self, robot: int) -> Events:
        del robot
        yield from ()

    def is_there(self, robot: int) -> bool:
        del robot
        return True

    def version_of(self, robot: int) -> int:
        del robot
        return self.version_at(self._environment.now)

    def version_at(self, time_s: float) -> int:
        return sum(published_s + self._timing.swap_s <= time_s for published_s in self._published_s)

    def drifts_of(self, robot: int) -> int:
        del robot
        return 0

    def live(self, robot: int, playing: EpisodeInPlay) -> Generator[simpy.Event, Any, Lived]:
        del robot
        started_s, tick = self._environment.now, next_look(0)
        while (played := playing.wait(tick)) is None:
            yield self._environment.timeout(started_s + tick / HZ - self._environment.now)
            playing.reach(tick)
            tick = next_look(tick)
        yield self._environment.timeout(started_s + played.num_frames / HZ - self._environment.now)
        playing.reach(played.num_frames)
        return Lived(played, played.num_frames)

    def deliver(self, robot: int, lived: Lived) -> Events:
        del robot, lived
        yield self._environment.timeout(self._timing.upload_s)

    def rest(self, robot: int, moved_s: float) -> Events:
        del robot, moved_s
        yield self._environment.timeout(self._timing.reset_s)

    def published(self) -> None:
        self._published_s.append(self._environment.now)

    def settle(self) -> None:
        if self._timing.swap_s:
            self._environment.run(until=self._environment.now + self._timing.swap_s)

    def begin(self) -> None:
        pass

    def end(self) -> float:
        return 0.0
