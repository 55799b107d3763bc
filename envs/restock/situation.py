"""The privileged state of one control tick, and what follows from it: which item stands in which slot, the stage."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from envs.restock.config import SceneConfig
from envs.restock.items import ItemStates

STAGES = ("approach", "grasp", "move", "place", "close", "done")  # "close" only where there is a door
RETREAT_M = 0.07  # how far the tool must be from a placed item for it to count as left alone
EMPTY_CLOSED = 0.85  # pads closed this far hold nothing: every item is wider
DOOR_SHUT_M = 0.012
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
class Door:
    """A sliding door and the left hand that works it. Positions in m in the base frame.

    `opening_m` 0 is shut; `handle` [3] is the middle of the grip, `tool` [3] lies between the left pads; `closure` and
    `command` are the left gripper's measured and commanded value, 0 open .. 1 closed.
    """

    opening_m: float
    handle: np.ndarray
    tool: np.ndarray
    held: bool
    closure: float
    command: float

    @property
    def reach_m(self) -> float:
        """How far the left hand is from holding the handle."""
        return 0.0 if self.held else float(np.linalg.norm(self.handle - self.tool))

    @property
    def is_shut(self) -> bool:
        """Whether nothing of the opening is left, and no hand on the handle."""
        return self.opening_m < DOOR_SHUT_M and not self.held


@dataclasses.dataclass(frozen=True)
class Situation:
    """What expert, gate and judgement look at. Positions in m in the base frame.

    `tool` [3] lies between the right pads; `goods` are the items, `held` is an item's index or None; `closure` and `command`
    are the right gripper's measured and commanded value, 0 open .. 1 closed. `origins` are the slots in which the items
    stood at first (none: ()).
    """

    tool: np.ndarray
    goods: ItemStates
    held: int | None
    closure: float
    command: float
    time_s: float
    origins: tuple[str | None, ...] = ()
    door: Door | None = None

    @property
    def items(self) -> np.ndarray:
        """The items' centres [n, 3]."""
        return self.goods.positions

    @property
    def extents(self) -> np.ndarray:
        """How far each item reaches below its centre [n]."""
        return self.goods.extents

    def origin(self, item: int) -> str | None:
        """The slot in which an item stood at first, if it was in one."""
        return self.origins[item] if self.origins else None


def slot_of(config: SceneConfig, situation: Situation, item: int) -> str | None:
    """The slot in which an item stands or lies, let go of; None while it is held or elsewhere."""
    position = situation.goods.centres[item]
    name = nearest_slot(config, position)
    if name is None or situation.held == item:
        return None
    bottom = position[2] - situation.extents[item]
    return None if bottom > config.slots[name].surface_m + _RELEASED_M else name


def rests_in_slot(config: SceneConfig, situation: Situation, item: int, slot: str) -> bool:
    """Whether an item is in this slot, let go of and still."""
    return (
        nearest_slot(config, situation.goods.centres[item]) == slot
        and slot_of(config, situation, item) == slot
        and situation.goods.speeds.item(item) < _RESTING_M_S
    )


def was_misplaced(config: SceneConfig, situation: Situation, item: int) -> bool:
    """Whether an item rests in another slot than at first."""
    name = nearest_slot(config, situation.goods.centres[item])
    return name is not None and name != situation.origin(item) and rests_in_slot(config, situation, item, name)


def has_fallen(config: SceneConfig, situation: Situation) -> bool:
    """Whether any item has left the table."""
    return min(z for _, _, z in situation.goods.centres) < config.table_height_m - 0.03


def is_done(config: SceneConfig, situation: Situation, goal: Goal) -> bool:
    """Whether the named item rests in the named slot, the open gripper has drawn back, and a door is shut."""
    return (
        situation.held is None
        and situation.closure < 0.6
        and rests_in_slot(config, situation, goal.item, goal.slot)
        and float(np.linalg.norm(situation.tool - situation.items[goal.item])) > RETREAT_M
        and (situation.door is None or situation.door.is_shut)
    )


def stage_of(config: SceneConfig, situation: Situation, goal: Goal) -> str:
    """One of `STAGES`, from the state alone."""
    if is_done(config, situation, goal):
        return "done"
    item = situation.items[goal.item]
    if situation.held == goal.item:
        slot = config.slots[goal.slot]
        return "place" if np.hypot(item[0] - slot.x_m, item[1] - slot.y_m) < _ABOVE_SLOT_M else "move"
    away = float(np.linalg.norm(situation.tool - item))
    if slot_of(config, situation, goal.item) == goal.slot:
        return "close" if situation.door is not None and away > RETREAT_M else "place"
    return "grasp" if away < _NEAR_ITEM_M else "approach"


def nearest_slot(config: SceneConfig, position: Sequence[float]) -> str | None:
    """The slot above which a position lies, or None."""
    for name, slot in config.slots.items():
        if slot.holds(position):
            return name
    return None
