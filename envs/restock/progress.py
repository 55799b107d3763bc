"""How much is left to do: a distance that falls all the way while things go well, phase by phase."""

import dataclasses

import numpy as np

from envs.restock.config import SceneConfig
from envs.restock.situation import Goal, Situation, slot_of

REACH_HEIGHT_M = 0.085
CARRY_HEIGHT_M = 0.095
_OVER_RIM_M = 0.035
_NEARLY_OPEN_M = 0.03


@dataclasses.dataclass(frozen=True)
class Progress:
    """`phase` 0 reach for the item, 1 carry it, 2 let go and draw back; `remaining_m` to the end of the phase."""

    phase: int
    remaining_m: float


def funnel(gap_m: float, funnel_m: tuple[float, float] = SceneConfig.funnel_m) -> float:
    """How high to be, as a share of the travel height: 0 at the place, 1 once it is left behind, smooth between."""
    start, length = funnel_m
    x = min(max((gap_m - start) / length, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


def progress_of(config: SceneConfig, situation: Situation, goal: Goal) -> Progress:
    """Where an episode stands, from the state alone; what is left to do at a door is added to what is left of the phase."""
    item = situation.items[goal.item]
    if situation.held == goal.item:
        slot = config.slots[goal.slot]
        place = np.array([slot.x_m, slot.y_m, slot.surface_m + situation.extents[goal.item]])
        return Progress(
            1, _path_length(config, item, place, carry_height_m(config)) + _left_to_open_m(config, situation)
        )
    if slot_of(config, situation, goal.item) == goal.slot:
        to_shut_m = 0.0 if situation.door is None else situation.door.opening_m + situation.door.reach_m
        return Progress(2, max(0.0, 0.1 - float(np.linalg.norm(situation.tool - item))) + to_shut_m)
    reach_m = _path_length(config, situation.tool, item, REACH_HEIGHT_M)
    return Progress(0, reach_m + _left_to_open_m(config, situation))


def carry_height_m(config: SceneConfig, height_m: float = CARRY_HEIGHT_M) -> float:
    """How high over its place an item travels: over the walls and neighbours, where there are some."""
    return max(height_m, config.rim_m + _OVER_RIM_M) if config.rim_m else height_m


def is_open(config: SceneConfig, situation: Situation) -> bool:
    """Whether no door bars the slots."""
    door, layout = situation.door, config.door
    return door is None or layout is None or door.opening_m > layout.travel_m - _NEARLY_OPEN_M


def _left_to_open_m(config: SceneConfig, situation: Situation) -> float:
    door, layout = situation.door, config.door
    if door is None or layout is None or is_open(config, situation):
        return 0.0
    return door.reach_m + layout.travel_m - door.opening_m


def _path_length(config: SceneConfig, position: np.ndarray, place: np.ndarray, height_m: float) -> float:
    gap = float(np.linalg.norm(place[:2] - position[:2]))
    height_m *= funnel(gap, config.funnel_m)
    steep = height_m if config.rim_m else 0.0  # where the way down is steep, it is a leg of its own
    return gap + steep + abs(float(position[2] - place[2]) - height_m)
