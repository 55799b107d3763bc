"""The privileged state of one control tick, and what follows from it: which tab lies inside, which end may latch.

Box frame: u along the box (+ to the far end), v to the left, z up from the blank's plane. Order of walls and tabs:
`WALLS` and `TABS` of the configuration.
"""

import dataclasses
import math

import numpy as np

from envs.box.blank import TAB_INSET_M
from envs.box.config import ENDS, SIDES, BlankSize

STAGES = ("reach", "fold_sides", "tuck_tabs", "close", "release", "done")
UPRIGHT_RAD = math.pi / 2
RETREAT_M = 0.06  # how far outside the box both fingertips must be at the end
CREASED_RAD = 0.6  # a wall below this angle counts as lying
RAISED_RAD = 1.0  # and one above this as standing
_LATCH_RAD = 0.13  # how near to the upright an end wall must come to click
_SQUARE_RAD = 0.25  # how near to the upright side walls and tabs must be for it
_NEAR_M = 0.05


@dataclasses.dataclass(frozen=True)
class Goal:
    """What an instruction asks for: the ends to close; the other one stays open."""

    ends: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Situation:
    """What expert, gate and judgement look at.

    `pose` [3]: the bottom's x, y [m, base frame] and yaw; `plane_m` its height. `walls` [4] and `tabs` [4] in rad, 0
    flat; `latched` holds names of ends. `tips` [2, 3]: left and right fingertip in the base frame, m. `force_n`: the
    largest force with which the robot presses on the board at one place.
    """

    size: BlankSize
    pose: np.ndarray
    plane_m: float
    walls: np.ndarray
    tabs: np.ndarray
    latched: frozenset[str]
    tips: np.ndarray
    force_n: float
    time_s: float

    def side(self, index: int) -> float:
        """Angle of a side wall, 0 left, 1 right."""
        return self.walls.item(index)

    def end(self, end: str) -> float:
        """Angle of an end wall."""
        return self.walls.item(len(SIDES) + ENDS.index(end))

    def tab(self, index: int, end: str) -> float:
        """Angle of the tab that side wall `index` has at `end`."""
        return self.tabs.item(len(ENDS) * index + ENDS.index(end))


def in_box_frame(situation: Situation, position: np.ndarray) -> tuple[float, float, float]:
    """A position [3] of the base frame as (u, v, z)."""
    (x, y, yaw), (at_x, at_y, at_z) = situation.pose.tolist(), position.tolist()
    cos, sin = math.cos(yaw), math.sin(yaw)
    dx, dy = at_x - x, at_y - y
    return cos * dx + sin * dy, cos * dy - sin * dx, at_z - situation.plane_m


def in_base_frame(situation: Situation, position: np.ndarray) -> np.ndarray:
    """A position (u, v, z) of the box frame in the base frame [3]."""
    x, y, yaw = situation.pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    u, v, z = position
    return np.array([x + cos * u - sin * v, y + sin * u + cos * v, situation.plane_m + z])


def tab_depth(situation: Situation, index: int, end: str) -> float:
    """How far (m) the edge of a tab lies on the inner side of its end wall's plane; negative: on the outer side."""
    wall, tab, side = situation.end(end), situation.tab(index, end), situation.side(index)
    beyond_hinge = situation.size.tab * math.cos(tab) - TAB_INSET_M
    inwards = situation.size.tab * math.sin(tab)
    above = situation.size.height / 2 * math.sin(side) + inwards * math.cos(side)
    return above * math.cos(wall) - beyond_hinge * math.sin(wall)


def has_tab_outside(situation: Situation, end: str) -> bool:
    """Whether an end wall stands with a tab on its outer side: folded in the wrong order."""
    return situation.end(end) > RAISED_RAD and any(tab_depth(situation, index, end) < 0.0 for index in (0, 1))


def sides_stand(situation: Situation) -> bool:
    """Whether both side walls stand (one that is pressed in a little further springs back)."""
    return min(situation.side(0), situation.side(1)) > UPRIGHT_RAD - _SQUARE_RAD


def may_latch(situation: Situation, end: str) -> bool:
    """Whether an end clicks now: everything square, and both tabs behind the wall."""
    if abs(situation.end(end) - UPRIGHT_RAD) >= _LATCH_RAD:  # so on most ticks
        return False
    square = [angle for index in (0, 1) for angle in (situation.side(index), situation.tab(index, end))]
    return all(abs(angle - UPRIGHT_RAD) < _SQUARE_RAD for angle in square) and not has_tab_outside(situation, end)


def is_closed(situation: Situation, goal: Goal) -> bool:
    """Whether the named ends, and only they, are closed; the other one lies open."""
    others = (end for end in ENDS if end not in goal.ends)
    return set(goal.ends) == situation.latched and all(situation.end(end) < RAISED_RAD for end in others)


def is_done(situation: Situation, goal: Goal) -> bool:
    """Whether the box is as asked for and both hands have drawn back."""
    return is_closed(situation, goal) and min(clearance(situation, index) for index in (0, 1)) > RETREAT_M


def clearance(situation: Situation, index: int) -> float:
    """How far (m) a fingertip is outside the box's four standing walls."""
    u, v, z = in_box_frame(situation, situation.tips[index])
    size = situation.size
    beyond = (abs(u) - size.half_length, abs(v) - size.half_width, z - size.height)
    return math.hypot(*(max(distance, 0.0) for distance in beyond))


def stage_of(situation: Situation, goal: Goal) -> str:
    """One of `STAGES`, from the state alone."""
    if is_closed(situation, goal):
        return "done" if is_done(situation, goal) else "release"
    if not sides_stand(situation):
        lying = max(situation.side(0), situation.side(1)) < CREASED_RAD
        far_off = min(clearance(situation, index) for index in (0, 1)) > situation.size.height + _NEAR_M
        return "reach" if lying and far_off else "fold_sides"
    wanting = [end for end in goal.ends if end not in situation.latched]
    ready = [end for end in wanting if min(situation.tab(index, end) for index in (0, 1)) > RAISED_RAD]
    return "close" if ready else "tuck_tabs"
