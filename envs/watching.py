"""What the gates of all tasks have in common. A gate stands in for a person who watches the policy and asks to take over."""

import abc
import dataclasses
from typing import Generic, Protocol, TypeVar

import mujoco
import numpy as np

from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.g1.kinematics import SIDES


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When a watcher objects. Hands that are faster than `fastest_m_s` or nearer to each other than `nearest_hands_m` are
    unsafe.
    """

    fastest_m_s: float = 1.2
    nearest_hands_m: float = 0.03

    def __post_init__(self) -> None:
        """Refuses thresholds that would fire at once."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"GateConfig.{field.name} must be positive, got {getattr(self, field.name)}")


class WatchedTask(Protocol):
    """What a watcher needs of a task."""

    @property
    def model(self) -> mujoco.MjModel: ...

    @property
    def time_limit_s(self) -> float: ...


TaskT = TypeVar("TaskT", bound=WatchedTask)
ConfigT = TypeVar("ConfigT", bound=Thresholds)


class Watcher(abc.ABC, Generic[TaskT, ConfigT]):
    """Watches one environment. `reset` when the policy starts to act, then `check` once per control tick.

    A task's gate says what it objects to, and how much time the rest of the work takes at least.
    """

    def __init__(self, env: Environment, task: TaskT, config: ConfigT) -> None:
        self._env, self._task, self._config = env, task, config
        self._hands = HandWatch(config.fastest_m_s, config.nearest_hands_m)
        self._tools = [task.model.site(f"g1/{side}_tcp").id for side in SIDES]
        self._forget()

    def reset(self) -> None:
        """Forgets what was seen: progress is measured from here."""
        self._hands.reset()
        self._forget()

    def check(self) -> str:
        """Why somebody should take over now, one of the gate's `REASONS`, or ""."""
        unsafe = self._hands.is_unsafe(self._env.data.site_xpos.take(self._tools, axis=0))
        reason = self._objection()  # also when unsafe: it sees every tick
        if unsafe or reason:
            return "unsafe" if unsafe else reason
        time_left_s = self._task.time_limit_s - self._env.time_s
        return "timeout_near" if time_left_s < self._time_needed_s() else ""

    @abc.abstractmethod
    def _forget(self) -> None:
        """Starts to measure afresh."""

    @abc.abstractmethod
    def _objection(self) -> str:
        """What is going wrong in this tick, or ""."""

    @abc.abstractmethod
    def _time_needed_s(self) -> float:
        """What is left of the work takes at least this long; 0 when that is no longer a worry."""


class HandWatch:
    """Notices hands that no person would let go on: too fast, or about to meet. One look per control tick."""

    def __init__(self, fastest_m_s: float, nearest_m: float) -> None:
        self._fastest_m_s, self._nearest_m = fastest_m_s, nearest_m
        self._before: np.ndarray | None = None

    def reset(self) -> None:
        """Forgets where the hands were."""
        self._before = None

    def is_unsafe(self, hands: np.ndarray) -> bool:
        """Looks at both hands [2, 3] in m."""
        before, self._before = self._before, hands.copy()
        if float(np.linalg.norm(hands[0] - hands[1])) < self._nearest_m:
            return True
        if before is None:
            return False
        return float(np.linalg.norm(hands - before, axis=1).max()) * CONTROL_HZ > self._fastest_m_s
