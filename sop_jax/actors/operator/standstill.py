"""When a robot that knows nothing of its task asks for help: it has stood still for too long."""

from typing import Protocol

import numpy as np

NUM_ARM_JOINTS = 14


class Measured(Protocol):
    """Knows the last measured state, float32 [A]: arm joints [rad] first."""

    @property
    def state(self) -> np.ndarray: ...


class StandstillGate:
    """Implements `supervisor.Gate`: says "standstill" while no arm joint has left its place for `patience_s`."""

    def __init__(self, robot: Measured, control_hz: float, patience_s: float = 5.0, moved_rad: float = 0.03):
        self._robot = robot
        self._patience_ticks = round(patience_s * control_hz)
        self._moved_rad = moved_rad
        self._place: np.ndarray | None = None
        self._ticks = 0

    def reset(self) -> None:
        self._place, self._ticks = None, 0

    def check(self) -> str:
        arms = self._robot.state[:NUM_ARM_JOINTS]
        if self._place is None or np.max(np.abs(arms - self._place)) > self._moved_rad:
            self._place, self._ticks = np.array(arms), 0
        self._ticks += 1
        return "standstill" if self._ticks > self._patience_ticks else ""
