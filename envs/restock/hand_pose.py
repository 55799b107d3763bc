"""How the right hand is turned at each place of the table, and its ready posture.

The elbow bends by 85 degrees at most, so the wrist lives in a thin shell around the shoulder. The hand therefore turns
about the vertical as the tool comes nearer, as a person's does: it points forward at the far end and leftward close by.
"""

import math

import numpy as np

from envs.g1.arm_ik import tool_rotation

TILT_RAD = 0.95  # from pointing straight down
_SHOULDER_XY = (0.279, -0.213)
_WRIST_TO_TOOL_M = 0.1805 + 0.14308
_REACH_M = 0.43  # preferred horizontal distance from shoulder to wrist, at a tool distance of _MIDDLE_M
_MIDDLE_M = 0.47
_STRETCH = 0.25

# Above the right part of the staging area, where the hand hides few items from the head camera: tool at `READY_TOOL_M`.
READY_RAD = (1.6122, -0.663, -0.5453, 1.3118, -1.1344, -1.7099, 0.534)
READY_TOOL_M = (0.64, -0.17, 0.76)
LEFT_READY_RAD = tuple(-angle for angle in READY_RAD)  # the mirrored posture


def hand_yaw(position_m: np.ndarray, tilt_rad: float = TILT_RAD) -> float:
    """The hand's turn about the vertical that keeps the wrist at a comfortable distance from the shoulder (cosine law)."""
    dx, dy = position_m[0] - _SHOULDER_XY[0], position_m[1] - _SHOULDER_XY[1]
    distance = max(math.hypot(dx, dy), 0.05)
    forearm = _WRIST_TO_TOOL_M * math.sin(tilt_rad)
    reach = _REACH_M + _STRETCH * (distance - _MIDDLE_M)
    cosine = (distance**2 + forearm**2 - reach**2) / (2 * distance * forearm)
    return math.atan2(dy, dx) + math.acos(min(max(cosine, -1.0), 1.0))


def hand_rotation(position_m: np.ndarray, tilt_rad: float = TILT_RAD, ahead: float = 0.0) -> np.ndarray:
    """Rotation matrix [3, 3] of the tool at a position of the base frame; `ahead` as in `Intent`.

    A hand that points straight down can face straight ahead wherever the wrist gets to.
    """
    usual = 1.0 - ahead
    return tool_rotation(usual * tilt_rad, usual * hand_yaw(position_m, tilt_rad))
