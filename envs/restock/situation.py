"""The privileged state of one control tick, and what follows from it: which item stands in which slot, the stage."""

import dataclasses

import numpy as np

from envs.restock.config import SLOTS, RestockConfig

STAGES = ("approach", "grasp", "move", "place", "done")
RETREAT_M = 0.07  # how far the tool must be from a placed item for it to count as left alone
EMPTY_CLOSED = 0.85  # pads closed this far hold nothing: every item is wider
_RESTING_M_S = 0.05
_RELEASED_M = 0.015  # how high over the shelf an item may still be falling from
_ABOVE_SLOT_M = 0.045
_NEAR_ITEM_M = 0.06


@dataclasses.dataclass(frozen=True)
class Goal:
    """What an instruction asks for: an item of the scene (index) and a slot (name)."""

    item: int
    slot: str


@dataclasses.dataclass(frozen=True)
class Situation:
    """What expert, gate and judgement look at. Positions in m in the base frame.

    `tool` [3] lies between the pads; `items` [n, 3] are centres, `extents` [n] how far each reaches below its centre,
    `speeds` [n] in m/s; `held` is an item's index or None; `closure` and `command` are the right gripper's measured
    and commanded value, 0 open .. 1 closed.
    """

    tool: np.ndarray
    items: np.ndarray
    extents: np.ndarray
    speeds: np.ndarray
    held: int | None
    closure: float
    command: float
    time_s: float


def slot_of(config: RestockConfig, situation: Situation, item: int) -> str | None:
    """The slot in which an item stands or lies, let go of; None while it is held or elsewhere."""
    position = situation.items[item]
    if situation.held == item or position[2] - situation.extents[item] > config.shelf_top_m + _RELEASED_M:
        return None
    return nearest_slot(config, position)


def rests_in_slot(config: RestockConfig, situation: Situation, item: int) -> bool:
    """Whether an item is in some slot, let go of and still."""
    return bool(situation.speeds[item] < _RESTING_M_S) and slot_of(config, situation, item) is not None


def has_fallen(config: RestockConfig, situation: Situation) -> bool:
    """Whether any item has left the table."""
    return bool((situation.items[:, 2] < config.table_height_m - 0.03).any())


def is_done(config: RestockConfig, situation: Situation, goal: Goal) -> bool:
    """Whether the named item rests in the named slot and the open gripper has drawn back."""
    return (
        situation.held is None
        and situation.closure < 0.6
        and rests_in_slot(config, situation, goal.item)
        and slot_of(config, situation, goal.item) == goal.slot
        and float(np.linalg.norm(situation.tool - situation.items[goal.item])) > RETREAT_M
    )


def stage_of(config: RestockConfig, situation: Situation, goal: Goal) -> str:
    """One of `STAGES`, from the state alone."""
    if is_done(config, situation, goal):
        return "done"
    item = situation.items[goal.item]
    if situation.held == goal.item:
        slot_x, slot_y = config.slot_centres_m[goal.slot]
        return "place" if np.hypot(item[0] - slot_x, item[1] - slot_y) < _ABOVE_SLOT_M else "move"
    if slot_of(config, situation, goal.item) == goal.slot:
        return "place"
    return "grasp" if np.linalg.norm(situation.tool - item) < _NEAR_ITEM_M else "approach"


def nearest_slot(config: RestockConfig, position: np.ndarray) -> str | None:
    """The slot above which a position lies, or None."""
    x, y, half = float(position[0]), float(position[1]), config.slot_half_m
    if abs(x - config.shelf_x_m) > half:
        return None
    return next((name for name, slot_y in zip(SLOTS, config.slot_y_m, strict=True) if abs(y - slot_y) <= half), None)
