"""The restock world: the robot before a table with a staging mat and a flat shelf of three marked slots."""

import mujoco
import numpy as np

from envs.composing import composer, mjcf
from envs.g1 import collision
from envs.g1.robot import G1
from envs.grasping import add_welds
from envs.rendering import set_render_quality
from envs.restock.config import RestockConfig
from envs.restock.items import add_item

_WALL = (0.62, 0.66, 0.70, 1)
_TABLE_GREY = 0.52
_TABLE_X_M, _TABLE_Y_M = (0.44, 1.00), (-0.45, 0.35)


class RestockArena(composer.Arena):
    """Floor, wall, table, staging mat, shelf and one lamp."""

    def _build(self, config: RestockConfig) -> None:
        super()._build(name="restock")
        root = self.mjcf_model
        option = root.option
        option.timestep, option.integrator, option.cone = config.timestep_s, "implicitfast", "elliptic"
        set_render_quality(root)
        world = root.worldbody
        world.add("geom", name="floor", type="plane", size=(4, 4, 0.1), rgba=(0.35, 0.36, 0.38, 1), **collision.WORLD)
        for x, y in ((-3, 0), (3, 0), (0, -3), (0, 3)):
            world.add(
                "geom",
                type="plane",
                size=(3, 3, 0.1),
                pos=(x, y, 0),
                zaxis=(-x, -y, 0),
                rgba=_WALL,
                **collision.NOTHING,
            )
        world.add("light", name="lamp", pos=(0.6, 0, 2.5), dir=(0, 0, -1), directional=True, castshadow=False)
        top, (x0, x1), (y0, y1) = config.table_height_m, _TABLE_X_M, _TABLE_Y_M
        world.add(
            "geom",
            name="table",
            type="box",
            size=((x1 - x0) / 2, (y1 - y0) / 2, top / 2),
            pos=((x0 + x1) / 2, (y0 + y1) / 2, top / 2),
            rgba=(_TABLE_GREY, _TABLE_GREY, _TABLE_GREY, 1),
            friction=(0.9, 0.01, 0.002),
            **collision.WORLD,
        )
        self._add_shelf(config)

    def _add_shelf(self, config: RestockConfig) -> None:
        world = self.mjcf_model.worldbody
        ys, half, thickness = config.slot_y_m, config.slot_half_m, config.shelf_thickness_m
        width = (max(ys) - min(ys)) / 2 + half + 0.01
        centre = (config.shelf_x_m, (max(ys) + min(ys)) / 2)
        world.add(
            "geom",
            name="shelf",
            type="box",
            size=(half + 0.01, width, thickness / 2),
            pos=(*centre, config.table_height_m + thickness / 2),
            rgba=(0.30, 0.22, 0.16, 1),
            friction=(0.9, 0.01, 0.002),
            **collision.WORLD,
        )
        for name, (x, y) in config.slot_centres_m.items():
            world.add(
                "geom",
                name=f"slot_{name}",
                type="box",
                size=(half - 0.004, half - 0.004, 0.0005),
                pos=(x, y, config.shelf_top_m),
                rgba=(0.80, 0.72, 0.60, 1),
                **collision.NOTHING,
            )


def item_bodies(config: RestockConfig) -> tuple[str, ...]:
    """Names of the items' bodies in the model."""
    return tuple(f"item_{index}" for index in range(config.num_items))


def build_mjcf(config: RestockConfig) -> mjcf.RootElement:
    """The world's MJCF tree: arena, robot, items, and the welds that hold them."""
    arena, robot = RestockArena(config), G1(config.robot)
    arena.attach(robot)
    root = arena.mjcf_model
    bodies = [add_item(root, name) for name in item_bodies(config)]
    add_welds(root, robot.mjcf_model.find("body", "gripper_r_base_link"), bodies, "right")
    return root


def compile_model(config: RestockConfig) -> mujoco.MjModel:
    """Compiles the world, about 0.1 s. One environment owns the model: episodes rewrite colours, shapes, light, welds."""
    root = build_mjcf(config)
    model = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def randomise_light(model: mujoco.MjModel, strength: float, rng: np.random.Generator) -> None:
    """Draws lamp direction and brightness, ambient light and the table's shade."""
    tilt = rng.uniform(-0.6, 0.6, size=2) * strength
    model.light("lamp").dir[:] = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    model.light("lamp").diffuse[:] = 0.55 + 0.30 * strength * rng.uniform(-1, 1)
    model.vis.headlight.ambient[:] = 0.35 + 0.15 * strength * rng.uniform(-1, 1)
    model.vis.headlight.diffuse[:] = 0.20
    model.vis.headlight.specular[:] = 0.0
    model.geom("table").rgba[:3] = _TABLE_GREY + 0.12 * strength * rng.uniform(-1, 1)
