"""How much is left to do: a distance that falls all the way while things go well, phase by phase."""

import dataclasses

import numpy as np

from envs.restock.config import RestockConfig
from envs.restock.situation import Goal, Situation, slot_of

FUNNEL_START_M = 0.005
FUNNEL_M = 0.07
REACH_HEIGHT_M = 0.085
CARRY_HEIGHT_M = 0.095


@dataclasses.dataclass(frozen=True)
class Progress:
    """`phase` 0 reach for the item, 1 carry it, 2 let go and draw back; `remaining_m` to the end of the phase."""

    phase: int
    remaining_m: float


def funnel(gap_m: float) -> float:
    """How high to be, as a share of the travel height: 0 at the place, 1 from `FUNNEL_M` away, smooth between."""
    x = min(max((gap_m - FUNNEL_START_M) / FUNNEL_M, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


def progress_of(config: RestockConfig, situation: Situation, goal: Goal) -> Progress:
    """Where an episode stands, from the state alone."""
    item = situation.items[goal.item]
    if situation.held == goal.item:
        rest_z = config.shelf_top_m + situation.extents[goal.item]
        place = np.array([*config.slot_centres_m[goal.slot], rest_z])
        return Progress(1, _path_length(item, place, CARRY_HEIGHT_M))
    if slot_of(config, situation, goal.item) == goal.slot:
        return Progress(2, max(0.0, 0.1 - float(np.linalg.norm(situation.tool - item))))
    return Progress(0, _path_length(situation.tool, item, REACH_HEIGHT_M))


def _path_length(position: np.ndarray, place: np.ndarray, height_m: float) -> float:
    gap = float(np.linalg.norm(place[:2] - position[:2]))
    return gap + abs(float(position[2] - place[2]) - height_m * funnel(gap))
