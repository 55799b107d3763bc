"""How each hand is turned at each place of the table, and where both wait."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from envs.g1.arm_ik import ArmIk
from envs.g1.config import G1Config
from envs.restock.hand_pose import READY_RAD, hand_rotation

READY_TOOL_M = (0.56, -0.30, 0.80)  # the right hand's; beside the table's middle, out of the head camera's way
_MIRROR = np.diag([1.0, -1.0, 1.0])
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])  # the left gripper hangs the other way round


def left_rotation(position_m: np.ndarray) -> np.ndarray:
    """The left hand's rotation [3, 3] at a position: the right hand's, mirrored."""
    return _MIRROR @ hand_rotation(_MIRROR @ position_m) @ _MIRROR @ _HALF_TURN


ROTATION_AT: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"left": left_rotation, "right": hand_rotation}
)


def ready_tool(side: str) -> np.ndarray:
    """Where a hand waits [3]."""
    return np.array(READY_TOOL_M) if side == "right" else _MIRROR @ READY_TOOL_M


@functools.cache
def ready_arms(config: G1Config) -> np.ndarray:
    """Both arms' joints [14] at the ready places, left first, reached by small steps from the vendor's side of the table."""
    start = np.array(READY_RAD)
    arms = []
    for side, joints in (("left", -start), ("right", start)):
        ik = ArmIk(side, joints, config)
        begin = ik.pose(joints)[0]
        for share in np.linspace(0.0, 1.0, 20):
            tool = begin + share * (ready_tool(side) - begin)
            joints = ik.solve(joints, tool, ROTATION_AT[side](tool), 3)
        arms.append(joints)
    return np.concatenate(arms)
