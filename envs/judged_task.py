"""What all tasks keep in the same way: the compiled model, the privileged state of the last tick, success and failure."""

import abc
from typing import Any, Generic, Protocol, TypeVar

import mujoco
import numpy as np

from envs.g1.drive import G1Drive


class Situation(Protocol):
    """A task's privileged state after one control tick."""

    @property
    def time_s(self) -> float: ...


SituationT = TypeVar("SituationT", bound=Situation)


class JudgedTask(abc.ABC, Generic[SituationT]):
    """The part of `task.Task` that does not depend on the task. A task adds its scene, its instructions and its judgement.

    `_situation`, `_time_s`, `_success` and `_failure` are what the judgement writes, every tick.
    """

    def __init__(self, config: Any, model: mujoco.MjModel, rest_state: np.ndarray) -> None:
        """`rest_state` [16] is where episodes start but for noise; `config` has at least `time_limit_s`."""
        self.model = model
        self.drive = G1Drive(model)
        self._time_limit_s: float = config.time_limit_s
        self._rest_state = rest_state
        self._situation: SituationT | None = None
        self._time_s = 0.0
        self._success = False
        self._failure = ""

    @property
    def time_limit_s(self) -> float:
        """When an episode is cut off."""
        return self._time_limit_s

    @property
    def rest_state(self) -> np.ndarray:
        """Where an episode starts but for noise [16]."""
        return self._rest_state.copy()

    @property
    def situation(self) -> SituationT:
        """The privileged state after the last tick, or after reset."""
        if self._situation is None:
            raise RuntimeError("no episode has started: call reset first")
        return self._situation

    def success(self) -> bool:
        """Whether the episode has reached its end."""
        return self._success

    def failure_kind(self) -> str:
        """Why the episode failed beyond doubt or ran out of time; "" while it has not."""
        if self._failure or self._success or self._time_s < self._time_limit_s - 1e-6:
            return self._failure
        return self._kind_of_timeout()

    @abc.abstractmethod
    def _kind_of_timeout(self) -> str:
        """What kept an episode that ran out of time from its end."""

    def _start(self, data: mujoco.MjData, offsets: np.ndarray) -> None:
        """Forgets the last judgement, and puts the robot at its rest state but for `offsets` [16]."""
        self._success, self._failure = False, ""
        self.drive.place(data, self._rest_state + offsets)
