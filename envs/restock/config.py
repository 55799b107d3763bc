"""What the restocking worlds have in common, and the flat shelf: configurations, with geometry as derived values."""

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from envs.g1.config import G1Config
from envs.restock.catalogue import CATALOGUE_SHAPES, CATALOGUES, COLOURS, SHAPES
from envs.restock.hand_pose import TILT_RAD

SLOTS = ("left", "middle", "right")
_MARGIN_M = 0.03
_SAFE_ABOVE_TABLE_M = 0.15


@dataclasses.dataclass(frozen=True)
class Slot:
    """A square place for one item: centre and half edge, and the height of the surface on which the item stands."""

    x_m: float
    y_m: float
    half_m: float
    surface_m: float

    def holds(self, position: Sequence[float]) -> bool:
        """Whether a position lies above or in this slot."""
        return abs(position[0] - self.x_m) <= self.half_m and abs(position[1] - self.y_m) <= self.half_m


@dataclasses.dataclass(frozen=True)
class DoorLayout:
    """A sliding door over the slots. Shut, its handle is at `handle_m` [3]; it opens to the left, `travel_m` far.

    What is beyond `front_x_m` and below `clear_z_m` is in its way. `closing_n` is the range of the force that draws an
    open door shut, drawn per episode.
    """

    handle_m: tuple[float, float, float]
    travel_m: float
    front_x_m: float
    clear_z_m: float
    closing_n: tuple[float, float]

    @property
    def workspace_m(self) -> tuple[np.ndarray, np.ndarray]:
        """As `SceneConfig.workspace_m`, for the left hand that works the door; mirrored, as if it were the right one."""
        x, y, z = self.handle_m
        return np.array([x - 0.2, -y - self.travel_m - 0.03, z - 0.04]), np.array([x + 0.02, -y + 0.03, z + 0.10])


@dataclasses.dataclass(frozen=True)
class SceneConfig(abc.ABC):
    """What varies between episodes, and where things are (robot base frame: x forward, y left, z up; metres).

    `catalogue` says where the goods come from: `basic` (`shapes` in `colours`), or the catalogue's `pool` or `evaluation`
    (those of its shapes that are in `catalogue_shapes`).
    `lighting` scales the change of lamp, ambient light and table shade: 0 = always the same, 1 = strong.
    `start_offset_m` is how far from the middle of a slot an item may stand at first, where items start in slots.
    `start_noise_rad` is the standard deviation of the working arms' joints around their ready posture.
    `time_limit_s` is about three times what the expert needs.

    Of the kind of scene: `hand_open` is how far an open gripper is closed (0 .. 1), `grip` the welds' torque scale,
    `tilt_rad` how far the right hand leans from pointing straight down, `settle_per_s` how fast it makes up for falling
    short of a place, `rim_m` how high what stands around a slot is over its floor, `funnel_m` at which distance from a
    place a hand starts to rise, and over which distance it does.
    """

    task_name: ClassVar[str]
    phrase: ClassVar[str] = "put the {item} in the {slot} slot"
    slot_noun: ClassVar[str] = "slot"
    starts_in_slots: ClassVar[bool] = False
    hand_open: ClassVar[float] = 0.0
    grip: ClassVar[float] = 0.1
    tilt_rad: ClassVar[float] = TILT_RAD
    settle_per_s: ClassVar[float] = 0.0
    rim_m: ClassVar[float] = 0.0
    funnel_m: ClassVar[tuple[float, float]] = (0.005, 0.07)
    door: ClassVar[DoorLayout | None] = None

    num_distractors: int = 2
    catalogue: str = "basic"
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow")
    catalogue_shapes: tuple[str, ...] = CATALOGUE_SHAPES
    lighting: float = 0.4
    start_noise_rad: float = 0.02
    time_limit_s: float = 8.0
    timestep_s: float = 1 / 150
    table_height_m: float = 0.62
    staging_x_m: tuple[float, float] = (0.57, 0.70)
    staging_y_m: tuple[float, float] = (-0.19, 0.07)
    item_spacing_m: float = 0.105
    max_item_yaw_rad: float = 0.4
    start_offset_m: float = 0.012
    robot: G1Config = dataclasses.field(default_factory=G1Config)

    def __post_init__(self) -> None:
        """Refuses worlds that cannot be built or solved."""
        if not 0 <= self.num_distractors < len(self.colours):
            raise ValueError(
                f"num_distractors must be 0 .. {len(self.colours) - 1} (every item in view has its own colour, and "
                f"there are {len(self.colours)}), got {self.num_distractors}"
            )
        known_names = (("shapes", SHAPES), ("colours", tuple(COLOURS)), ("catalogue_shapes", CATALOGUE_SHAPES))
        for field, known in known_names:
            values = getattr(self, field)
            unknown = sorted(set(values) - set(known))
            if unknown or not values or len(set(values)) != len(values):
                raise ValueError(f"{field} must be distinct names out of {known}, got {values}")
        if self.catalogue not in CATALOGUES:
            raise ValueError(f"catalogue must be one of {CATALOGUES}, got {self.catalogue!r}")
        ticks = 1 / 30 / self.timestep_s
        if abs(ticks - round(ticks)) > 1e-9:
            raise ValueError(f"timestep_s must divide 1/30 s, got {self.timestep_s}")
        if not 0.0 <= self.lighting <= 1.0:
            raise ValueError(f"lighting must be in 0 .. 1, got {self.lighting}")
        if self.time_limit_s <= 0.0:
            raise ValueError(f"time_limit_s must be positive, got {self.time_limit_s}")

    @property
    def wall_x_m(self) -> float:
        """Where a wall stands behind the staging area; infinite where none does."""
        return math.inf

    @property
    def num_items(self) -> int:
        """Items in the scene: the named one and the distractors."""
        return 1 + self.num_distractors

    @functools.cached_property
    @abc.abstractmethod
    def slots(self) -> Mapping[str, Slot]:
        """Where items can be put, by name as the robot sees them."""
        raise NotImplementedError

    @functools.cached_property
    def workspace_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] of where the right hand's usual postures are known."""
        ys = [slot.y_m for slot in self.slots.values()]
        y0, y1 = min(ys), max(ys)
        low = np.array([self.staging_x_m[0] - _MARGIN_M, y0 - _MARGIN_M, self.table_height_m + 0.02])
        far = max(slot.x_m for slot in self.slots.values())
        return low, np.array([far, y1 + _MARGIN_M, self.table_height_m + _SAFE_ABOVE_TABLE_M])


@dataclasses.dataclass(frozen=True)
class RestockConfig(SceneConfig):
    """The flat shelf: three slots behind the staging area, in which all items stand at first."""

    task_name: ClassVar[str] = "restock_shelf"

    shelf_x_m: float = 0.82
    slot_y_m: tuple[float, float, float] = (0.035, -0.085, -0.205)
    slot_half_m: float = 0.055
    shelf_thickness_m: float = 0.015

    @property
    def shelf_top_m(self) -> float:
        """Height of the shelf's surface."""
        return self.table_height_m + self.shelf_thickness_m

    @functools.cached_property
    def slots(self) -> Mapping[str, Slot]:
        """Three in a row."""
        x, half, top = self.shelf_x_m, self.slot_half_m, self.shelf_top_m
        return {name: Slot(x, y, half, top) for name, y in zip(SLOTS, self.slot_y_m, strict=True)}
