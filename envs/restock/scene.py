"""The restocking worlds: the robot before a table, with the furniture of the task on it, the goods and one lamp."""

import mujoco

from envs.composing import composer, mjcf
from envs.g1.robot import G1
from envs.grasping import add_welds
from envs.restock.config import SceneConfig
from envs.restock.furniture import furnish
from envs.restock.items import add_item
from envs.room import add_room, add_table

_TABLE_X_M, _TABLE_Y_M = (0.44, 1.00), (-0.45, 0.35)


class RestockArena(composer.Arena):
    """Floor, walls, table, furniture and one lamp."""

    def _build(self, config: SceneConfig) -> None:
        super()._build(name="restock")
        root = self.mjcf_model
        option = root.option
        option.timestep, option.integrator, option.cone = config.timestep_s, "implicitfast", "elliptic"
        add_room(root)
        add_table(root, _TABLE_X_M, _TABLE_Y_M, config.table_height_m)
        furnish(config, root.worldbody)


def item_bodies(config: SceneConfig) -> tuple[str, ...]:
    """Names of the items' bodies in the model."""
    return tuple(f"item_{index}" for index in range(config.num_items))


def build_mjcf(config: SceneConfig) -> mjcf.RootElement:
    """The world's MJCF tree: arena, robot, items, and the welds that hold them."""
    arena, robot = RestockArena(config), G1(config.robot)
    arena.attach(robot)
    root = arena.mjcf_model
    bodies = [add_item(root, name, config.catalogue) for name in item_bodies(config)]
    add_welds(root, robot.mjcf_model.find("body", "gripper_r_base_link"), bodies, "right", config.grip)
    if config.door is not None:
        handle = root.find("body", "handle")
        add_welds(root, robot.mjcf_model.find("body", "gripper_l_base_link"), [handle], "left", config.grip)
    return root


def compile_model(config: SceneConfig) -> mujoco.MjModel:
    """Compiles the world, about 0.1 s. One environment owns the model: episodes rewrite goods, light and welds."""
    root = build_mjcf(config)
    model = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model
