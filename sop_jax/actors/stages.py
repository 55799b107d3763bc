"""How far a trial has come, on robots that know it: simulated ones do, real ones don't."""

from typing import Protocol, runtime_checkable

import numpy as np

from sop_jax.actors.pilot import FrameLabel
from sop_jax.specs.records import Observation


@runtime_checkable
class ShowsStages(Protocol):
    """A robot that knows how far its task has come. `stage_names` are in the order in which they are passed."""

    @property
    def stage_names(self) -> tuple[str, ...]: ...

    def stage(self) -> str: ...


class StageWatch:
    """Keeps of a rollout's frames only the stage: the last one, and the furthest. Make it after the reset. A FrameSink."""

    def __init__(self, robot: ShowsStages):
        self._robot = robot
        self._order = {name: place for place, name in enumerate(robot.stage_names)}
        self.last = self.furthest = robot.stage()

    def keeps_images(self, frame: int) -> bool:
        del frame
        return False

    def add(self, observation: Observation, action: np.ndarray, label: FrameLabel) -> None:
        del observation, action, label
        self.last = self._robot.stage()
        if self._order[self.last] > self._order[self.furthest]:
            self.furthest = self.last
