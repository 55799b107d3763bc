"""The scripted expert: from the privileged state to joint targets, both hands at once, at a person's speed.

What it does next follows from the state alone (angles, latches, fingertips), not from a script with timers: so it
recovers from flaps that fell back or were missed and undoes a wall that was folded too early, and a policy can copy it.
"""

import dataclasses

import numpy as np

from envs.box.config import ENDS, SIDES
from envs.box.hand_pose import READY_RAD, TIP_M, left_hand_rotation, right_hand_rotation
from envs.box.situation import (
    CREASED_RAD,
    Goal,
    Situation,
    has_tab_outside,
    in_base_frame,
    in_box_frame,
    is_closed,
)
from envs.box.strokes import (
    FINISHED_RAD,
    WALL_GOAL_RAD,
    Stroke,
    end_stroke,
    go_round,
    is_engaged,
    is_laying_down,
    lay_down,
    push,
    side_stroke,
    surroundings,
    tab_stroke,
)
from envs.box.task import BoxTask
from envs.environment import Environment
from envs.g1.drive import LEFT_ARM, RIGHT_ARM
from envs.g1.tool_motion import ToolMotion

_SIGNS = (1.0, -1.0)  # of a hand's outward direction along v: left, right; of an end along u: far, near
_ROTATIONS = {"left": left_hand_rotation, "right": right_hand_rotation}
_ARMS = {"left": LEFT_ARM, "right": RIGHT_ARM}
_STANDS_RAD, _TUCKED_RAD, _ALMOST_TUCKED_RAD = 1.38, 1.02, 0.85
_BARRING_RAD, _LAID_RAD = 0.55, 0.35  # an end wall above the first bars the tabs; it is laid down below the second
_LAY_DOWN_REACH_M = 0.045
_WORK_LOW_M, _WORK_HIGH_M = (0.47, 0.0, 0.632), (0.82, 0.29, 0.82)


@dataclasses.dataclass(frozen=True)
class Style:
    """How one demonstrator moves: speed [m/s], which end first, where along the side wall and how far under the end
    wall the fingertips go [m], how far a tab is folded by hand [rad].
    """

    speed_m_s: float = 0.30
    first_end: str = "far"
    side_along_m: tuple[float, float] = (0.0, 0.0)
    end_reach_m: float = 0.018
    tuck_rad: float = 1.22

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A plausible demonstrator."""
        return cls(
            speed_m_s=rng.uniform(0.25, 0.35),
            first_end=str(rng.choice(ENDS)),
            side_along_m=(rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015)),
            end_reach_m=rng.uniform(0.014, 0.022),
            tuck_rad=rng.uniform(1.18, 1.26),
        )


class BoxExpert:
    """Demonstrates the task and takes over from a policy. `reset` before the first `act` of each turn."""

    def __init__(self, env: Environment, task: BoxTask, style_seed: int = 0, instruction: str | None = None) -> None:
        """`instruction` replaces the episode's own (to measure how much the words matter)."""
        self._env, self._task, self._style_seed, self._instruction = env, task, style_seed, instruction
        self._motions = {side: _motion(side, task) for side in SIDES}
        self._style = Style()

    def reset(self) -> None:
        """Starts from wherever the robot is; the style follows from the style seed and the episode's seed."""
        self._style = Style.draw(np.random.default_rng((self._style_seed, self._env.episode_seed)))
        measured = self._task.drive.state(self._env.data)
        for side, motion in self._motions.items():
            motion.reset(measured[_ARMS[side]])

    def act(self) -> np.ndarray:
        """The next action, float32 [16]."""
        measured = self._task.drive.state(self._env.data)
        situation = self._task.situation
        goal = self._task.parse(self._instruction or self._env.instruction)
        action = self._task.rest_state
        for side, tip in zip(SIDES, plan(situation, goal, self._style), strict=True):
            tool = tip - TIP_M * _ROTATIONS[side](tip)[:, 2]
            arm = _ARMS[side]
            action[arm] = self._motions[side].step(measured[arm], tool, self._style.speed_m_s)
        return action.astype(np.float32)


def plan(situation: Situation, goal: Goal, style: Style) -> np.ndarray:
    """Where both fingertips should go next [2, 3], base frame: a function of state alone."""
    mirrors = [np.array([1.0, sign, 1.0]) for sign in _SIGNS]  # between the box frame and each hand's own
    tips = [
        np.array(in_box_frame(situation, tip)) * mirror for tip, mirror in zip(situation.tips, mirrors, strict=True)
    ]
    targets = [_hand_target(situation, goal, style, index, tips) for index in range(len(SIDES))]
    return np.array([in_base_frame(situation, target * m) for target, m in zip(targets, mirrors, strict=True)])


def _hand_target(situation: Situation, goal: Goal, style: Style, index: int, tips: list[np.ndarray]) -> np.ndarray:
    """Where one hand's fingertip should go next [3]; `tips` are both, each in its own hand's frame."""
    tip = tips[index]
    around = surroundings(situation, index, tip)
    rest = np.array([0.0, around.corridor_w + 0.04, 0.08])
    if is_closed(situation, goal):
        return go_round(tip, rest, around)
    for end, sign in zip(ENDS, _SIGNS, strict=True):
        stroke = end_stroke(situation.size, sign, situation.end(end), 0.0, _LAY_DOWN_REACH_M)
        worker = ENDS.index(end)  # one hand is enough: the left one for the far end
        if must_reopen(situation, goal, end, is_laying_down(stroke, tips[worker])):
            return lay_down(stroke, tip, situation.size) if index == worker else go_round(tip, rest, around)
    strokes = _next_strokes(situation, goal, style, tips)
    return push(strokes[index], tip, around) if strokes else go_round(tip, rest, around)


def _next_strokes(situation: Situation, goal: Goal, style: Style, tips: list[np.ndarray]) -> list[Stroke]:
    """What the left and the right hand fold next, both at once; nothing where all is folded."""
    size = situation.size
    along = style.side_along_m
    sides = [side_stroke(size, situation.side(i), WALL_GOAL_RAD, along[i]) for i in (0, 1)]
    if any(map(_is_wanting, sides, tips, (_STANDS_RAD, _STANDS_RAD))):
        return sides
    wanting = [end for end in goal.ends if end not in situation.latched]
    for end in sorted(wanting, key=lambda end: end != style.first_end):
        sign, angle = _SIGNS[ENDS.index(end)], situation.end(end)
        tabs = [tab_stroke(size, sign, situation.tab(i, end), style.tuck_rad) for i in (0, 1)]
        if angle < CREASED_RAD and any(map(_is_wanting, tabs, tips, (_TUCKED_RAD, _TUCKED_RAD))):
            return tabs
        return [end_stroke(size, sign, angle, WALL_GOAL_RAD, style.end_reach_m)] * 2
    return []


def must_reopen(situation: Situation, goal: Goal, end: str, is_at_it: bool) -> bool:
    """Whether an end wall was folded too early, or should not have been folded at all, and has to be laid down; a hand
    that `is_at_it` lays it down further than needed.
    """
    if end in situation.latched or situation.end(end) < (_LAID_RAD if is_at_it else _BARRING_RAD):
        return False
    tab_out = min(situation.tab(0, end), situation.tab(1, end)) < _ALMOST_TUCKED_RAD
    return end not in goal.ends or tab_out or has_tab_outside(situation, end)


def _is_wanting(stroke: Stroke, tip: np.ndarray, enough_rad: float) -> bool:
    """Whether a flap still has to be raised; a hand that is at it finishes its work, one that is not leaves well alone."""
    return stroke.angle < (stroke.goal - FINISHED_RAD if is_engaged(stroke, tip) else enough_rad)


def _motion(side: str, task: BoxTask) -> ToolMotion:
    low, high = np.array(_WORK_LOW_M), np.array(_WORK_HIGH_M)
    if side == "right":
        low[1], high[1] = -_WORK_HIGH_M[1], -_WORK_LOW_M[1]
    return ToolMotion(side, np.array(READY_RAD[side]), _ROTATIONS[side], low, high, task.config.robot)
