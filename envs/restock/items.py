"""The items: one body that can take every shape. The model is compiled once; an episode picks shapes and colours.

Every body carries the geoms of all shapes, of which one is solid and visible. All shapes have the same mass, inertia
and height, so that nothing derived from the body's inertia has to be computed again.
"""

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.g1 import collision
from envs.restock.config import COLOURS, SHAPES

HALF_HEIGHT_M = 0.035
HALF_WIDTH_M = 0.026
_MASS_KG = 0.2
_DAMPING = 5e-4  # N m s: an item that fell over soon stops rolling
# shape -> geoms as (type, size, height of the centre above the item's origin)
_GEOMS = {
    "can": (("cylinder", (0.027, HALF_HEIGHT_M), 0.0),),
    "box": (("box", (0.025, 0.025, HALF_HEIGHT_M), 0.0),),
    "bottle": (("cylinder", (0.026, 0.025), -0.010), ("cylinder", (0.011, 0.010), 0.025)),
}


def add_item(root: mjcf.RootElement, name: str) -> mjcf.Element:
    """Adds one free body with the geoms of all shapes; its origin is its centre, 3.5 cm above its base."""
    body = root.worldbody.add("body", name=name, pos=(0, 0, -1))
    body.add("joint", name=name, type="free", damping=_DAMPING)
    body.add("inertial", pos=(0, 0, -0.008), mass=_MASS_KG, diaginertia=(1.4e-4, 1.4e-4, 0.7e-4))
    for shape in SHAPES:
        for index, (kind, size, height) in enumerate(_GEOMS[shape]):
            body.add(
                "geom",
                name=f"{name}_{shape}_{index}",
                type=kind,
                size=size,
                pos=(0, 0, height),
                friction=(0.9, 0.01, 0.002),
                condim=4,
                **collision.WORLD,
            )
    return body


class ItemBodies:
    """The item bodies of a compiled model: dress them, place them, read their poses."""

    def __init__(self, model: mujoco.MjModel, names: tuple[str, ...]) -> None:
        self.names = names
        self._bodies = np.array([model.body(name).id for name in names])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in names])
        self._linear = np.array([model.joint(name).dofadr[0] for name in names])[:, None] + np.arange(3)
        self._geoms = [
            {shape: [model.geom(f"{name}_{shape}_{i}").id for i in range(len(_GEOMS[shape]))] for shape in SHAPES}
            for name in names
        ]

    def dress(self, model: mujoco.MjModel, index: int, shape: str, colour: str) -> None:
        """Makes one body a `colour` `shape`."""
        for kind, geoms in self._geoms[index].items():
            worn = kind == shape
            model.geom_rgba[geoms] = (*COLOURS[colour], 1.0) if worn else (0.0, 0.0, 0.0, 0.0)
            bits = collision.WORLD if worn else collision.NOTHING
            model.geom_contype[geoms] = bits["contype"]
            model.geom_conaffinity[geoms] = bits["conaffinity"]

    def place(self, data: mujoco.MjData, index: int, position_m: np.ndarray, yaw_rad: float) -> None:
        """Stands one item upright at a position of its centre."""
        start = self._qpos[index]
        data.qpos[start : start + 3] = position_m
        data.qpos[start + 3 : start + 7] = (np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2))

    def positions(self, data: mujoco.MjData) -> np.ndarray:
        """Centres [items, 3] in m."""
        return data.xpos[self._bodies]

    def half_extents_z(self, data: mujoco.MjData) -> np.ndarray:
        """How far each item reaches below its centre [items] in m, whether it stands or lies."""
        up = np.abs(data.xmat[self._bodies][:, 6:9])
        return up[:, 2] * HALF_HEIGHT_M + np.hypot(up[:, 0], up[:, 1]) * HALF_WIDTH_M

    def speeds(self, data: mujoco.MjData) -> np.ndarray:
        """Linear speeds [items] in m/s."""
        linear = data.qvel[self._linear]
        return np.sqrt((linear * linear).sum(axis=1))
