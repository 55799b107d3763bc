"""The AgiBot G1 as a composer entity: two 7-joint arms on a fixed torso, two parallel grippers, three cameras.

Built from the numbers in `kinematics.json` with primitive shapes. Lift, waist and head do not move: their home values
(or those in `G1Config`) are baked into the body frames. Each gripper is a simplification of the OmniPicker: two pads
that slide towards each other, driven by one actuator, 0 open .. 1 closed.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import mujoco
import numpy as np
from dm_control import composer, mjcf

from envs.g1.kinematics import SIDES, Inertial, Joint, Kinematics, Shape, load_kinematics

# Collision bits (a pair collides if one's type meets the other's affinity): a robot does not collide with its own arm,
# torso and head; its two arms collide with each other and with the world.
WORLD_BIT, LEFT_BIT, RIGHT_BIT, BODY_BIT = 1, 2, 4, 8
_COLLISION = MappingProxyType(
    {
        "left": (LEFT_BIT, WORLD_BIT | RIGHT_BIT),
        "right": (RIGHT_BIT, WORLD_BIT | LEFT_BIT),
        "body": (BODY_BIT, WORLD_BIT),
    }
)
_COVER = (0.92, 0.93, 0.95, 1.0)
_JOINT_COLOUR = (0.28, 0.30, 0.34, 1.0)
# Low, and it overrides the item's: a pad that pushes an item must not press it onto the table (holding is `GraspWeld`).
_PAD_FRICTION = (0.3, 0.01, 0.001)
_PAD_COLOUR = (0.12, 0.12, 0.14, 1.0)
_FINGER_COLOUR = (0.95, 0.55, 0.15, 1.0)
_DARK_LINKS = frozenset(
    {"arm_l_link2", "arm_r_link2", "arm_l_link4", "arm_r_link4", "arm_l_end_link", "arm_r_end_link"}
)


@dataclasses.dataclass(frozen=True)
class CameraMount:
    """A camera in its parent's frame: position [m], the point it looks at [m], an up direction, vertical view [deg]."""

    position_m: tuple[float, float, float]
    look_at_m: tuple[float, float, float]
    up: tuple[float, float, float]
    fovy_deg: float

    def turned(self) -> "CameraMount":
        """The same mount after half a turn about z: the left hand hangs the other way round."""
        x, y, z = ((-a, -b, c) for a, b, c in (self.position_m, self.look_at_m, self.up))
        return CameraMount(x, y, z, self.fovy_deg)


@dataclasses.dataclass(frozen=True)
class G1Config:
    """Posture of the fixed joints, servo gains, gripper and wrist cameras.

    The servos are position drives with gravity compensation. With `stiffness / damping` = 25 per second they follow a
    moving target with a lag of about 40 ms. Gains are our choice: the vendor publishes none. The wrist cameras' mounts
    are not published either: a plausible one that looks at the pads; the view angle comes from public intrinsics.
    It is given for the right hand. `opening_m` is the distance between the open pads.
    """

    lift_m: float = load_kinematics().home.lift_m
    waist_pitch_rad: float = load_kinematics().home.waist_pitch_rad
    head_yaw_rad: float = load_kinematics().home.head_yaw_rad
    head_pitch_rad: float = load_kinematics().home.head_pitch_rad
    stiffness: float = 1000.0
    damping: float = 40.0
    armature: float = 0.02
    opening_m: float = 0.10
    gripper_stiffness: float = 800.0
    gripper_damping: float = 50.0
    gripper_force_n: float = 30.0
    wrist_camera: CameraMount = CameraMount((0.085, 0.0, 0.055), (0.0, 0.0, 0.165), (1.0, 0.0, 0.0), 58.0)

    def __post_init__(self) -> None:
        """Checks what would otherwise show as a robot that shakes or falls apart."""
        for name in ("stiffness", "damping", "armature", "opening_m", "gripper_stiffness", "gripper_force_n"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"G1Config.{name} must be positive, got {getattr(self, name)}")

    def fixed_values(self) -> Mapping[str, float]:
        """Values of the joints that don't move, by the vendor's names."""
        return {
            "idx01_body_joint1": self.lift_m,
            "idx02_body_joint2": self.waist_pitch_rad,
            "idx11_head_joint1": self.head_yaw_rad,
            "idx12_head_joint2": self.head_pitch_rad,
        }


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
            self._add_gripper(body, "left" if "_l_" in link else "right")
        for child in self._numbers.children(link):
            if not child.child.endswith("center_link"):
                self._add_link(body, child.child, child)

    def _add_gripper(self, base: mjcf.Element, side: str) -> None:
        numbers, config = self._numbers, self._config
        centre = numbers.joints[f"idx{'52' if side == 'left' else '92'}_gripper_{side[0]}_center_joint"].position_m
        base.add("site", name=f"{side}_tcp", pos=centre, size=(0.005,), rgba=(0, 0, 0, 0), group=4)
        kind, affinity = _COLLISION[side]
        solid = {"contype": kind, "conaffinity": affinity}
        base.add(
            "geom",
            name=f"{side}_palm",
            type="box",
            size=(0.026, 0.045, 0.03),
            pos=(0, 0, 0.033),
            rgba=_JOINT_COLOUR,
            **solid,
        )
        half = config.opening_m / 2
        for index, sign in enumerate((1.0, -1.0)):
            mass = numbers.finger_mass_kg["inner" if index == 0 else "outer"]
            finger = base.add("body", name=f"{side}_finger_{index}", pos=(0, sign * half, centre[2]), gravcomp=1)
            finger.add("inertial", pos=(0, 0, -0.04), mass=mass, diaginertia=(2e-5, 2e-5, 1e-5))
            finger.add(
                "joint",
                name=f"{side}_finger_{index}",
                type="slide",
                axis=(0, -sign, 0),
                range=(0.0, half),
                armature=0.2,
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
                **solid,
            )
            finger.add(
                "geom",
                name=f"{side}_finger_{index}",
                type="box",
                size=(0.010, 0.005, 0.040),
                pos=(0, sign * 0.012, -0.03),
                rgba=_FINGER_COLOUR,
                **solid,
            )
        mount = config.wrist_camera if side == "right" else config.wrist_camera.turned()
        base.add("camera", name=f"hand_{side}", pos=mount.position_m, xyaxes=_look_at(mount), fovy=mount.fovy_deg)

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
        first, second = (self._root.find("joint", f"{side}_finger_{index}") for index in (0, 1))
        self._root.equality.add("joint", joint1=second, joint2=first, polycoef=(0, 1, 0, 0, 0), solref=(0.01, 1))
        half, gain = config.opening_m / 2, config.gripper_stiffness
        # Affine position drive whose control runs 0 (open) .. 1 (closed).
        self._root.actuator.add(
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


def _look_at(mount: CameraMount) -> np.ndarray:
    """The camera's x and y axes in its parent's frame (MuJoCo cameras look along -z)."""
    forward = np.array(mount.look_at_m) - np.array(mount.position_m)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.array(mount.up))
    right /= np.linalg.norm(right)
    return np.concatenate([right, np.cross(right, forward)])


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
    kind, affinity = _COLLISION[part]
    body.add(
        "geom",
        type=shape.kind,
        size=shape.size,
        pos=shape.position_m,
        quat=rpy_quaternion(shape.rpy_rad),
        contype=kind,
        conaffinity=affinity,
        rgba=_JOINT_COLOUR if link in _DARK_LINKS else _COVER,
    )
