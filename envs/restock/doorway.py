"""The sliding door of the freezer in the simulation: its self-closing force, the left hand's hold, what is seen of both."""

import mujoco
import numpy as np

from envs.g1.drive import G1Drive
from envs.grasping import GraspWeld
from envs.restock.config import DoorLayout
from envs.restock.situation import Door


class Doorway:
    """The door of a compiled model. `update` once per control tick, after the physics."""

    def __init__(self, model: mujoco.MjModel, drive: G1Drive, layout: DoorLayout) -> None:
        self._drive, self._layout = drive, layout
        self._grasp = GraspWeld(model, "left", ("handle",))
        self._handle = model.body("handle").id
        self._tool = model.site("g1/left_tcp").id
        self._qpos, self._dof = model.joint("door").qposadr.item(), model.joint("door").dofadr.item()

    def reset(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Shuts the door and draws how hard it closes by itself."""
        self._grasp.reset(data)
        data.qpos[self._qpos] = 0.0
        data.qfrc_applied[self._dof] = -rng.uniform(*self._layout.closing_n)

    def update(self, data: mujoco.MjData, command: float) -> None:
        """Takes hold of the handle or lets go of it."""
        self._grasp.update(data, command, self._drive.closure(data, "left"))

    def observe(self, data: mujoco.MjData, command: float) -> Door:
        """The door now."""
        return Door(
            opening_m=data.qpos.item(self._qpos),
            handle=data.xpos[self._handle].copy(),
            tool=data.site_xpos[self._tool].copy(),
            held=self._grasp.held is not None,
            closure=self._drive.closure(data, "left"),
            command=command,
        )
