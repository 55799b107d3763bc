"""The box world: the robot before a table with a low stand, on which the blank lies."""

import mujoco

from envs.box.blank import add_blank
from envs.box.config import BoxConfig
from envs.composing import composer
from envs.g1 import collision
from envs.g1.robot import G1
from envs.room import add_room, add_table

_TABLE_X_M, _TABLE_Y_M = (0.44, 1.04), (-0.50, 0.50)
_STAND_HALF_M = (0.05, 0.04)
_STAND = (0.15, 0.15, 0.15, 1)


class BoxArena(composer.Arena):
    """The room, a table, and the stand."""

    def _build(self, config: BoxConfig) -> None:
        super()._build(name="box")
        option = self.mjcf_model.option
        option.timestep, option.integrator, option.cone = config.timestep_s, "implicitfast", "elliptic"
        add_room(self.mjcf_model)
        top = config.table_height_m
        add_table(self.mjcf_model, _TABLE_X_M, _TABLE_Y_M, top)
        blank = config.blank_height_m - 0.002
        stand = {"size": (*_STAND_HALF_M, (blank - top) / 2), "pos": (config.stand_x_m, 0, (blank + top) / 2)}
        self.mjcf_model.worldbody.add("geom", name="stand", type="box", rgba=_STAND, **stand, **collision.WORLD)


def compile_model(config: BoxConfig) -> mujoco.MjModel:
    """Compiles the world. One environment owns the model: episodes rewrite the blank's size and colour, and the light."""
    arena = BoxArena(config)
    arena.attach(G1(config.robot))
    root = arena.mjcf_model
    add_blank(root, config)
    model = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    # The blank's panels change their size between episodes; the tree behind the middle phase would not follow.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    return model
