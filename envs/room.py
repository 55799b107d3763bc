"""The room that every world stands in: floor, four walls, one lamp, a table; and its light, which changes by the episode."""

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.g1 import collision
from envs.rendering import set_render_quality

_FLOOR = (0.35, 0.36, 0.38, 1)
_WALL = (0.62, 0.66, 0.70, 1)
_TABLE_GREY = 0.52
_TABLE_FRICTION = (0.9, 0.01, 0.002)


def add_room(root: mjcf.RootElement) -> None:
    """Floor, walls and the lamp, and fast images of them."""
    set_render_quality(root)
    world = root.worldbody
    world.add("geom", name="floor", type="plane", size=(4, 4, 0.1), rgba=_FLOOR, **collision.WORLD)
    for x, y in ((-3, 0), (3, 0), (0, -3), (0, 3)):
        wall = {"size": (3, 3, 0.1), "pos": (x, y, 0), "zaxis": (-x, -y, 0), "rgba": _WALL}
        world.add("geom", type="plane", **wall, **collision.NOTHING)
    world.add("light", name="lamp", pos=(0.6, 0, 2.5), dir=(0, 0, -1), directional=True, castshadow=False)


def add_table(
    root: mjcf.RootElement, x_m: tuple[float, float], y_m: tuple[float, float], height_m: float
) -> mjcf.Element:
    """A solid table over these ranges of x and y; `randomise_light` changes its shade."""
    (x0, x1), (y0, y1) = x_m, y_m
    return root.worldbody.add(
        "geom",
        name="table",
        type="box",
        size=((x1 - x0) / 2, (y1 - y0) / 2, height_m / 2),
        pos=((x0 + x1) / 2, (y0 + y1) / 2, height_m / 2),
        rgba=(_TABLE_GREY, _TABLE_GREY, _TABLE_GREY, 1),
        friction=_TABLE_FRICTION,
        **collision.WORLD,
    )


def randomise_light(model: mujoco.MjModel, strength: float, rng: np.random.Generator) -> None:
    """Draws lamp direction and brightness, ambient light and the table's shade."""
    tilt = rng.uniform(-0.6, 0.6, size=2) * strength
    model.light("lamp").dir[:] = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    model.light("lamp").diffuse[:] = 0.55 + 0.30 * strength * rng.uniform(-1, 1)
    model.vis.headlight.ambient[:] = 0.35 + 0.15 * strength * rng.uniform(-1, 1)
    model.vis.headlight.diffuse[:] = 0.20
    model.vis.headlight.specular[:] = 0.0
    model.geom("table").rgba[:3] = _TABLE_GREY + 0.12 * strength * rng.uniform(-1, 1)
