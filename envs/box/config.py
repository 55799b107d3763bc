"""The configuration of the box task: the blank, where it lies, what varies."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from envs.g1.config import G1Config

Colour = tuple[float, float, float]

# Outside and inside of the cardboard.
BOARDS: Mapping[str, tuple[Colour, Colour]] = MappingProxyType(
    {
        "kraft": ((0.66, 0.48, 0.30), (0.74, 0.58, 0.40)),
        "white": ((0.93, 0.92, 0.88), (0.80, 0.76, 0.68)),
        "blue": ((0.25, 0.42, 0.72), (0.62, 0.66, 0.72)),
        "green": ((0.30, 0.58, 0.36), (0.64, 0.70, 0.62)),
    }
)
SIDES = ("left", "right")
ENDS = ("far", "near")
WALLS = (*SIDES, *ENDS)
TABS = tuple(f"{side}_{end}" for side in SIDES for end in ENDS)
TAB_INSET_M = 0.0045  # a tucked tab lies this far inside the end wall's hinge


@dataclasses.dataclass(frozen=True)
class BlankSize:
    """The blank's measures in m: half the bottom's length (along x) and width (along y), wall height, tab length."""

    half_length: float
    half_width: float
    height: float
    tab: float

    def scaled(self, length: float, width: float, height: float) -> "BlankSize":
        """A blank that is longer, wider, higher by these factors."""
        return BlankSize(self.half_length * length, self.half_width * width, self.height * height, self.tab)


def leaning_robot() -> G1Config:
    """The robot leans over the table with its lift raised: shoulders well above the work, the blank in the middle of
    the head image.
    """
    return G1Config(lift_m=0.28, waist_pitch_rad=0.75, head_pitch_rad=0.5)


@dataclasses.dataclass(frozen=True)
class BoxConfig:
    """What varies between episodes, and where things are (robot base frame: x forward, y left, z up; metres).

    The blank's bottom lies on a low stand. `place_m` and `place_yaw_rad` are how far it may lie from the stand's
    middle; `size_share` by which share length, width and height may differ; `crease_rad` is how far walls and tabs are
    folded beforehand. `lighting` scales the change of lamp, ambient light and table shade. Hinge friction keeps a flap
    where it is put; `sliding_friction_n` and `turning_friction_nm` are what the stand's suction pad holds the bottom with.
    `time_limit_s` is about three times what the expert needs.
    """

    size: BlankSize = BlankSize(0.070, 0.060, 0.060, 0.042)
    size_share: float = 0.06
    boards: tuple[str, ...] = tuple(BOARDS)
    lighting: float = 0.4
    start_noise_rad: float = 0.02
    time_limit_s: float = 15.0
    timestep_s: float = 1 / 150
    table_height_m: float = 0.62
    stand_height_m: float = 0.045
    stand_x_m: float = 0.635
    place_m: float = 0.015
    place_yaw_rad: float = 0.10
    crease_rad: tuple[float, float] = (0.15, 0.25)
    hinge_friction_nm: float = 0.020
    tab_friction_nm: float = 0.006
    sliding_friction_n: float = 12.0
    turning_friction_nm: float = 0.6
    robot: G1Config = dataclasses.field(default_factory=leaning_robot)

    def __post_init__(self) -> None:
        """Refuses worlds that cannot be built or solved."""
        ticks = 1 / 30 / self.timestep_s
        if abs(ticks - round(ticks)) > 1e-9:
            raise ValueError(f"timestep_s must divide 1/30 s, got {self.timestep_s}")
        if not 0.0 <= self.lighting <= 1.0:
            raise ValueError(f"lighting must be in 0 .. 1, got {self.lighting}")
        if self.time_limit_s <= 0.0:
            raise ValueError(f"time_limit_s must be positive, got {self.time_limit_s}")
        if not 0.0 <= self.size_share <= 0.1:
            raise ValueError(f"size_share must be in 0 .. 0.1 (the arms' reach), got {self.size_share}")
        unknown = sorted(set(self.boards) - set(BOARDS))
        if unknown or not self.boards:
            raise ValueError(f"boards must be names out of {tuple(BOARDS)}, got {self.boards}")
        low, high = self.crease_rad
        if not 0.10 <= low <= high <= 0.30:
            raise ValueError(
                f"crease_rad must rise within 0.10 .. 0.30 (end walls may not bar tabs), got {self.crease_rad}"
            )
        if self.size.tab > self.size.half_width - 0.01:
            raise ValueError(f"tabs of {self.size.tab} m would meet in a box of half width {self.size.half_width} m")

    @property
    def blank_height_m(self) -> float:
        """Height of the blank's plane."""
        return self.table_height_m + self.stand_height_m
