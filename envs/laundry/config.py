"""The configuration of the laundry task, and its geometry as derived values."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from envs.g1.config import G1Config
from envs.laundry.shirt import Shirt, make_shirt

COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.80, 0.16, 0.15),
        "green": (0.16, 0.58, 0.26),
        "blue": (0.16, 0.30, 0.82),
        "yellow": (0.95, 0.80, 0.15),
        "purple": (0.50, 0.20, 0.64),
        "white": (0.93, 0.93, 0.95),
    }
)
STACKS = ("left", "right")


@dataclasses.dataclass(frozen=True)
class LaundryConfig:
    """What varies between episodes, and where things are (robot base frame: x forward, y left, z up; metres).

    `crumple` is how far the shirt is lifted, thrown about and dropped before the episode: 0 = it lies flat, 1 = two
    drops from 20 cm. `max_stacked` folded shirts may lie on a stack already. `lighting` as in the restock task.
    `start_noise_rad` is the standard deviation of all arm joints around the ready posture.
    `time_limit_s` is two to three times what the expert needs.
    """

    crumple: float = 1.0
    max_stacked: int = 2
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow")
    lighting: float = 0.4
    start_noise_rad: float = 0.02
    time_limit_s: float = 90.0
    timestep_s: float = 1 / 120
    table_height_m: float = 0.62
    cell_m: float = 0.024
    work_m: tuple[float, float] = (0.64, 0.0)
    stack_x_m: float = 0.66
    stack_y_m: tuple[float, float] = (0.24, -0.24)
    stacked_thickness_m: float = 0.012
    robot: G1Config = dataclasses.field(default_factory=G1Config)

    def __post_init__(self) -> None:
        """Refuses worlds that cannot be built or solved."""
        unknown = sorted(set(self.colours) - set(COLOURS))
        if unknown or not self.colours or len(set(self.colours)) != len(self.colours):
            raise ValueError(f"colours must be distinct names out of {tuple(COLOURS)}, got {self.colours}")
        ticks = 1 / 30 / self.timestep_s
        if abs(ticks - round(ticks)) > 1e-9:
            raise ValueError(f"timestep_s must divide 1/30 s, got {self.timestep_s}")
        for name, low, high in (("lighting", 0.0, 1.0), ("crumple", 0.0, 2.0), ("max_stacked", 0, 2)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in {low} .. {high}, got {getattr(self, name)}")
        if self.time_limit_s <= 0.0:
            raise ValueError(f"time_limit_s must be positive, got {self.time_limit_s}")

    @functools.cached_property
    def shirt(self) -> Shirt:
        """The shirt's mesh."""
        return make_shirt(self.cell_m)

    @functools.cached_property
    def stack_centres_m(self) -> Mapping[str, np.ndarray]:
        """Where the stacks' centres are [2], by name as the robot sees them."""
        return {name: np.array([self.stack_x_m, y]) for name, y in zip(STACKS, self.stack_y_m, strict=True)}
