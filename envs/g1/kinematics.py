"""The robot's numbers: joints, inertias, primitive shapes, home posture and head camera, parsed once from JSON.

`kinematics.json` holds numbers of the vendor's public URDF (source and licence inside the file), no meshes.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping

import numpy as np

ARM_JOINTS = 7
SIDES = ("left", "right")
GRIPPER_NAMES = ("left_gripper", "right_gripper")


@dataclasses.dataclass(frozen=True)
class Joint:
    """One joint: where the child's frame sits in the parent's, and (for moving joints) its limits about z.

    Positions in m, angles in rad; `velocity` in m/s or rad/s; `effort` in N or Nm.
    """

    name: str
    kind: str
    parent: str
    child: str
    position_m: tuple[float, float, float]
    rpy_rad: tuple[float, float, float]
    lower: float
    upper: float
    velocity: float
    effort: float


@dataclasses.dataclass(frozen=True)
class Inertial:
    """Mass [kg], centre of mass [m] and inertia about it [kg m^2] as (xx, yy, zz, xy, xz, yz)."""

    mass_kg: float
    com_m: tuple[float, float, float]
    inertia: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A primitive: `size` holds half edge lengths of a box, or (radius, half length) of a cylinder, in m."""

    kind: str
    position_m: tuple[float, float, float]
    rpy_rad: tuple[float, float, float]
    size: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class HeadCamera:
    """Pinhole numbers of one real head camera [px] and its pose in its parent link (optical axes: z forward, y down)."""

    parent: str
    image_size: tuple[int, int]
    fx: float
    fy: float
    link_from_camera: np.ndarray


@dataclasses.dataclass(frozen=True)
class Home:
    """The posture from which the vendor's deployments start."""

    lift_m: float
    waist_pitch_rad: float
    head_yaw_rad: float
    head_pitch_rad: float
    left_arm_rad: tuple[float, ...]
    right_arm_rad: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Kinematics:
    """Everything that is known of the robot's body, keyed by the vendor's joint and link names."""

    joints: Mapping[str, Joint]
    inertials: Mapping[str, Inertial]
    shapes: Mapping[str, tuple[Shape, ...]]
    finger_mass_kg: Mapping[str, float]
    home: Home
    head_camera: HeadCamera

    def arm_joints(self, side: str) -> tuple[Joint, ...]:
        """The seven joints of one arm, shoulder first."""
        prefix = {"left": "idx2", "right": "idx6"}[side]
        found = (joint for name, joint in self.joints.items() if name.startswith(prefix))
        return tuple(sorted(found, key=lambda joint: joint.name))

    def children(self, link: str) -> tuple[Joint, ...]:
        """The joints that hang from `link`."""
        return tuple(joint for joint in self.joints.values() if joint.parent == link)


@functools.cache
def load_kinematics() -> Kinematics:
    """Reads and parses the shipped numbers (cached: the result is immutable)."""
    raw = json.loads(importlib.resources.files("envs.g1").joinpath("kinematics.json").read_text())
    camera = raw["head_camera"]
    home = raw["home"]
    return Kinematics(
        joints={name: _joint(name, values) for name, values in raw["joints"].items()},
        inertials={
            name: Inertial(values["mass"], tuple(values["com"]), tuple(values["inertia"]))
            for name, values in raw["links"].items()
        },
        shapes={name: tuple(map(_shape, values)) for name, values in raw["shapes"].items()},
        finger_mass_kg=dict(raw["finger_mass"]),
        home=Home(
            lift_m=home["lift_m"],
            waist_pitch_rad=home["waist_pitch_rad"],
            head_yaw_rad=home["head_yaw_rad"],
            head_pitch_rad=home["head_pitch_rad"],
            left_arm_rad=tuple(home["left_arm_rad"]),
            right_arm_rad=tuple(home["right_arm_rad"]),
        ),
        head_camera=HeadCamera(
            parent=camera["parent"],
            image_size=tuple(camera["image_size"]),
            fx=camera["fx"],
            fy=camera["fy"],
            link_from_camera=np.array(camera["link_from_camera_optical"]),
        ),
    )


def _joint(name: str, values: dict) -> Joint:
    return Joint(
        name=name,
        kind=values["type"],
        parent=values["parent"],
        child=values["child"],
        position_m=tuple(values["xyz"]),
        rpy_rad=tuple(values["rpy"]),
        lower=values.get("lower", 0.0),
        upper=values.get("upper", 0.0),
        velocity=values.get("velocity", 0.0),
        effort=values.get("effort", 0.0),
    )


def _shape(values: dict) -> Shape:
    is_box = values["type"] == "box"
    size = tuple(edge / 2 for edge in values["size"]) if is_box else (values["radius"], values["length"] / 2)
    return Shape(values["type"], tuple(values["xyz"]), tuple(values["rpy"]), size)
