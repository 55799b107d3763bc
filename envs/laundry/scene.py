"""The laundry world: the robot before a table with a shirt in the middle and a mat for a stack on either side."""

import mujoco
import numpy as np

from envs.composing import composer, mjcf
from envs.g1 import collision
from envs.g1.robot import G1
from envs.laundry.config import STACKS, LaundryConfig
from envs.laundry.pinch import add_pinches
from envs.room import add_room, add_table

SHIRT = "shirt"
SHIRT_RADIUS_M = 0.003
_SHIRT_MASS_KG = 0.08
_AIR_DRAG = 0.002  # N s/m per vertex: a falling shirt is slow, a shaken one comes to rest
_CLOTH_BIT = 16  # the shirt meets the table and the stacks; arms and fingers pass through it (holding is `ClothPinch`)
_CLOTH_WORLD = {"contype": _CLOTH_BIT, "conaffinity": _CLOTH_BIT, "friction": (0.6, 0.01, 0.001)}
_TABLE_X_M, _TABLE_Y_M = (0.42, 1.00), (-0.48, 0.48)
_MAT_COLOUR = (0.80, 0.72, 0.60, 1.0)
_FOLD_MARGIN_M = 0.012


class LaundryArena(composer.Arena):
    """The room, a table, two mats with room for folded shirts, and the shirt."""

    def _build(self, config: LaundryConfig) -> None:
        super()._build(name="laundry")
        root = self.mjcf_model
        set_physics(root, config)
        add_room(root)
        add_table(root, _TABLE_X_M, _TABLE_Y_M, config.table_height_m)
        for name in STACKS:
            self._add_stack(name, config)
        add_shirt(root, config)

    def _add_stack(self, name: str, config: LaundryConfig) -> None:
        world, (x, y) = self.mjcf_model.worldbody, config.stack_centres_m[name]
        half = folded_half_size(config) + _FOLD_MARGIN_M
        mat = {"size": (*half, 0.0005), "pos": (x, y, config.table_height_m)}
        world.add("geom", name=f"mat_{name}", type="box", rgba=_MAT_COLOUR, **mat, **collision.NOTHING)
        for index in range(config.max_stacked):
            body = world.add("body", name=f"stacked_{name}_{index}", pos=(x, y, -1.0))
            size = (*(half - _FOLD_MARGIN_M), config.stacked_thickness_m / 2)
            body.add("geom", name=f"stacked_{name}_{index}", type="box", size=size, **_CLOTH_WORLD)


def set_physics(root: mjcf.RootElement, config: LaundryConfig) -> None:
    """Time step, integrator and solver, the same wherever the shirt is simulated."""
    option = root.option
    option.timestep, option.integrator, option.cone = config.timestep_s, "implicitfast", "elliptic"
    option.solver, option.iterations, option.tolerance = "Newton", 20, 1e-6
    option.noslip_iterations = 0  # composer sets 5; they cost half of the step and change no fold


def add_shirt(root: mjcf.RootElement, config: LaundryConfig) -> None:
    """Adds the cloth, lying flat in the work area, and the plane that it lies on."""
    world, shirt = root.worldbody, config.shirt
    top = (*config.work_m, config.table_height_m)
    world.add("geom", name="cloth_table", type="plane", size=(1, 1, 0.1), pos=top, rgba=(0, 0, 0, 0), **_CLOTH_WORLD)
    cloth = world.add(
        "flexcomp",
        name=SHIRT,
        type="direct",
        dim=2,
        pos=(*config.work_m, config.table_height_m + SHIRT_RADIUS_M),
        mass=_SHIRT_MASS_KG,
        radius=SHIRT_RADIUS_M,
        point=np.pad(shirt.rest, ((0, 0), (0, 1))).ravel(),
        element=shirt.triangles.ravel(),
    )
    cloth.edge.equality, cloth.edge.solref = "true", (0.01, 1)
    contact = cloth.contact
    contact.selfcollide, contact.condim, contact.friction = "none", 3, _CLOTH_WORLD["friction"]
    contact.contype = contact.conaffinity = _CLOTH_BIT


def finish(model: mujoco.MjModel) -> mujoco.MjModel:
    """What a flexcomp can't say: air drag on the vertices. Divergence must be seen, not reset away."""
    for vertex_body in model.flex_vertbodyid:
        first = model.body_dofadr[vertex_body]
        model.dof_damping[first : first + 3] = _AIR_DRAG
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def folded_half_size(config: LaundryConfig) -> np.ndarray:
    """Half the folded shirt's extent [2]: x, y."""
    return np.abs(config.shirt.folded).max(axis=0)


def compile_model(config: LaundryConfig) -> mujoco.MjModel:
    """Compiles the world. One environment owns the model: episodes rewrite colours, stacks, light and pinches."""
    arena, robot = LaundryArena(config), G1(config.robot)
    arena.attach(robot)
    root = arena.mjcf_model
    for side in ("left", "right"):
        add_pinches(root, robot.mjcf_model.find("body", f"gripper_{side[0]}_base_link"), side)
    return finish(mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets()))
