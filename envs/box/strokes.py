"""How one hand raises one flap: where the fingertip should be, from the flap's angle and where the fingertip is.

Hand frame: (u, w, z) with u along the box (+ to the far end), w outward on this hand's own side, z up from the blank's
plane: both hands share one description. A flap turns about its hinge; the fingertip follows it at a radius, a little
behind its outer face, and so pushes it. Where the fingertip is elsewhere, it first goes out sideways to a free corridor
beside the box, along it, and in again: heights and depths are funnels over what is left to go, no timers.
"""

import dataclasses
import math

import numpy as np

from envs.box.config import ENDS, TAB_INSET_M, BlankSize
from envs.box.situation import CREASED_RAD, UPRIGHT_RAD, Situation

FINGER_M = 0.014  # distance from the fingertip's centre to the flap's middle plane when they touch
WALL_GOAL_RAD = UPRIGHT_RAD + 0.04  # slightly past the upright: a wall must not lean out
FINISHED_RAD = 0.08  # this close to its goal a flap has arrived
_CORRIDOR_M = 0.030  # room between a passing hand and what stands out furthest
_ABOVE_M = 0.045  # how high over the walls a hand leaves the box
_ASIDE_M = 0.030
_FUNNEL_START_M, _FUNNEL_M = 0.007, 0.04
_LEAD_M = 0.020  # how far past the touching point the hand aims while it pushes
_LAY_LEAD_M = 0.036  # the same while it lays a flap down: the sloping finger stays further from it


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One flap as seen by one hand.

    The flap turns about `hinge` [3] from direction `flat` [3] to direction `upright` [3]; the fingertip touches it at
    `radius` m from there. `angle` is where the flap is, `goal` where it should go; `gap` m lie between the fingertip's
    centre and the flap's middle plane when they touch.
    """

    hinge: np.ndarray
    flat: np.ndarray
    upright: np.ndarray
    radius: float
    angle: float
    goal: float
    gap: float = FINGER_M

    @property
    def along(self) -> np.ndarray:
        """Direction from the hinge to the flap's edge [3]."""
        return math.cos(self.angle) * self.flat + math.sin(self.angle) * self.upright

    @property
    def inwards(self) -> np.ndarray:
        """Direction in which the flap moves as it is raised [3]."""
        return math.cos(self.angle) * self.upright - math.sin(self.angle) * self.flat

    def touching(self, beyond_m: float = 0.0) -> np.ndarray:
        """Where the fingertip touches the outer face, or (`beyond_m` > 0) would be that much further in [3]."""
        return self.hinge + self.radius * self.along + (beyond_m - self.gap) * self.inwards

    def opening(self, beyond_m: float = 0.0) -> np.ndarray:
        """The same on the inner face: where a fingertip that lays the flap down again is [3]."""
        return self.hinge + self.radius * self.along + (self.gap - beyond_m) * self.inwards


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The blank's size; how far out (w, m) a hand passes freely beside it; whether the fingertip is between its walls."""

    size: BlankSize
    corridor_w: float
    is_inside: bool


def side_stroke(size: BlankSize, angle: float, goal: float, along_m: float = 0.0) -> Stroke:
    """The hand's own side wall."""
    hinge = np.array([along_m, size.half_width, 0.0])
    return Stroke(hinge, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]), 0.75 * size.height, angle, goal)


def tab_stroke(size: BlankSize, sign: float, angle: float, goal: float) -> Stroke:
    """A tab of the hand's own side wall; `sign` +1 at the far end, -1 at the near end."""
    hinge = np.array([sign * (size.half_length - TAB_INSET_M), size.half_width, 0.80 * size.height])
    return Stroke(hinge, np.array([sign, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]), 0.75 * size.tab, angle, goal)


def end_stroke(size: BlankSize, sign: float, angle: float, goal: float, reach_m: float = 0.016) -> Stroke:
    """An end wall, touched near its edge on the hand's side; `reach_m` is how far the fingertip gets under it."""
    hinge = np.array([sign * size.half_length, size.half_width - reach_m, 0.0])
    # Low at first; at last so high that the finger passes above the side wall.
    radius = (0.75 + 0.32 * min(angle / UPRIGHT_RAD, 1.0)) * size.height
    # The finger slopes down to its tip: it meets the edge of a lying wall first.
    gap = FINGER_M + 0.55 * reach_m * max(math.cos(angle), 0.0)
    return Stroke(hinge, np.array([sign, 0.0, 0.0]), np.array([0.0, 0.0, 1.0]), radius, angle, goal, gap)


def push(stroke: Stroke, tip: np.ndarray, around: Surroundings) -> np.ndarray:
    """Where the fingertip should go next [3] to raise the flap from outside."""
    if is_engaged(stroke, tip):
        if stroke.angle > stroke.goal - FINISHED_RAD:  # the other hand is still at work: wait here
            return stroke.touching(-0.006)
        return stroke.touching(min(_LEAD_M, 0.006 + 0.7 * stroke.radius * (stroke.goal - stroke.angle)))
    return go_round(tip, stroke.touching(-0.006), around)


def is_engaged(stroke: Stroke, tip: np.ndarray) -> bool:
    """Whether the fingertip is at the flap's outer face, where it can push."""
    offset, along, inwards = tip - stroke.touching(), stroke.along, stroke.inwards
    depth, slip = float(offset @ inwards), float(offset @ along)
    beside = float(np.linalg.norm(offset - depth * inwards - slip * along))
    return -0.018 < depth < 0.010 and abs(slip) < 0.022 and beside < 0.022


def go_round(tip: np.ndarray, target: np.ndarray, around: Surroundings) -> np.ndarray:
    """A point to head for on the way to a target outside the box: out to the corridor, along it, in again."""
    size, corridor_w = around.size, around.corridor_w
    if around.is_inside:
        return np.array([tip[0], tip[1], size.height + _ABOVE_M])
    gap = math.hypot(target[0] - tip[0], target[2] - tip[2])
    wanted_w = target[1] + (corridor_w - target[1]) * funnel(gap)
    allowed = min(max(1.0 - (wanted_w - tip[1]) / 0.02, 0.0), 1.0)
    aside = math.copysign(_ASIDE_M, tip[0]) * (1.0 - allowed) if abs(tip[0]) > size.half_length else 0.0
    along = tip[0] + allowed * (target[0] - tip[0]) + aside  # off a folded tab, which would hook on to the finger
    return np.array([along, wanted_w, tip[2] + allowed * (target[2] - tip[2])])


def lay_down(stroke: Stroke, tip: np.ndarray, size: BlankSize) -> np.ndarray:
    """Where the fingertip should go next [3] to lay a standing flap down again, from inside the box."""
    if is_laying_down(stroke, tip):
        return stroke.opening(_LAY_LEAD_M)
    start = stroke.opening(-0.008)
    gap = math.hypot(start[0] - tip[0], start[1] - tip[1])
    wanted_z = start[2] + (size.height + _ABOVE_M - start[2]) * funnel(gap)
    allowed = min(max(1.0 - (wanted_z - tip[2]) / 0.03, 0.0), 1.0)
    return np.array([tip[0] + allowed * (start[0] - tip[0]), tip[1] + allowed * (start[1] - tip[1]), wanted_z])


def is_laying_down(stroke: Stroke, tip: np.ndarray) -> bool:
    """Whether the fingertip is at the flap's inner face."""
    offset, inwards = tip - stroke.opening(), stroke.inwards
    depth = float(offset @ inwards)
    return -0.025 < depth < 0.020 and float(np.linalg.norm(offset - depth * inwards)) < 0.025


def surroundings(situation: Situation, index: int, tip: np.ndarray) -> Surroundings:
    """What hand `index` (0 left, 1 right) has to mind with its fingertip at `tip` [3]."""
    size, side = situation.size, situation.side(index)
    corridor_w = size.half_width + size.height * max(math.cos(side), 0.0) + _CORRIDOR_M
    over = tip[1] < size.half_width and tip[2] < size.height + 0.015
    beyond = abs(tip[0]) - size.half_length
    end = ENDS[0] if tip[0] > 0.0 else ENDS[1]
    wall = situation.end(end)
    above_wall = tip[2] * math.cos(wall) - beyond * math.sin(wall) > 0.005
    inside = over and (beyond < 0.0 or (above_wall and situation.tab(index, end) < CREASED_RAD))
    return Surroundings(size, corridor_w, bool(inside))


def funnel(gap_m: float) -> float:
    """How far out to be: 0 at the target, 1 from `_FUNNEL_M` away, smooth between."""
    x = min(max((gap_m - _FUNNEL_START_M) / _FUNNEL_M, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)
