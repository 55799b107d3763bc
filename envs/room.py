"""The room that every world stands in: floor, four walls, one lamp, a table; and its light, which changes by the episode.

Floor and table carry white textures, which show nothing: an individual's own are painted over them (`paint_surface`).
"""

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.g1 import collision
from envs.rendering import set_render_quality

SURFACES = ("floor", "table")
"""The textured surfaces of every world."""

TEXTURE_PIXELS = 64
_FLOOR = (0.35, 0.36, 0.38, 1)
_WALL = (0.62, 0.66, 0.70, 1)
_TABLE_GREY = 0.52
_TABLE_FRICTION = (0.9, 0.01, 0.002)


def add_room(root: mjcf.RootElement) -> None:
    """Floor, walls and the lamp, and fast images of them."""
    set_render_quality(root)
    world = root.worldbody
    floor = _add_surface(root, "floor", 1.0)
    world.add("geom", name="floor", type="plane", size=(4, 4, 0.1), rgba=_FLOOR, material=floor, **collision.WORLD)
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
        material=_add_surface(root, "table", 3.0),
        friction=_TABLE_FRICTION,
        **collision.WORLD,
    )


def _add_surface(root: mjcf.RootElement, name: str, repeats_per_m: float) -> mjcf.Element:
    """A material with a texture that is white all over."""
    white = {"builtin": "flat", "rgb1": (1, 1, 1), "rgb2": (1, 1, 1), "mark": "none"}
    texture = root.asset.add("texture", name=name, type="2d", width=TEXTURE_PIXELS, height=TEXTURE_PIXELS, **white)
    repeat = {"texuniform": True, "texrepeat": (repeats_per_m, repeats_per_m)}
    return root.asset.add("material", name=name, texture=texture, **repeat)


def paint_surface(model: mujoco.MjModel, name: str, brightness: np.ndarray) -> None:
    """Gives a surface of `SURFACES` its pattern: uint8 [TEXTURE_PIXELS, TEXTURE_PIXELS], 255 leaves the colour as it is.

    Before the first image: a renderer takes the textures along when it is made.
    """
    texture = model.texture(name)
    start, num = int(texture.adr[0]), int(texture.nchannel[0])
    pixels = np.repeat(brightness.reshape(-1), num)
    model.tex_data[start : start + len(pixels)] = pixels


def randomise_light(model: mujoco.MjModel, strength: float, rng: np.random.Generator) -> None:
    """Draws lamp direction and brightness, ambient light and the table's shade."""
    tilt = rng.uniform(-0.6, 0.6, size=2) * strength
    model.light("lamp").dir[:] = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    model.light("lamp").diffuse[:] = 0.55 + 0.30 * strength * rng.uniform(-1, 1)
    model.vis.headlight.ambient[:] = 0.35 + 0.15 * strength * rng.uniform(-1, 1)
    model.vis.headlight.diffuse[:] = 0.20
    model.vis.headlight.specular[:] = 0.0
    model.geom("table").rgba[:3] = _TABLE_GREY + 0.12 * strength * rng.uniform(-1, 1)
