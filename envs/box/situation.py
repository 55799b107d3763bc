"""The privileged state of one control tick, and what follows from it: which tab lies inside, which end may latch.

Box frame: u along the box (+ to the far end), v to the left, z up from the blank's plane. Order of walls and tabs:
`WALLS` and `TABS` of the configuration.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from envs.box.config import ENDS, SIDES, TAB_INSET_M, BlankSize

STAGES = ("reach", "fold_sides", "tuck_tabs", "close", "release", "done")
UPRIGHT_RAD = math.pi / 2
RETREAT_M = 0.06  # how far outside the box both fingertips must be at the end
CREASED_RAD = 0.6  # a wall below this angle counts as lying
RAISED_RAD = 1.0  # and one above this as standing
_LATCH_RAD = 0.13  # how near to the upright an end wall must come to click
_SQUARE_RAD = 0.25  # how near to the upright side walls and tabs must be for it
_STANDING_RAD = UPRIGHT_RAD - _SQUARE_RAD
_NEAR_M = 0.05
_END_WALLS = {end: len(SIDES) + index for index, end in enumerate(ENDS)}  # their places among the walls


@dataclasses.dataclass(frozen=True)
class Goal:
    """What an instruction asks for: the ends to close; the other one stays open."""

    ends: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class BlankState:
    """How the blank lies and how it is folded: what is judged on every tick, so in plain numbers and not frozen, which
    takes half the time.

    `pose` [3]: the bottom's x, y [m, base frame] and yaw; `plane_m` its height. `walls` [4] and `tabs` [4] in rad, 0
    flat; `latched` holds names of ends.
    """

    size: BlankSize
    pose: tuple[float, float, float]
    plane_m: float
    walls: Sequence[float]
    tabs: Sequence[float]
    latched: frozenset[str]

    def side(self, index: int) -> float:
        """Angle of a side wall, 0 left, 1 right."""
        return self.walls[index]

    def end(self, end: str) -> float:
        """Angle of an end wall."""
        return self.walls[_END_WALLS[end]]

    def tab(self, index: int, end: str) -> float:
        """Angle of the tab that side wall `index` has at `end`."""
        return self.tabs[len(ENDS) * index + ENDS.index(end)]


@dataclasses.dataclass(slots=True)
class Situation(BlankState):
    """What expert and gate look at: the blank and the hands.

    `tips` [2, 3]: left and right fingertip in the base frame, m. `force_n`: the largest force with which the robot presses
    on the board at one place.
    """

    tips: Sequence[Sequence[float]]
    force_n: float
    time_s: float


def in_box_frame(blank: BlankState, position: Sequence[float]) -> tuple[float, float, float]:
    """A position [3] of the base frame as (u, v, z)."""
    (x, y, yaw), (at_x, at_y, at_z) = blank.pose, position
    cos, sin = math.cos(yaw), math.sin(yaw)
    dx, dy = at_x - x, at_y - y
    return cos * dx + sin * dy, cos * dy - sin * dx, at_z - blank.plane_m


def in_base_frame(situation: Situation, position: np.ndarray) -> np.ndarray:
    """A position (u, v, z) of the box frame in the base frame [3]."""
    x, y, yaw = situation.pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    u, v, z = position
    return np.array([x + cos * u - sin * v, y + sin * u + cos * v, situation.plane_m + z])


def tab_depth(blank: BlankState, index: int, end: str) -> float:
    """How far (m) the edge of a tab lies on the inner side of its end wall's plane; negative: on the outer side."""
    wall, tab, side = blank.end(end), blank.tab(index, end), blank.side(index)
    beyond_hinge = blank.size.tab * math.cos(tab) - TAB_INSET_M
    inwards = blank.size.tab * math.sin(tab)
    above = blank.size.height / 2 * math.sin(side) + inwards * math.cos(side)
    return above * math.cos(wall) - beyond_hinge * math.sin(wall)


def has_tab_outside(blank: BlankState, end: str) -> bool:
    """Whether an end wall stands with a tab on its outer side: folded in the wrong order."""
    if blank.walls[_END_WALLS[end]] <= RAISED_RAD:
        return False
    return tab_depth(blank, 0, end) < 0.0 or tab_depth(blank, 1, end) < 0.0


def sides_stand(blank: BlankState) -> bool:
    """Whether both side walls stand (one that is pressed in a little further springs back)."""
    return blank.walls[0] > _STANDING_RAD and blank.walls[1] > _STANDING_RAD


def may_latch(blank: BlankState, end: str) -> bool:
    """Whether an end clicks now: everything square, and both tabs behind the wall."""
    if abs(blank.walls[_END_WALLS[end]] - UPRIGHT_RAD) >= _LATCH_RAD:  # so on most ticks
        return False
    square = [angle for index in (0, 1) for angle in (blank.side(index), blank.tab(index, end))]
    return all(abs(angle - UPRIGHT_RAD) < _SQUARE_RAD for angle in square) and not has_tab_outside(blank, end)


def is_closed(blank: BlankState, goal: Goal) -> bool:
    """Whether the named ends, and only they, are closed; the other one lies open."""
    if set(goal.ends) != blank.latched:  # so on most ticks
        return False
    return all(blank.end(end) < RAISED_RAD for end in ENDS if end not in goal.ends)


def have_drawn_back(blank: BlankState, tips: Sequence[Sequence[float]]) -> bool:
    """Whether both hands are off the box."""
    return clearance(blank, tips[0]) > RETREAT_M and clearance(blank, tips[1]) > RETREAT_M


def clearance(blank: BlankState, tip: Sequence[float]) -> float:
    """How far (m) a fingertip [3] is outside the box's four standing walls."""
    u, v, z = in_box_frame(blank, tip)
    size = blank.size
    beyond_m = max(abs(u) - size.half_length, 0.0), max(abs(v) - size.half_width, 0.0), max(z - size.height, 0.0)
    return math.hypot(*beyond_m)


def stage_of(situation: Situation, goal: Goal) -> str:
    """One of `STAGES`, from the state alone."""
    if is_closed(situation, goal):
        return "done" if have_drawn_back(situation, situation.tips) else "release"
    if not sides_stand(situation):
        lying = max(situation.side(0), situation.side(1)) < CREASED_RAD
        far_off = min(clearance(situation, tip) for tip in situation.tips) > situation.size.height + _NEAR_M
        return "reach" if lying and far_off else "fold_sides"
    wanting = [end for end in goal.ends if end not in situation.latched]
    ready = [end for end in wanting if min(situation.tab(index, end) for index in (0, 1)) > RAISED_RAD]
    return "close" if ready else "tuck_tabs"
