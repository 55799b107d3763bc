"""What stands on the table, per kind of scene: the shelf and its slots, the cooler's compartments, the freezer.

Names that others use: the joint `door` and the body `handle` of the freezer's lid.
"""

import functools

from envs.composing import mjcf
from envs.g1 import collision
from envs.restock.config import DoorLayout, RestockConfig, SceneConfig
from envs.restock.layouts import CoolerConfig, FreezerConfig, MisplacedConfig

_FRICTION = (0.9, 0.01, 0.002)
_WOOD = (0.30, 0.22, 0.16, 1)
_MAT = (0.80, 0.72, 0.60, 1)
_COOLER = (0.16, 0.36, 0.58, 1)
_ICE = (0.80, 0.88, 0.93, 1)
_CABINET = (0.90, 0.92, 0.94, 1)
_TRIM = (0.20, 0.34, 0.55, 1)
_GLASS = (0.65, 0.85, 0.95, 0.25)
_STEEL = (0.55, 0.57, 0.60, 1)
_BAR_RADIUS_M = 0.010


@functools.singledispatch
def furnish(config: SceneConfig, world: mjcf.Element) -> None:
    """Adds the furniture of a scene to the world body."""
    raise TypeError(f"no furniture for {type(config).__name__}")


@furnish.register
def _shelf(config: RestockConfig, world: mjcf.Element) -> None:
    _add_board(config, world, config.slot_half_m + 0.01, config.shelf_thickness_m)


@furnish.register
def _deep_shelf(config: MisplacedConfig, world: mjcf.Element) -> None:
    _add_board(config, world, config.slot_half_m + 0.01, config.shelf_thickness_m)


@furnish.register
def _cooler(config: CoolerConfig, world: mjcf.Element) -> None:
    half, wall, floor = config.compartment_half_m, config.wall_m, config.table_height_m + config.floor_thickness_m
    _add_board(config, world, half + wall, config.floor_thickness_m, _ICE)
    (x0, x1), (y1, y0) = config.row_x_m, config.column_y_m
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    deep, wide = (x1 - x0) / 2 + half, (y1 - y0) / 2 + half
    rim, divider = config.rim_m, config.divider_height_m
    walls = {  # x, y, half depth, half width, height
        "front": (x - deep - wall / 2, y, wall / 2, wide + wall, rim),
        "back": (x + deep + wall / 2, y, wall / 2, wide + wall, rim),
        "left": (x, y + wide + wall / 2, deep, wall / 2, rim),
        "right": (x, y - wide - wall / 2, deep, wall / 2, rim),
        "across": (x, y, wall / 2, wide, divider),
        "along": (x, y, deep, wall / 2, divider),
    }
    for name, (wall_x, wall_y, half_x, half_y, height) in walls.items():
        _add_box(world, f"wall_{name}", (half_x, half_y, height / 2), (wall_x, wall_y, floor + height / 2), _COOLER)


@furnish.register
def _freezer(config: FreezerConfig, world: mjcf.Element) -> None:
    """Baskets in the right half of a chest; its left half is closed, and the lid slides over it."""
    door = config.door
    assert door is not None
    (x0, x1), (y0, y1), wall, rim = config.chest_x_m, config.chest_y_m, config.wall_m, config.rim_m
    floor, half_height = config.table_height_m + config.floor_thickness_m, (rim + config.floor_thickness_m) / 2
    y2 = y1 + door.travel_m + 0.01  # the far end of the closed half
    x, y, deep, wide, middle = (x0 + x1) / 2, (y0 + y2) / 2, (x1 - x0) / 2, (y2 - y0) / 2, floor + rim - half_height
    _add_board(config, world, config.basket_half_m + 0.01, config.floor_thickness_m, _ICE)
    for name, at in (("chest_front", x0 - wall / 2), ("chest_back", x1 + wall / 2)):
        _add_box(world, name, (wall / 2, wide + wall, half_height), (at, y, middle), _CABINET)
    _add_box(world, "chest_right", (deep, wall / 2, half_height), (x, y0 - wall / 2, middle), _CABINET)
    closed = (deep, (y2 - y1 + wall) / 2, half_height)
    _add_box(world, "chest_left", closed, (x, (y1 + y2 + wall) / 2, middle), _TRIM)
    for name, at in (("rail_front", x0 - wall / 2), ("rail_back", x1 + wall / 2)):
        _add_box(world, name, (0.003, wide, 0.002), (at, y, floor + rim + 0.002), _STEEL)
    _add_door(world, door, (x, (y0 + y1) / 2, floor + rim + 0.008), (deep + 0.008, (y1 - y0) / 2 + 0.004))


def _add_door(
    world: mjcf.Element,
    door: DoorLayout,
    middle_m: tuple[float, float, float],
    half_edges_m: tuple[float, float],
) -> None:
    """A framed glass lid on rails. The grip turns about its bar, so that a hand that holds it may turn on the way."""
    deep, wide = half_edges_m
    panel = world.add("body", name="door", pos=middle_m)
    panel.add(
        "joint", name="door", type="slide", axis=(0, 1, 0), range=(0, door.travel_m), damping=8.0, frictionloss=0.5
    )
    panel.add("inertial", pos=(0, 0, 0), mass=1.5, diaginertia=(0.02, 0.02, 0.02))
    panel.add("geom", name="door", type="box", size=(deep, wide, 0.003), rgba=_GLASS, **collision.WORLD)
    for sign in (-1, 1):
        along, across = (0, sign * (wide - 0.007), 0), (sign * (deep - 0.007), 0, 0)
        panel.add("geom", type="box", size=(deep, 0.007, 0.004), pos=along, rgba=_TRIM, **collision.NOTHING)
        panel.add("geom", type="box", size=(0.007, wide, 0.004), pos=across, rgba=_TRIM, **collision.NOTHING)
    x, y, z = (a - b for a, b in zip(door.handle_m, middle_m, strict=True))
    panel.add("geom", type="cylinder", size=(0.016, 0.003), pos=(x, y, 0.006), rgba=_STEEL, **collision.NOTHING)
    handle = panel.add("body", name="handle", pos=(x, y, z))
    handle.add("joint", name="handle", type="hinge", axis=(0, 0, 1), damping=0.002, armature=0.001)
    handle.add(
        "geom",
        name="handle",
        type="cylinder",
        size=(_BAR_RADIUS_M, z - 0.004),
        mass=0.05,
        rgba=_STEEL,
        friction=_FRICTION,
        **collision.WORLD,
    )


def _add_board(
    config: SceneConfig,
    world: mjcf.Element,
    margin_m: float,
    thickness_m: float,
    colour: tuple[float, ...] = _WOOD,
) -> None:
    """The board that carries the slots, up to `margin_m` beyond their centres, and a mat where each slot is."""
    xs, ys = ([getattr(slot, axis) for slot in config.slots.values()] for axis in ("x_m", "y_m"))
    deep = (max(xs) - min(xs)) / 2 + margin_m
    wide = (max(ys) - min(ys)) / 2 + margin_m
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2, config.table_height_m + thickness_m / 2)
    _add_box(world, "shelf", (deep, wide, thickness_m / 2), middle, colour)
    for name, slot in config.slots.items():
        world.add(
            "geom",
            name=f"slot_{name.replace(' ', '_')}",
            type="box",
            size=(slot.half_m - 0.004, slot.half_m - 0.004, 0.0005),
            pos=(slot.x_m, slot.y_m, slot.surface_m),
            rgba=_MAT,
            **collision.NOTHING,
        )


def _add_box(
    world: mjcf.Element,
    name: str,
    half_edges_m: tuple[float, float, float],
    position_m: tuple[float, float, float],
    colour: tuple[float, ...],
) -> None:
    world.add(
        "geom",
        name=name,
        type="box",
        size=half_edges_m,
        pos=position_m,
        rgba=colour,
        friction=_FRICTION,
        **collision.WORLD,
    )
