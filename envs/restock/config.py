"""The configuration of the restock task, and its geometry as derived values."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType

from envs.g1.config import G1Config

Colour = tuple[float, float, float]

COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (0.90, 0.10, 0.10),
        "green": (0.05, 0.65, 0.15),
        "blue": (0.10, 0.20, 0.90),
        "yellow": (0.98, 0.85, 0.05),
        "purple": (0.55, 0.10, 0.70),
        "white": (0.97, 0.97, 0.97),
    }
)
SHAPES = ("can", "box", "bottle")
SLOTS = ("left", "middle", "right")


@dataclasses.dataclass(frozen=True)
class RestockConfig:
    """What varies between episodes, and where things are (robot base frame: x forward, y left, z up; metres).

    `lighting` scales the change of lamp, ambient light and table shade: 0 = always the same, 1 = strong.
    `start_noise_rad` is the standard deviation of the right arm's joints around its ready posture.
    `time_limit_s` is about three times what the expert needs.
    """

    num_distractors: int = 2
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow")
    lighting: float = 0.4
    start_noise_rad: float = 0.02
    time_limit_s: float = 8.0
    timestep_s: float = 1 / 150
    table_height_m: float = 0.62
    staging_x_m: tuple[float, float] = (0.57, 0.70)
    staging_y_m: tuple[float, float] = (-0.19, 0.07)
    item_spacing_m: float = 0.105
    max_item_yaw_rad: float = 0.4
    shelf_x_m: float = 0.82
    slot_y_m: tuple[float, float, float] = (0.035, -0.085, -0.205)
    slot_half_m: float = 0.055
    shelf_thickness_m: float = 0.015
    robot: G1Config = dataclasses.field(default_factory=G1Config)

    def __post_init__(self) -> None:
        """Refuses worlds that cannot be built or solved."""
        if not 0 <= self.num_distractors < len(self.colours):
            raise ValueError(
                f"num_distractors must be 0 .. {len(self.colours) - 1} (every item in view has its own colour, and "
                f"there are {len(self.colours)}), got {self.num_distractors}"
            )
        for field, known in (("shapes", SHAPES), ("colours", tuple(COLOURS))):
            values = getattr(self, field)
            unknown = sorted(set(values) - set(known))
            if unknown or not values or len(set(values)) != len(values):
                raise ValueError(f"{field} must be distinct names out of {known}, got {values}")
        ticks = 1 / 30 / self.timestep_s
        if abs(ticks - round(ticks)) > 1e-9:
            raise ValueError(f"timestep_s must divide 1/30 s, got {self.timestep_s}")
        if not 0.0 <= self.lighting <= 1.0:
            raise ValueError(f"lighting must be in 0 .. 1, got {self.lighting}")
        if self.time_limit_s <= 0.0:
            raise ValueError(f"time_limit_s must be positive, got {self.time_limit_s}")

    @property
    def num_items(self) -> int:
        """Items in the scene: the named one and the distractors."""
        return 1 + self.num_distractors

    @property
    def shelf_top_m(self) -> float:
        """Height of the shelf's surface."""
        return self.table_height_m + self.shelf_thickness_m

    @functools.cached_property
    def slot_centres_m(self) -> Mapping[str, tuple[float, float]]:
        """Where the slots' centres are (x, y), by name as the robot sees them."""
        return {name: (self.shelf_x_m, y) for name, y in zip(SLOTS, self.slot_y_m, strict=True)}
