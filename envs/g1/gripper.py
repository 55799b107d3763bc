"""A simplified OmniPicker: two pads that slide towards each other, one actuator, 0 open .. 1 closed, a camera on top.

The real fingers are four-bar linkages; their masses are kept, their shapes and stroke are ours.
"""

from types import MappingProxyType

import numpy as np

from envs.composing import mjcf
from envs.g1.collision import robot_bits
from envs.g1.config import CameraMount, G1Config
from envs.g1.kinematics import load_kinematics

_CENTRE_JOINT = MappingProxyType({"left": "idx52_gripper_l_center_joint", "right": "idx92_gripper_r_center_joint"})
_PALM_COLOUR = (0.28, 0.30, 0.34, 1.0)
_FINGER_COLOUR = (0.95, 0.55, 0.15, 1.0)
_PAD_COLOUR = (0.12, 0.12, 0.14, 1.0)
# Low, and it overrides the item's: a pad that pushes an item must not press it onto the table (holding is `GraspWeld`).
_PAD_FRICTION = (0.3, 0.01, 0.001)
_FINGER_ARMATURE_KG = 0.2


def add_gripper(base: mjcf.Element, side: str, config: G1Config) -> None:
    """Adds palm, fingers, the tool site `<side>_tcp` and the camera `hand_<side>` to the gripper's base body."""
    centre = load_kinematics().joints[_CENTRE_JOINT[side]].position_m
    base.add("site", name=f"{side}_tcp", pos=centre, size=(0.005,), rgba=(0, 0, 0, 0), group=4)
    base.add(
        "geom",
        name=f"{side}_palm",
        type="box",
        size=(0.026, 0.045, 0.03),
        pos=(0, 0, 0.033),
        rgba=_PALM_COLOUR,
        **robot_bits(side),
    )
    for index in (0, 1):
        _add_finger(base, side, index, centre[2], config)
    mount = config.wrist_camera if side == "right" else config.wrist_camera.turned()
    base.add("camera", name=f"hand_{side}", pos=mount.position_m, xyaxes=_look_at(mount), fovy=mount.fovy_deg)


def _add_finger(base: mjcf.Element, side: str, index: int, height_m: float, config: G1Config) -> None:
    sign, half = (1.0, -1.0)[index], config.opening_m / 2
    mass_kg = load_kinematics().finger_mass_kg[("inner", "outer")[index]]
    finger = base.add("body", name=f"{side}_finger_{index}", pos=(0, sign * half, height_m), gravcomp=1)
    finger.add("inertial", pos=(0, 0, -0.04), mass=mass_kg, diaginertia=(2e-5, 2e-5, 1e-5))
    finger.add(
        "joint",
        name=f"{side}_finger_{index}",
        type="slide",
        axis=(0, -sign, 0),
        range=(0.0, half),
        armature=_FINGER_ARMATURE_KG,
    )
    finger.add(
        "geom",
        name=f"{side}_pad_{index}",
        type="box",
        size=(0.012, 0.004, 0.022),
        pos=(0, sign * 0.004, 0),
        rgba=_PAD_COLOUR,
        friction=_PAD_FRICTION,
        priority=1,
        **robot_bits(side),
    )
    finger.add(
        "geom",
        name=f"{side}_finger_{index}",
        type="box",
        size=(0.010, 0.005, 0.040),
        pos=(0, sign * 0.012, -0.03),
        rgba=_FINGER_COLOUR,
        **robot_bits(side),
    )


def add_gripper_drive(root: mjcf.RootElement, side: str, config: G1Config) -> None:
    """Adds the position drive of both pads and the coupling that keeps them symmetric."""
    first, second = (root.find("joint", f"{side}_finger_{index}") for index in (0, 1))
    root.equality.add("joint", joint1=second, joint2=first, polycoef=(0, 1, 0, 0, 0), solref=(0.01, 1))
    half, gain = config.opening_m / 2, config.gripper_stiffness
    # Affine position drive whose control runs 0 (open) .. 1 (closed).
    root.actuator.add(
        "general",
        name=f"{side}_gripper",
        joint=first,
        dyntype="none",
        gaintype="fixed",
        gainprm=(gain * half,),
        biastype="affine",
        biasprm=(0.0, -gain, -config.gripper_damping),
        ctrlrange=(0.0, 1.0),
        forcerange=(-config.gripper_force_n, config.gripper_force_n),
    )


def _look_at(mount: CameraMount) -> np.ndarray:
    """The camera's x and y axes in its parent's frame (MuJoCo cameras look along -z)."""
    forward = np.array(mount.look_at_m) - np.array(mount.position_m)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.array(mount.up))
    right /= np.linalg.norm(right)
    return np.concatenate([right, np.cross(right, forward)])
