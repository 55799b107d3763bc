"""What can be chosen about the robot: posture of the fixed joints, servo gains, gripper, wrist cameras."""

import dataclasses
from collections.abc import Mapping

from envs.g1.kinematics import load_kinematics


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

    lift_m: float = dataclasses.field(default_factory=lambda: load_kinematics().home.lift_m)
    waist_pitch_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.waist_pitch_rad)
    head_yaw_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.head_yaw_rad)
    head_pitch_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.head_pitch_rad)
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
