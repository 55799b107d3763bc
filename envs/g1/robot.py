"""The AgiBot G1 as a composer entity: two 7-joint arms on a fixed torso, two parallel grippers, three cameras.

Built from the numbers in `kinematics.json` with primitive shapes. Lift, waist and head do not move: their home values
(or those in `G1Config`) are baked into the body frames. Each gripper is a simplification of the OmniPicker: two pads
that slide towards each other, driven by one actuator, 0 open .. 1 closed.
"""

import dataclasses
import math

import mujoco
import numpy as np

from envs.composing import composer, mjcf
from envs.g1.collision import robot_bits
from envs.g1.config import G1Config
from envs.g1.gripper import add_gripper, add_gripper_drive
from envs.g1.kinematics import SIDES, Joint, Kinematics, Shape, load_kinematics

_COVER = (0.92, 0.93, 0.95, 1.0)
_JOINT_COLOUR = (0.28, 0.30, 0.34, 1.0)
_DARK_LINKS = frozenset(
    {"arm_l_link2", "arm_r_link2", "arm_l_link4", "arm_r_link4", "arm_l_end_link", "arm_r_end_link"}
)


class G1(composer.Entity):
    """The robot. Names inside: joints and actuators `left_j1`..`right_j7`, `left_gripper`, `right_gripper`;
    sites `left_tcp`, `right_tcp`; geoms `left_pad_0/1`, `right_pad_0/1`; cameras `head`, `hand_left`, `hand_right`.
    """

    def _build(self, config: G1Config | None = None, name: str = "g1") -> None:
        self._config = config or G1Config()
        self._numbers = load_kinematics()
        self._root = mjcf.RootElement(model=name)
        self._root.compiler.angle = "radian"
        self._root.compiler.autolimits = True
        self._add_link(self._root.worldbody, "base_link")
        for side in SIDES:
            self._add_servos(side)
        self._add_head_camera()

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        """The robot's MJCF tree."""
        return self._root

    @property
    def config(self) -> G1Config:
        """The configuration it was built from."""
        return self._config

    def _add_link(self, parent: mjcf.Element, link: str, joint: Joint | None = None) -> None:
        position, quaternion = (
            _frame(joint, self._config.fixed_values().get(joint.name, 0.0)) if joint else (None, None)
        )
        body = parent.add("body", name=link, pos=position, quat=quaternion, gravcomp=1)
        inertial = self._numbers.inertials.get(link)
        if inertial:
            body.add("inertial", pos=inertial.com_m, mass=inertial.mass_kg, fullinertia=inertial.inertia)
        if joint and _is_arm(joint):
            body.add(
                "joint",
                name=short_name(joint),
                type="hinge",
                axis=(0, 0, 1),
                range=(joint.lower, joint.upper),
                armature=self._config.armature,
            )
        for shape in _shapes_of(self._numbers, link):
            _add_shape(body, shape, link)
        if link.startswith("gripper") and link.endswith("base_link"):
            add_gripper(body, "left" if "_l_" in link else "right", self._config)
        for child in self._numbers.children(link):
            if not child.child.endswith("center_link"):
                self._add_link(body, child.child, child)

    def _add_servos(self, side: str) -> None:
        config = self._config
        for joint in self._numbers.arm_joints(side):
            self._root.actuator.add(
                "position",
                name=short_name(joint),
                joint=short_name(joint),
                kp=config.stiffness,
                kv=config.damping,
                ctrlrange=(joint.lower, joint.upper),
                forcerange=(-joint.effort, joint.effort),
            )
        add_gripper_drive(self._root, side, config)

    def _add_head_camera(self) -> None:
        camera = self._numbers.head_camera
        rotation = camera.link_from_camera[:3, :3]
        self._root.find("body", camera.parent).add(
            "camera",
            name="head",
            pos=camera.link_from_camera[:3, 3],
            xyaxes=np.concatenate([rotation[:, 0], -rotation[:, 1]]),
            fovy=math.degrees(2 * math.atan(camera.image_size[1] / 2 / camera.fy)),
        )


def short_name(joint: Joint) -> str:
    """`left_j1` .. `right_j7` for an arm joint."""
    side = "left" if "_l_" in joint.name else "right"
    return f"{side}_j{joint.name[-1]}"


def _is_arm(joint: Joint) -> bool:
    return joint.name[:4] in ("idx2", "idx6")


def _frame(joint: Joint, value: float) -> tuple[np.ndarray, np.ndarray]:
    """Pose of the child's frame in the parent's, with a fixed joint's value applied along or about z."""
    quaternion = rpy_quaternion(joint.rpy_rad)
    position = np.array(joint.position_m)
    if joint.kind == "prismatic":
        offset = np.zeros(3)
        mujoco.mju_rotVecQuat(offset, np.array([0.0, 0.0, value]), quaternion)
        return position + offset, quaternion
    turned = np.zeros(4)
    mujoco.mju_mulQuat(turned, quaternion, np.array([math.cos(value / 2), 0.0, 0.0, math.sin(value / 2)]))
    return position, turned


def rpy_quaternion(rpy_rad: tuple[float, float, float]) -> np.ndarray:
    """URDF roll, pitch, yaw (about fixed axes) as a quaternion w, x, y, z."""
    quaternion = np.zeros(4)
    mujoco.mju_euler2Quat(quaternion, np.array(rpy_rad), "XYZ")
    return quaternion


def _shapes_of(numbers: Kinematics, link: str) -> tuple[Shape, ...]:
    if link == "arm_l_link1":  # the source has this shape on the right arm only
        return tuple(dataclasses.replace(shape, position_m=_mirrored(shape)) for shape in numbers.shapes["arm_r_link1"])
    if link == "head_link2":  # the source has only a mesh here
        return (Shape("box", (0.02, -0.02, 0.0), (0.0, 0.0, 0.0), (0.06, 0.07, 0.07)),)
    return numbers.shapes.get(link, ())


def _mirrored(shape: Shape) -> tuple[float, float, float]:
    x, y, z = shape.position_m
    return (-x, y, z)


def _add_shape(body: mjcf.Element, shape: Shape, link: str) -> None:
    part = "left" if "_l_" in link else "right" if "_r_" in link else "body"
    body.add(
        "geom",
        type=shape.kind,
        size=shape.size,
        pos=shape.position_m,
        quat=rpy_quaternion(shape.rpy_rad),
        rgba=_JOINT_COLOUR if link in _DARK_LINKS else _COVER,
        **robot_bits(part),
    )
