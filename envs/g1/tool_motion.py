"""Moves one arm's joint targets so that its tool goes where an expert wants it, smoothly and on one branch.

An arm with a spare joint and tight limits has postures from which small steps never reach the work. So every tick
compares the arm with the posture a demonstrator would have there (reached by small steps from the ready posture): where
they are far apart, the arm first returns in joint space to a safe height, then goes on in space.

    motion = ToolMotion("left", ready_rad, rotation_at, low_m, high_m)
    motion.reset(measured)
    target = motion.step(measured, goal_m, speed_m_s)      # once per control tick
"""

from collections.abc import Callable

import numpy as np

from envs.g1.arm_ik import ArmIk
from envs.g1.config import G1Config
from envs.g1.drive import CONTROL_HZ

_MAX_STEP_RAD = 0.06  # per tick: 1.8 rad/s
_RETURN_STEP_RAD = 0.05
_STRAY_RAD, _BACK_RAD = 0.7, 0.12
_LOST_TRACK_RAD = 0.15
_GAIN_PER_S = 7.0
_ACCELERATION_M_S2 = 3.0
_CATCH_UP_STEPS = 40


class ToolMotion:
    """One arm, tick by tick. Remembers its last target and velocity: smooth, and lag does not feed back."""

    def __init__(
        self,
        side: str,
        ready_rad: np.ndarray,
        rotation_at: Callable[[np.ndarray], np.ndarray],
        low_m: np.ndarray,
        high_m: np.ndarray,
        config: G1Config | None = None,
    ) -> None:
        """`rotation_at` gives the hand's rotation [3, 3] at a tool position [3]; `low_m`, `high_m` [3] span the
        workspace, whose top is the safe height.
        """
        self._ready = np.array(ready_rad)
        self._ik = ArmIk(side, self._ready, config)
        self._rotation_at, self._low, self._high = rotation_at, np.array(low_m), np.array(high_m)
        self._joints, self._usual = self._ready, self._ready
        self._velocity = np.zeros(3)
        self._returning = False

    def reset(self, measured: np.ndarray) -> None:
        """Starts from where the arm is (joint angles [7])."""
        self._joints, self._velocity = measured.copy(), np.zeros(3)
        self._returning = False
        tool = self._inside(self._ik.pose(measured)[0])
        self._usual = self._ik.solve(self._ready, tool, self._rotation_at(tool), _CATCH_UP_STEPS)

    def step(self, measured: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        """One tick from the measured joints [7] towards a tool position [3]; returns the new target [7]."""
        if np.abs(self._joints - measured).max() > _LOST_TRACK_RAD:
            self._joints, self._velocity = measured.copy(), np.zeros(3)
        tool, _ = self._ik.pose(self._joints)
        nearest = self._inside(tool)
        self._usual = self._ik.step(self._usual, nearest, self._rotation_at(nearest))
        stray = float(np.abs(self._joints - self._usual).max())
        self._returning = stray > (_BACK_RAD if self._returning else _STRAY_RAD)
        if self._returning:
            return self._return(nearest)
        return self._go(tool, self._inside(goal), speed_m_s)

    def _go(self, tool: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        wanted = _shortened(_GAIN_PER_S * (goal - tool), speed_m_s)
        self._velocity = self._velocity + _shortened(wanted - self._velocity, _ACCELERATION_M_S2 / CONTROL_HZ)
        following = tool + self._velocity / CONTROL_HZ
        step = self._ik.step(self._joints, following, self._rotation_at(following)) - self._joints
        self._joints = self._joints + step * min(1.0, _MAX_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        return self._joints

    def _return(self, nearest: np.ndarray) -> np.ndarray:
        """Joint by joint towards the usual posture above where the tool is."""
        above = np.array([nearest[0], nearest[1], self._high[2]])
        self._usual = self._ik.solve(self._usual, above, self._rotation_at(above), 3)
        self._velocity = np.zeros(3)
        self._joints = self._joints + np.clip(self._usual - self._joints, -_RETURN_STEP_RAD, _RETURN_STEP_RAD)
        return self._joints

    def _inside(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, self._low, self._high)


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """The vector, cut to a length."""
    return vector * min(1.0, longest / max(float(np.linalg.norm(vector)), 1e-9))
