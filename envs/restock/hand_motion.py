"""Moves the right arm's joint targets so that the tool goes where the expert wants it, smoothly and on one branch.

An arm with a spare joint and tight limits has postures from which small steps never reach the table. So every tick
compares the arm with the posture a demonstrator would have there (reached by small steps from the ready posture): where
they are far apart, the arm first returns in joint space to a safe point above the table, then goes on in space.
"""

import numpy as np

from envs.g1.arm_ik import ArmIk
from envs.g1.drive import CONTROL_HZ
from envs.restock.config import RestockConfig
from envs.restock.hand_pose import READY_RAD, hand_rotation

_MAX_STEP_RAD = 0.06  # per tick: 1.8 rad/s
_RETURN_STEP_RAD = 0.05
_STRAY_RAD, _BACK_RAD = 0.7, 0.12
_LOST_TRACK_RAD = 0.15
_GAIN_PER_S = 5.0
_ACCELERATION_M_S2 = 2.5
_SAFE_ABOVE_TABLE_M = 0.15
_MARGIN_M = 0.03
_CATCH_UP_STEPS = 40


class HandMotion:
    """Right arm joint targets, tick by tick. Remembers its last target and velocity: smooth, and lag does not feed back."""

    def __init__(self, config: RestockConfig) -> None:
        self._ik = ArmIk("right", np.array(READY_RAD), config.robot)
        y0, y1 = min(config.slot_y_m), max(config.slot_y_m)
        self._low = np.array([config.staging_x_m[0] - _MARGIN_M, y0 - _MARGIN_M, config.table_height_m + 0.02])
        self._high = np.array([config.shelf_x_m, y1 + _MARGIN_M, config.table_height_m + _SAFE_ABOVE_TABLE_M])
        self._joints = np.array(READY_RAD)
        self._usual = np.array(READY_RAD)
        self._velocity = np.zeros(3)
        self._returning = False

    def reset(self, measured: np.ndarray) -> None:
        """Starts from where the arm is (joint angles [7])."""
        self._joints, self._velocity = measured.copy(), np.zeros(3)
        self._returning = False
        tool = self._inside(self._ik.pose(measured)[0])
        self._usual = self._ik.solve(np.array(READY_RAD), tool, hand_rotation(tool), _CATCH_UP_STEPS)

    def step(self, measured: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        """One tick from the measured joints [7] towards a tool position [3]; returns the new target [7]."""
        if np.abs(self._joints - measured).max() > _LOST_TRACK_RAD:
            self._joints, self._velocity = measured.copy(), np.zeros(3)
        tool, _ = self._ik.pose(self._joints)
        nearest = self._inside(tool)
        self._usual = self._ik.step(self._usual, nearest, hand_rotation(nearest))
        stray = float(np.abs(self._joints - self._usual).max())
        self._returning = stray > (_BACK_RAD if self._returning else _STRAY_RAD)
        if self._returning:
            return self._return(nearest)
        return self._go(tool, goal, speed_m_s)

    def _go(self, tool: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        wanted = _shortened(_GAIN_PER_S * (goal - tool), speed_m_s)
        self._velocity = self._velocity + _shortened(wanted - self._velocity, _ACCELERATION_M_S2 / CONTROL_HZ)
        following = tool + self._velocity / CONTROL_HZ
        solved = self._ik.step(self._joints, following, hand_rotation(following))
        step = solved - self._joints
        self._joints = self._joints + step * min(1.0, _MAX_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        return self._joints

    def _return(self, nearest: np.ndarray) -> np.ndarray:
        """Joint by joint towards the usual posture above where the tool is."""
        above = np.array([nearest[0], nearest[1], self._high[2]])
        self._usual = self._ik.solve(self._usual, above, hand_rotation(above), 3)
        self._velocity = np.zeros(3)
        self._joints = self._joints + np.clip(self._usual - self._joints, -_RETURN_STEP_RAD, _RETURN_STEP_RAD)
        return self._joints

    def _inside(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, self._low, self._high)


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """The vector, cut to a length."""
    return vector * min(1.0, longest / max(float(np.linalg.norm(vector)), 1e-9))
