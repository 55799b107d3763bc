"""When a shirt counts as folded and stacked: outline, corners, pose. Every threshold is here.

Overlap alone would pass a fold with one corner turned in (measured: 37 mm off at 0.93), so corners count too.
"""

import dataclasses

import numpy as np

from envs.laundry.layout import Pose, errors, fit, outline_overlap, seen_order
from envs.laundry.shirt import Shirt

MIN_OVERLAP = 0.80  # intersection over union of the outline with that of the ideal fold
MAX_CORNER_M = 0.025  # the worst of the corners: shoulders, hem, and the ends of the last fold
MAX_OFFSET_M = 0.035  # the packet's middle from the middle of the mat
MAX_YAW_RAD = 0.30  # the packet's turn against the mat
MAX_HEIGHT_M = 0.04  # the highest vertex above the surface it lies on


@dataclasses.dataclass(frozen=True)
class Fold:
    """How a shirt lies compared with the ideal fold: `overlap` 0 .. 1, worst corner in m, the packet's pose."""

    overlap: float
    corner_m: float
    pose: Pose


def corner_vertices(shirt: Shirt) -> list[int]:
    """The vertices that make the corners of the folded shirt."""
    return [*shirt.shoulders, *shirt.hems, *shirt.waists]


def measure_fold(shirt: Shirt, vertices: np.ndarray) -> Fold:
    """Compares vertices [V, 2 or 3] with the ideal fold, wherever on the table it lies."""
    seen = vertices[seen_order(shirt, vertices), :2]
    pose = fit(seen, shirt.folded)
    corners = corner_vertices(shirt)
    return Fold(
        overlap=outline_overlap(pose.local(seen), shirt.folded, shirt.triangles),
        corner_m=float(errors(seen[corners], shirt.folded[corners], pose).max()),
        pose=pose,
    )


def is_folded(fold: Fold) -> bool:
    """Whether outline and corners are those of a folded shirt."""
    return fold.overlap >= MIN_OVERLAP and fold.corner_m <= MAX_CORNER_M


def is_placed(pose: Pose, stack_m: np.ndarray) -> bool:
    """Whether a packet lies straight on the stack at `stack_m` [2]."""
    near = float(np.linalg.norm(pose.centre - stack_m)) <= MAX_OFFSET_M
    return near and abs(pose.yaw_rad) <= MAX_YAW_RAD


def is_stacked(shirt: Shirt, vertices: np.ndarray, stack_m: np.ndarray, surface_m: float) -> bool:
    """Whether the shirt [V, 3] lies folded on the stack at `stack_m` [2], whose top is at `surface_m`."""
    offset_m = float(np.linalg.norm(vertices[:, :2].mean(axis=0) - stack_m))
    if vertices[:, 2].max() > surface_m + MAX_HEIGHT_M or offset_m > 2 * MAX_OFFSET_M:
        return False  # plainly not: spares the measuring at every tick of an episode
    fold = measure_fold(shirt, vertices)
    return is_folded(fold) and is_placed(fold.pose, stack_m)
