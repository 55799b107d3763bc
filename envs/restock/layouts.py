"""Beyond the flat shelf: a shelf with a misplaced item, a freezer with a sliding lid, a cooler with compartments."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

from envs.restock.config import DoorLayout, SceneConfig, Slot


@dataclasses.dataclass(frozen=True)
class MisplacedConfig(SceneConfig):
    """A deeper shelf: two rows of three slots, on which all items stand at first, the named one in the wrong slot."""

    task_name: ClassVar[str] = "restock_misplaced"
    phrase: ClassVar[str] = "move the {item} to the {slot} slot"
    starts_in_slots: ClassVar[bool] = True
    grip: ClassVar[float] = 1.0
    settle_per_s: ClassVar[float] = 3.0
    rim_m: ClassVar[float] = 0.08

    staging_x_m: tuple[float, float] = (0.56, 0.60)
    row_x_m: tuple[float, float] = (0.71, 0.835)
    column_y_m: tuple[float, float, float] = (0.04, -0.085, -0.21)
    slot_half_m: float = 0.055
    shelf_thickness_m: float = 0.015

    def __post_init__(self) -> None:
        """As for every scene; and a slot must stay free, for the named item."""
        super().__post_init__()
        if self.num_items >= len(self.slots):
            raise ValueError(f"num_distractors must be below {len(self.slots) - 1}, got {self.num_distractors}")

    @functools.cached_property
    def slots(self) -> Mapping[str, Slot]:
        """Front and back row, each left, middle, right."""
        top = self.table_height_m + self.shelf_thickness_m
        return {
            f"{row} {column}": Slot(x, y, self.slot_half_m, top)
            for row, x in zip(("front", "back"), self.row_x_m, strict=True)
            for column, y in zip(("left", "middle", "right"), self.column_y_m, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class CoolerConfig(SceneConfig):
    """An open cooler with four compartments behind the staging area; cartons go in from above, between its walls."""

    task_name: ClassVar[str] = "restock_cooler"
    phrase: ClassVar[str] = "put the {item} in the {slot} compartment of the cooler"
    slot_noun: ClassVar[str] = "compartment"
    hand_open: ClassVar[float] = 0.2
    grip: ClassVar[float] = 1.0
    settle_per_s: ClassVar[float] = 3.0
    rim_m: ClassVar[float] = 0.055
    funnel_m: ClassVar[tuple[float, float]] = (0.018, 0.035)

    shapes: tuple[str, ...] = ("box",)
    catalogue_shapes: tuple[str, ...] = ("box", "carton")
    staging_x_m: tuple[float, float] = (0.56, 0.63)
    staging_y_m: tuple[float, float] = (-0.20, 0.07)
    item_spacing_m: float = 0.108
    row_x_m: tuple[float, float] = (0.775, 0.911)
    column_y_m: tuple[float, float] = (0.0, -0.136)
    compartment_half_m: float = 0.062
    wall_m: float = 0.012
    divider_height_m: float = 0.045
    floor_thickness_m: float = 0.012

    @property
    def wall_x_m(self) -> float:
        """The outside of the cooler's front."""
        return self.row_x_m[0] - self.compartment_half_m - self.wall_m

    @functools.cached_property
    def slots(self) -> Mapping[str, Slot]:
        """Front and back row, each left and right."""
        floor = self.table_height_m + self.floor_thickness_m
        return {
            f"{row} {column}": Slot(x, y, self.compartment_half_m, floor)
            for row, x in zip(("front", "back"), self.row_x_m, strict=True)
            for column, y in zip(("left", "right"), self.column_y_m, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class FreezerConfig(SceneConfig):
    """A chest freezer with a sliding glass lid: the left hand holds it open while the right one stocks two baskets."""

    task_name: ClassVar[str] = "restock_freezer"
    phrase: ClassVar[str] = "put the {item} in the {slot} basket of the freezer and close the lid"
    slot_noun: ClassVar[str] = "basket"
    tilt_rad: ClassVar[float] = 0.7
    grip: ClassVar[float] = 1.0
    settle_per_s: ClassVar[float] = 3.0
    rim_m: ClassVar[float] = 0.09
    funnel_m: ClassVar[tuple[float, float]] = (0.018, 0.035)
    door: ClassVar[DoorLayout | None] = DoorLayout(
        handle_m=(0.815, 0.01, 0.77), travel_m=0.265, front_x_m=0.70, clear_z_m=0.79, closing_n=(0.0, 1.5)
    )

    time_limit_s: float = 14.0
    staging_x_m: tuple[float, float] = (0.56, 0.635)
    staging_y_m: tuple[float, float] = (-0.19, 0.07)
    chest_x_m: tuple[float, float] = (0.735, 0.895)
    chest_y_m: tuple[float, float] = (-0.235, 0.035)
    basket_x_m: float = 0.815
    basket_y_m: tuple[float, float] = (-0.035, -0.155)
    basket_half_m: float = 0.058
    floor_thickness_m: float = 0.015
    wall_m: float = 0.012

    @property
    def wall_x_m(self) -> float:
        """The outside of the chest's front."""
        return self.chest_x_m[0] - self.wall_m

    @functools.cached_property
    def slots(self) -> Mapping[str, Slot]:
        """Two baskets side by side under the lid."""
        floor = self.table_height_m + self.floor_thickness_m
        return {
            name: Slot(self.basket_x_m, y, self.basket_half_m, floor)
            for name, y in zip(("left", "right"), self.basket_y_m, strict=True)
        }
