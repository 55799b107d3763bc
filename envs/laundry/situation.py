"""The privileged state of one control tick, and what follows from it: how far the folding has come.

Hands are (left, right). The shirt is looked at as "seen" (see `layout`), so left always means the robot's left.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from envs.laundry.config import LaundryConfig
from envs.laundry.judgement import is_folded, is_stacked, measure_fold
from envs.laundry.layout import Pose, errors, fit, seen_order
from envs.laundry.shirt import Shirt

STAGES = ("flatten", "fold_left_sleeve", "fold_right_sleeve", "fold_bottom", "stack", "done")
RETREAT_M = 0.045  # how far the fingertips must be above the stacked shirt for it to count as left alone
EMPTY_CLOSED = 0.95  # pads closed this far would hold cloth if there were any
FLAT_M = 0.022  # the body counts as flat while none of its vertices is further from its place
SLEEVE_OUT_M = 0.012  # a sleeve counts as folded in while no vertex of it sticks out further beyond its seam
HEM_UP_M = 0.045  # the body counts as folded up while none of its vertices is further from its place
_PACKET_M = 0.08  # with a vertex of the body further from its folded place, outline and corners need no measuring
_STILL_M_S = 0.08
_OVER_STACK_M = 0.10


@dataclasses.dataclass(frozen=True)
class Goal:
    """What an instruction asks for: the stack, by name."""

    stack: str


@dataclasses.dataclass(frozen=True)
class Situation:
    """What expert, gate and judgement look at. Positions in m in the base frame.

    `tools` and `tips` [2, 3]: the hands' tool points and fingertips; `vertices` [V, 3] of the shirt, `speed_m_s` of its
    fastest vertex; `held`: the vertices in each hand, nearest first; `closures` and `commands` [2]: the grippers'
    measured and commanded values, 0 open .. 1 closed; `surfaces_m`: the heights of the stacks' tops, by name.
    """

    tools: np.ndarray
    tips: np.ndarray
    vertices: np.ndarray
    speed_m_s: float
    held: tuple[tuple[int, ...], tuple[int, ...]]
    closures: np.ndarray
    commands: np.ndarray
    surfaces_m: Mapping[str, float]
    time_s: float

    @property
    def hands_empty(self) -> bool:
        """Whether neither hand holds cloth."""
        return not any(self.held)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the shirt lies. `order` [V] says which vertex plays each part; `pose` is that of the upper body, which no
    fold moves; `upper_m`, `lower_m`: the worst vertex of either half from its flat place; `sleeves_in`:
    (left, right); `hem_up`: the lower body lies folded on the upper.
    """

    order: np.ndarray
    pose: Pose
    upper_m: float
    lower_m: float
    sleeves_in: tuple[bool, bool]
    hem_up: bool
    is_folded: bool

    @property
    def is_flat(self) -> bool:
        """Whether the body lies flat, whatever the sleeves do."""
        return max(self.upper_m, self.lower_m) < FLAT_M


def read(config: LaundryConfig, vertices: np.ndarray) -> Reading:
    """Reads how the shirt [V, 3] lies."""
    shirt = config.shirt
    order = seen_order(shirt, vertices)
    seen = vertices[order, :2]
    upper = shirt.is_upper
    pose = fit(seen[upper], shirt.rest[upper])
    flat = errors(seen, shirt.rest, pose)
    upper_m, lower_m = float(flat[upper].max()), float(flat[shirt.is_body & ~upper].max())
    out = sleeves_out(shirt, pose.local(seen))
    up_m = errors(seen, shirt.steps[3], pose)
    hem_up = upper_m < HEM_UP_M and float(up_m[shirt.is_body].max()) < HEM_UP_M
    packet = float(up_m[shirt.is_body].max()) < _PACKET_M and is_folded(measure_fold(shirt, vertices))
    left_in, right_in = (upper_m < FLAT_M and float(side.max()) < SLEEVE_OUT_M for side in out)
    return Reading(order, pose, upper_m, lower_m, (left_in, right_in), hem_up, packet)


def sleeves_out(shirt: Shirt, local: np.ndarray) -> np.ndarray:
    """How far each vertex of each sleeve sticks out beyond its seam [2, V] in m; -inf elsewhere. `local` [V, 2]: as
    seen, in the shirt's frame.
    """
    seam_m = shirt.rest[shirt.shoulders[0], 1]
    return np.where(shirt.is_sleeve, np.stack([local[:, 1], -local[:, 1]]) - seam_m, -np.inf)


def stage_of(reading: Reading) -> str:
    """What has to be done next, one of `STAGES` before done, from how the shirt lies."""
    if reading.is_folded:
        return "stack"
    if reading.hem_up or all(reading.sleeves_in):
        return "fold_bottom"
    if not reading.is_flat:
        return "flatten"
    return "fold_right_sleeve" if reading.sleeves_in[0] else "fold_left_sleeve"


def is_done(config: LaundryConfig, situation: Situation, goal: Goal) -> bool:
    """Whether the folded shirt rests on the named stack and both hands have let go of it and drawn back."""
    low = situation.vertices[:, 2].max() + RETREAT_M
    over = np.abs(situation.tips[:, :2] - config.stack_centres_m[goal.stack]).max(axis=1) < 0.12
    return (
        situation.hands_empty
        and situation.speed_m_s < _STILL_M_S
        and not bool((over & (situation.tips[:, 2] < low)).any())
        and is_stacked(
            config.shirt, situation.vertices, config.stack_centres_m[goal.stack], situation.surfaces_m[goal.stack]
        )
    )


def stack_under(config: LaundryConfig, vertices: np.ndarray) -> str | None:
    """The stack over which the shirt's middle is, folded or not; None elsewhere."""
    middle = vertices[:, :2].mean(axis=0)
    stacks = config.stack_centres_m.items()
    return next((name for name, centre in stacks if float(np.linalg.norm(middle - centre)) < _OVER_STACK_M), None)
