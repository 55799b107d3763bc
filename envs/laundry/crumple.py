"""Crumpled starts by simulation: the shirt is lifted by a random vertex, swung, and dropped, in a world of its own.

The throws run at reset, in a model that holds nothing but the cloth and one invisible finger: about 0.1 s of one core,
nothing stored, and every bit follows from the generator.
"""

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.laundry.config import LaundryConfig
from envs.laundry.scene import SHIRT_RADIUS_M, add_shirt, finish, set_physics

_LIFT_M, _SWING_M = 0.20, 0.10
_MAX_YAW_RAD = 0.5
_NUM_THROWS = 2
_LIFT_S, _SETTLE_S = 0.5, 0.8
_CENTRE_NOISE_M = 0.015
_FINGER = "finger"


class Crumpler:
    """Makes crumpled shirts. One per environment; holds scratch memory."""

    def __init__(self, config: LaundryConfig) -> None:
        self._config = config
        root = mjcf.RootElement(model="crumpler")
        set_physics(root, config)
        add_shirt(root, config)
        finger = root.worldbody.add("body", name=_FINGER, mocap=True)
        other = root.worldbody.add("body", name="placeholder")
        root.equality.add("connect", name=_FINGER, body1=finger, body2=other, anchor=(0, 0, 0), active=False)
        self._model = finish(mujoco.MjModel.from_xml_string(root.to_xml_string()))
        self._data = mujoco.MjData(self._model)
        self._bodies = self._model.flex_vertbodyid
        self._pull = self._model.equality(_FINGER).id

    def make(self, rng: np.random.Generator) -> np.ndarray:
        """Vertex positions [V, 3] in the base frame, at rest on the table around the middle of the work area."""
        config, data, strength = self._config, self._data, self._config.crumple
        mujoco.mj_resetData(self._model, data)
        yaw = _MAX_YAW_RAD * strength * rng.uniform(-1.0, 1.0)
        self._lay(turned(config.shirt.rest, yaw) + config.work_m)
        for _ in range(_NUM_THROWS if strength > 0.0 else 0):
            vertex = int(rng.integers(len(self._bodies)))
            swing = np.array([*rng.uniform(-_SWING_M, _SWING_M, size=2), _LIFT_M * rng.uniform(0.7, 1.0)])
            self._throw(vertex, swing * strength)
        vertices = data.flexvert_xpos.copy()
        middle = (vertices[:, :2].min(axis=0) + vertices[:, :2].max(axis=0)) / 2
        noise = rng.uniform(-_CENTRE_NOISE_M, _CENTRE_NOISE_M, size=2) * min(strength, 1.0)
        vertices[:, :2] += config.work_m - middle + noise
        return vertices

    def _lay(self, flat: np.ndarray) -> None:
        height = np.full((len(flat), 1), self._config.table_height_m + SHIRT_RADIUS_M)
        place_shirt(self._model, self._data, np.hstack([flat, height]))
        mujoco.mj_forward(self._model, self._data)

    def _throw(self, vertex: int, swing: np.ndarray) -> None:
        model, data = self._model, self._data
        start = data.flexvert_xpos[vertex].copy()
        model.eq_obj2id[self._pull] = self._bodies[vertex]
        model.eq_data[self._pull] = 0.0
        data.mocap_pos[0] = start
        data.eq_active[self._pull] = 1
        num_lift = round(_LIFT_S / model.opt.timestep)
        for tick in range(num_lift):
            share = (tick + 1) / num_lift
            data.mocap_pos[0] = start + swing * share * share * (3.0 - 2.0 * share)
            mujoco.mj_step(model, data)
        data.eq_active[self._pull] = 0
        mujoco.mj_step(model, data, round(_SETTLE_S / model.opt.timestep))


def place_shirt(model: mujoco.MjModel, data: mujoco.MjData, vertices: np.ndarray) -> None:
    """Puts the vertices [V, 3] of the one cloth there, at rest."""
    bodies = model.flex_vertbodyid
    first = model.jnt_qposadr[model.body_jntadr[bodies]]
    data.qpos[first[:, None] + np.arange(3)] = vertices - model.body_pos[bodies]


def turned(points: np.ndarray, yaw_rad: float) -> np.ndarray:
    """Points [N, 2] turned about the origin."""
    sin, cos = np.sin(yaw_rad), np.cos(yaw_rad)
    return points @ np.array([[cos, sin], [-sin, cos]])
