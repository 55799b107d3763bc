"""How much is left to do: a distance that falls all the way while things go well, step by step."""

import dataclasses
import math

import numpy as np

from envs.box.config import ENDS
from envs.box.situation import (
    CREASED_RAD,
    RETREAT_M,
    UPRIGHT_RAD,
    Goal,
    Situation,
    clearance,
    in_box_frame,
    is_closed,
    sides_stand,
)

_ARRIVED_RAD = 1.0  # a tab this far in is pressed home by its end wall


@dataclasses.dataclass(frozen=True)
class Progress:
    """`step` counts what is finished (0: the sides lie .. one more for each pair of tabs and each end); `remaining_m`
    is what is left of the step: the way of the flaps' edges, and of the hands to the work.
    """

    step: int
    remaining_m: float


def progress_of(situation: Situation, goal: Goal) -> Progress:
    """Where an episode stands, from the state alone."""
    size = situation.size
    if is_closed(situation, goal):
        return Progress(6, sum(max(RETREAT_M - clearance(situation, tip), 0.0) for tip in situation.tips))
    if not sides_stand(situation) and not situation.latched:
        lying = [max(UPRIGHT_RAD - situation.side(index), 0.0) for index in (0, 1)]
        return Progress(0, size.height * sum(lying) + _reach(situation, 0.0))
    step = 1 + 2 * len(situation.latched & set(goal.ends))
    wanting = [end for end in goal.ends if end not in situation.latched]
    # Whichever end is further on is the one at work.
    choices = [_end_progress(situation, end, step) for end in wanting]
    return max(choices, key=lambda choice: (choice.step, -choice.remaining_m), default=Progress(step, math.inf))


def _end_progress(situation: Situation, end: str, step: int) -> Progress:
    size = situation.size
    sign = 1.0 if end == ENDS[0] else -1.0
    out = [max(UPRIGHT_RAD - situation.tab(index, end), 0.0) for index in (0, 1)]
    reach = _reach(situation, sign * size.half_length)
    if max(out) > UPRIGHT_RAD - _ARRIVED_RAD and situation.end(end) < CREASED_RAD:
        return Progress(step, size.tab * sum(out) + reach)
    lying = max(UPRIGHT_RAD - situation.end(end), 0.0)
    leaning = sum(abs(UPRIGHT_RAD - situation.side(index)) for index in (0, 1))
    return Progress(step + 1, size.height * (2.0 * lying + leaning) + size.tab * sum(out) + reach)


def _reach(situation: Situation, along_m: float) -> float:
    """How far both hands still are from work at a place along the box, on their own sides of it."""
    total = 0.0
    for index, sign in enumerate((1.0, -1.0)):
        u, v, z = in_box_frame(situation, situation.tips[index])
        beside = max(sign * v - situation.size.half_width - situation.size.height, 0.0)
        above = max(z - situation.size.height, 0.0)
        total += float(np.linalg.norm([u - along_m, beside, above]))
    return total
