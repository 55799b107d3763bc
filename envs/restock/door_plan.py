"""What the left hand does at the door: opens it, holds it open (it may slide shut by itself), shuts it, lets go."""

import numpy as np

from envs.restock.config import DoorLayout, SceneConfig
from envs.restock.intent import Intent, by_way_of_height
from envs.restock.progress import funnel
from envs.restock.situation import DOOR_SHUT_M, Door, Goal, Situation, slot_of

_ABOVE_HANDLE_M = 0.05
_HOLD_M = 0.010
_PULL_M = 0.06  # how far ahead of itself the hand is led: the door comes along at a calm speed
_OPEN_ENOUGH_M = 0.008


def work_door(config: SceneConfig, layout: DoorLayout, situation: Situation, door: Door, goal: Goal) -> Intent:
    """The left hand's next move: a function of state alone."""
    if _must_be_open(config, layout, situation, goal):
        return _lead(door, layout.travel_m - _OPEN_ENOUGH_M)
    if door.opening_m > DOOR_SHUT_M / 2:
        return _lead(door, 0.0)
    return Intent(door.tool + np.array([0.0, 0.01, 0.10 if door.reach_m < 0.09 else 0.0]), 0.0)


def is_in_the_way(layout: DoorLayout, position: np.ndarray) -> bool:
    """Whether something at this position would meet the closing door."""
    return bool(position[0] > layout.front_x_m and position[2] < layout.clear_z_m)


def _must_be_open(config: SceneConfig, layout: DoorLayout, situation: Situation, goal: Goal) -> bool:
    if slot_of(config, situation, goal.item) != goal.slot or is_in_the_way(layout, situation.tool):
        return True
    return situation.held is not None and is_in_the_way(layout, situation.items[situation.held])


def _lead(door: Door, opening_m: float) -> Intent:
    """Takes hold of the handle, then leads the door to an opening and keeps it there."""
    if not door.held:
        return _reach(door)
    way = float(np.clip(opening_m - door.opening_m, -_PULL_M, _PULL_M))
    return Intent(door.handle + np.array([0.0, way, 0.0]), 1.0)


def _reach(door: Door) -> Intent:
    gap = float(np.linalg.norm(door.handle[:2] - door.tool[:2]))
    level = abs(float(door.tool[2] - door.handle[2])) < 0.012
    closing = door.command > 0.5 and door.closure < 0.95
    if level and gap < (0.02 if closing else _HOLD_M) and (closing or door.closure < 0.1):
        return Intent(door.handle, 1.0)
    height = _ABOVE_HANDLE_M * (1.0 if door.closure > 0.15 else funnel(gap))
    return Intent(by_way_of_height(door.tool, door.handle, height), 0.0)
