"""What an expert wants of one hand in the next moment."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Intent:
    """Where the tool should be going [3], what the gripper should do (0 open, 1 close), and how far the hand should be turned
    from where it usually points to straight ahead and down (0 .. 1).
    """

    tool: np.ndarray
    gripper: float
    ahead: float = 0.0


def by_way_of_height(position: np.ndarray, goal: np.ndarray, height_m: float) -> np.ndarray:
    """A point to head for: sideways only as far as the position is high enough for where it is."""
    wanted_z = goal[2] + height_m
    allowed = min(max(1.0 - (wanted_z - position[2]) / 0.05, 0.0), 1.0)
    return np.array([*(position[:2] + allowed * (goal[:2] - position[:2])), wanted_z])
