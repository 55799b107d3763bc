"""Moves an arm's joint targets so that the tool goes where the expert wants it, smoothly and on one branch.

An arm with a spare joint and tight limits has postures from which small steps never reach the table. So every tick
compares the arm with the posture a demonstrator would have there (reached by small steps from the ready posture): where
they are far apart, the arm first returns in joint space to a safe point above the table, by a way on which it hooks under
nothing, then goes on in space.
"""

from typing import Protocol

import numpy as np

from envs.g1.arm_ik import ArmIk
from envs.g1.config import G1Config
from envs.g1.drive import CONTROL_HZ
from envs.restock.hand_pose import READY_RAD, TILT_RAD, hand_rotation

_MAX_STEP_RAD = 0.06  # per tick: 1.8 rad/s
_RETURN_STEP_RAD = 0.05
_STRAY_RAD, _BACK_RAD = 0.7, 0.12
_LOST_TRACK_RAD = 0.15
_GAIN_PER_S = 5.0
_ACCELERATION_M_S2 = 2.5
_TURN_PER_S = 1.0
_CATCH_UP_STEPS = 40
_SETTLE_WITHIN_M = 0.03
_LEFT_SHOULDER_M = 0.0021


class FindsWays(Protocol):
    """Knows how an arm gets from one posture [7] to another; as `ClearWay`."""

    def find(self, start: np.ndarray, goal: np.ndarray) -> list[np.ndarray]: ...


class HandMotion:
    """Right arm joint targets, tick by tick. Remembers its last target and velocity: smooth, and lag does not feed back."""

    def __init__(
        self,
        workspace_m: tuple[np.ndarray, np.ndarray],
        robot: G1Config,
        ways: FindsWays,
        tilt_rad: float = TILT_RAD,
        settle_per_s: float = 0.0,
    ) -> None:
        """`workspace_m` are the corners of where the arm's usual postures are known; `settle_per_s` is how fast the hand
        makes up for what keeps it short of a goal (at the edge of its reach its posture pulls it back by up to 2 cm).
        """
        self._ik = ArmIk("right", np.array(READY_RAD), robot)
        self._low, self._high = workspace_m
        self._ways, self._way = ways, list[np.ndarray]()
        self._tilt_rad, self._settle_per_s = tilt_rad, settle_per_s
        self._settling = np.zeros(3)
        self._joints = np.array(READY_RAD)
        self._usual = np.array(READY_RAD)
        self._velocity = np.zeros(3)
        self._returning = False
        self.ahead = 0.0
        """How far the hand is turned, as in `Intent`."""

    def reset(self, measured: np.ndarray) -> None:
        """Starts from where the arm is (joint angles [7])."""
        self._joints, self._velocity, self._settling = measured.copy(), np.zeros(3), np.zeros(3)
        self._returning, self._way, self.ahead = False, [], 0.0
        tool = self._inside(self._ik.pose(measured)[0])
        self._usual = self._ik.solve(np.array(READY_RAD), tool, self._rotation(tool), _CATCH_UP_STEPS)

    def step(self, measured: np.ndarray, goal: np.ndarray, speed_m_s: float, ahead: float = 0.0) -> np.ndarray:
        """One tick from the measured joints [7] towards a tool position [3] and a turn of the hand, as in `Intent`; returns
        the new target [7].
        """
        self.ahead += float(np.clip(ahead - self.ahead, -_TURN_PER_S / CONTROL_HZ, _TURN_PER_S / CONTROL_HZ))
        if np.abs(self._joints - measured).max() > _LOST_TRACK_RAD:
            self._joints, self._velocity, self._way = measured.copy(), np.zeros(3), []
        tool, _ = self._ik.pose(self._joints)
        nearest = self._inside(tool)
        self._usual = self._ik.step(self._usual, nearest, self._rotation(nearest))
        stray = float(np.abs(self._joints - self._usual).max())
        self._returning = stray > (_BACK_RAD if self._returning else _STRAY_RAD)
        if self._returning:
            return self._return(nearest)
        self._way = []
        return self._go(tool, goal, speed_m_s)

    def _go(self, tool: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        short = goal - tool
        if np.linalg.norm(short) < _SETTLE_WITHIN_M:
            self._settling = self._settling + self._settle_per_s / CONTROL_HZ * short
        else:
            self._settling = np.zeros(3)
        wanted = _shortened(_GAIN_PER_S * (short + self._settling), speed_m_s)
        self._velocity = self._velocity + _shortened(wanted - self._velocity, _ACCELERATION_M_S2 / CONTROL_HZ)
        following = tool + self._velocity / CONTROL_HZ
        solved = self._ik.step(self._joints, following, self._rotation(following))
        step = solved - self._joints
        self._joints = self._joints + step * min(1.0, _MAX_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        return self._joints

    def _return(self, nearest: np.ndarray) -> np.ndarray:
        """Along a clear way to the usual posture above where the tool is, or to the ready posture."""
        if not self._way:
            self._way = self._find_way(nearest)
        self._velocity = np.zeros(3)
        left = self._way[0] - self._joints
        self._joints = self._joints + left * min(1.0, _RETURN_STEP_RAD / max(float(np.abs(left).max()), 1e-9))
        if float(np.abs(left).max()) <= _RETURN_STEP_RAD:
            arrived = self._way.pop(0)
            self._usual = self._usual if self._way else arrived
        return self._joints

    def _find_way(self, nearest: np.ndarray) -> list[np.ndarray]:
        above = np.array([nearest[0], nearest[1], self._high[2]])
        goal = self._ik.solve(self._usual, above, self._rotation(above), _CATCH_UP_STEPS)
        ready = np.array(READY_RAD)
        return self._ways.find(self._joints, goal) or self._ways.find(self._joints, ready) or [goal]

    def _rotation(self, position: np.ndarray) -> np.ndarray:
        return hand_rotation(position, self._tilt_rad, self.ahead)

    def _inside(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, self._low, self._high)


class MirroredHandMotion:
    """Left arm joint targets: the right arm's motion in a mirror. The left shoulder sits `_LEFT_SHOULDER_M` further in."""

    def __init__(
        self, workspace_m: tuple[np.ndarray, np.ndarray], robot: G1Config, ways: FindsWays, settle_per_s: float
    ) -> None:
        """`workspace_m` as the right hand would have it, `ways` as the left arm has them."""
        self._motion = HandMotion(workspace_m, robot, _MirroredWays(ways), settle_per_s=settle_per_s)

    def reset(self, measured: np.ndarray) -> None:
        """Starts from where the arm is (joint angles [7])."""
        self._motion.reset(-measured)

    def step(self, measured: np.ndarray, goal: np.ndarray, speed_m_s: float) -> np.ndarray:
        """As `HandMotion.step`, for the left arm."""
        return -self._motion.step(-measured, goal * (1.0, -1.0, 1.0) - (0.0, _LEFT_SHOULDER_M, 0.0), speed_m_s)


class _MirroredWays:
    """The left arm's ways, as the right arm would have them."""

    def __init__(self, ways: FindsWays) -> None:
        self._ways = ways

    def find(self, start: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
        return [-posture for posture in self._ways.find(-start, -goal)]


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """The vector, cut to a length."""
    return vector * min(1.0, longest / max(float(np.linalg.norm(vector)), 1e-9))
