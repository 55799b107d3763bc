"""How the hands are turned, and their ready postures: both point inwards and down, as a person's do who folds a box.

With the lift raised the shoulders stand well above the work, so that one hand direction serves the whole blank; it
turns a little forward at the far end, where the arm is nearly straight.
"""

from types import MappingProxyType

import numpy as np

from envs.g1.arm_ik import tool_rotation

TILT_RAD = 1.0  # from pointing straight down
TIP_M = 0.014  # the fingertip's centre lies this far beyond the tool point, along the hand
_YAW_RAD, _YAW_AT_M, _YAW_PER_M = 1.42, 0.635, -0.8
_OTHER_WAY_ROUND = np.diag([-1.0, -1.0, 1.0])  # the left hand hangs half a turn about its axis from the right one

# With the stand of `BoxConfig` and its lift: beside the blank, where the hands hide nothing from the head camera.
READY_RAD = MappingProxyType(
    {
        "left": (-1.079, 0.664, 0.326, -1.023, 1.169, 1.488, 0.261),
        "right": (1.077, -0.666, -0.326, 1.03, -1.17, -1.484, -0.256),
    }
)
READY_TOOL_M = MappingProxyType({"left": (0.635, 0.235, 0.745), "right": (0.635, -0.235, 0.745)})


def right_hand_rotation(position_m: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of the right tool at a position of the base frame."""
    return tool_rotation(TILT_RAD, _yaw(position_m))


def left_hand_rotation(position_m: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of the left tool at a position of the base frame."""
    return tool_rotation(TILT_RAD, -_yaw(position_m)) @ _OTHER_WAY_ROUND


def _yaw(position_m: np.ndarray) -> float:
    return _YAW_RAD + _YAW_PER_M * (float(position_m[0]) - _YAW_AT_M)
