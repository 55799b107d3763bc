"""What robots that stand around another robot have in common."""

from typing import Generic, TypeVar

import numpy as np

from sop_jax.actors.marks import tell_end
from sop_jax.specs.interfaces import Robot
from sop_jax.specs.records import EpisodeEnd, Observation, RobotSpec

R = TypeVar("R", bound=Robot)


class RobotWrapper(Generic[R]):
    """Implements `specs.interfaces.Robot` by another one; a subclass overrides what it changes."""

    def __init__(self, robot: R):
        self._robot = robot

    @property
    def spec(self) -> RobotSpec:
        return self._robot.spec

    @property
    def task(self) -> str:
        return self._robot.task

    @property
    def instruction(self) -> str:
        return self._robot.instruction

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)

    def observe(self, images: bool = True) -> Observation:
        return self._robot.observe(images)

    def apply(self, action: np.ndarray) -> np.ndarray:
        return self._robot.apply(action)

    def check_end(self) -> EpisodeEnd | None:
        return self._robot.check_end()

    def told_end(self, end: EpisodeEnd) -> None:
        tell_end(self._robot, end)

    def close(self) -> None:
        self._robot.close()
