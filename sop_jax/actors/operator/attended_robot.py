"""A robot that people look after."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from sop_jax.actors.marks import MakesMarks
from sop_jax.actors.operator.console import Console
from sop_jax.actors.robot_wrapper import RobotWrapper
from sop_jax.actors.stages import ShowsStages
from sop_jax.specs.interfaces import Robot
from sop_jax.specs.records import EpisodeEnd, EpisodeMark, Observation

PICTURE_TICKS = 5
"""Pictures made for people alone come on every so many ticks."""


class Photographer(Protocol):
    """Makes pictures for people where the policy's are too small: uint8 RGB [h, w, 3] by camera."""

    def take(self) -> Mapping[str, np.ndarray]: ...

    def close(self) -> None: ...


class AttendedRobot(RobotWrapper[Robot]):
    """Tells the console what it sees, and lets people judge.

    `judge` is told how a person says that the episode ended (a `Workplace` that ends it, say); without one, `check_end` says
    it here. `photographer` is asked while somebody watches; without one people see the images of the observations.
    """

    def __init__(
        self,
        robot: Robot,
        console: Console,
        judge: Callable[[EpisodeEnd], None] | None = None,
        photographer: Photographer | None = None,
    ):
        super().__init__(robot)
        self._console = console
        self._photographer = photographer
        self._mark: EpisodeEnd | None = None
        self._frame = 0
        self._pose = self._state = np.zeros(robot.spec.action_dim, np.float32)
        self._has_ended = False
        self._staged = robot if isinstance(robot, ShowsStages) else None
        console.set_judge(judge or self._take_mark)

    @property
    def pose(self) -> np.ndarray:
        """Where the robot was sent last; before its first command, where it stands. float32 [A]."""
        return self._pose

    @property
    def state(self) -> np.ndarray:
        """What was measured last, float32 [A]."""
        return self._state

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)
        self._mark, self._frame, self._has_ended = None, 0, False
        stages = () if self._staged is None else tuple(self._staged.stage_names)
        self._console.begin_episode(self.task, self.instruction, self.spec.control_hz, stages)

    def observe(self, images: bool = True) -> Observation:
        observation = self._robot.observe(images)
        self._state = observation.state
        if self._frame == 0:
            self._pose = observation.state
        stage = "" if self._staged is None else self._staged.stage()
        self._console.see(self._frame, observation.state, observation.time_ns, stage)
        if self._console.watched and self._photographer is not None:
            if self._frame % PICTURE_TICKS == 0:
                self._console.show(self._photographer.take())
        elif observation.images:
            self._console.show(observation.images)
        return observation

    def apply(self, action: np.ndarray) -> np.ndarray:
        self._pose = self._robot.apply(action)
        self._frame += 1
        return self._pose

    def take_marks(self) -> list[EpisodeMark]:
        """The robot's own, and stages that people marked."""
        own = self._robot.take_marks() if isinstance(self._robot, MakesMarks) else ()
        return [*own, *self._console.take_marks()]

    def check_end(self) -> EpisodeEnd | None:
        end = self._robot.check_end() or self._mark
        if end is not None:
            self._show_end(end)
        return end

    def told_end(self, end: EpisodeEnd) -> None:
        super().told_end(end)
        self._show_end(end)

    def close(self) -> None:
        if self._photographer is not None:
            self._photographer.close()
        self._robot.close()

    def _show_end(self, end: EpisodeEnd) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._console.end_episode(end)

    def _take_mark(self, end: EpisodeEnd) -> None:
        self._mark = self._mark or end
