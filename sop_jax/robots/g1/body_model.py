"""Where a command would bring the arms: how near to the robot itself, and how far out of its workspace.

The model is the one that the simulated worlds use, with the configured lift, waist and head, and nothing around it: what
stands in the room is not known here.
"""

import dataclasses

import mujoco
import numpy as np

from envs.g1.config import G1Config
from envs.g1.kinematics import ARM_JOINTS, SIDES
from envs.g1.robot import G1
from sop_jax.robots.g1.config import LimitsConfig, PostureConfig

_MARGIN_M = 0.05
"""Distances beyond this are all the same."""

# Shoulders sit in the torso's shape at every posture.
_NEIGHBOURS = tuple(("body_link2", f"arm_{side}_link{link}") for side in "lr" for link in (1, 2))


@dataclasses.dataclass(frozen=True)
class Reach:
    """One posture of the arms. clearance_m: least distance between parts, at most 0.05, negative inside of each other;
    nearest: their names, "" where nothing is near; outside_m: how far a tool point lies outside the workspace, 0 inside.
    """

    clearance_m: float
    nearest: str
    outside_m: float


class BodyModel:
    """Judges postures, in less than a millisecond each. Holds scratch memory: not thread-safe.

    Fingers count as open, which is when they reach furthest.
    """

    def __init__(self, posture: PostureConfig, limits: LimitsConfig):
        self._low = np.array(limits.workspace_low_m)
        self._high = np.array(limits.workspace_high_m)
        self._model = _compile(posture)
        self._data = mujoco.MjData(self._model)
        joints = [f"{side}_j{number}" for side in SIDES for number in range(1, ARM_JOINTS + 1)]
        self._qpos = np.array([self._model.joint(name).qposadr[0] for name in joints])
        self._tools = [self._model.site(f"{side}_tcp").id for side in SIDES]

    def examine(self, arms: np.ndarray) -> Reach:
        """`arms` are 14 joint angles [rad]."""
        self._data.qpos[self._qpos] = arms
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        clearance_m, nearest = _MARGIN_M, ""
        for contact in self._data.contact:
            if contact.dist < clearance_m:
                clearance_m, nearest = float(contact.dist), self._names(contact.geom1, contact.geom2)
        tools = self._data.site_xpos[self._tools]
        outside = np.maximum(self._low - tools, tools - self._high)
        return Reach(clearance_m, nearest, max(0.0, float(outside.max())))

    def _names(self, first: int, second: int) -> str:
        bodies = [self._model.body(self._model.geom_bodyid[geom]).name for geom in (first, second)]
        return " and ".join(sorted(bodies))


def _compile(posture: PostureConfig) -> mujoco.MjModel:
    config = G1Config(
        lift_m=posture.lift_m,
        waist_pitch_rad=posture.waist_pitch_rad,
        head_yaw_rad=posture.head_yaw_rad,
        head_pitch_rad=posture.head_pitch_rad,
    )
    root = G1(config).mjcf_model
    for geom in root.find_all("geom"):
        geom.contype = geom.conaffinity = 1
        geom.margin = _MARGIN_M
    for first, second in _NEIGHBOURS:
        root.contact.add("exclude", body1=first, body2=second)
    return mujoco.MjModel.from_xml_string(root.to_xml_string())
