"""What is chosen about one G1: what moves, in which units its SDK speaks, its cameras, limits and deadlines.

No addresses: how a computer reaches its robot is the SDK's own set-up, and no part of this configuration.
"""

import dataclasses
import math
from typing import Literal

from envs.g1.kinematics import load_kinematics
from sop_jax.robots.two_arm import ACTION_HIGH, ACTION_LOW, CAMERA_NAMES
from sop_jax.specs.errors import ConfigError

MAX_STEP_RAD = 0.2618
"""No command goes further than this from where a joint is (15 degrees); a configuration can only ask for less."""

NUM_ARM_JOINTS = 14


@dataclasses.dataclass(frozen=True)
class GripperCalibration:
    """The raw values of one gripper, open and closed, as the SDK reports them and as it takes them."""

    state_open: float = 0.0
    state_closed: float = 1.0
    command_open: float = 0.0
    command_closed: float = 1.0

    def __post_init__(self) -> None:
        for low, high in ((self.state_open, self.state_closed), (self.command_open, self.command_closed)):
            if not (math.isfinite(low) and math.isfinite(high) and low != high):
                raise ConfigError(f"GripperCalibration: open and closed must be finite and differ, got {self}")


@dataclasses.dataclass(frozen=True)
class UnitsConfig:
    """How this SDK version speaks. Ours is rad, m, and 0 open .. 1 closed; everything is converted once, in `units`.

    head_state: versions differ, while commands are always rad. lift_state, lift_command: states in m and commands in cm on
        all versions seen. channels: the order of colours in camera frames.
    """

    head_state: Literal["deg", "rad"] = "deg"
    lift_state: Literal["m", "cm"] = "m"
    lift_command: Literal["m", "cm"] = "cm"
    channels: Literal["rgb", "bgr"] = "rgb"
    left_gripper: GripperCalibration = GripperCalibration()
    right_gripper: GripperCalibration = GripperCalibration()

    def __post_init__(self) -> None:
        choices = {
            "head_state": ("deg", "rad"),
            "lift_state": ("m", "cm"),
            "lift_command": ("m", "cm"),
            "channels": ("rgb", "bgr"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"UnitsConfig.{name} must be one of {allowed}, got {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """One camera: our name, the SDK's name, the frames that it gives [px], and the images that observations carry [px].

    A frame is cropped around its centre to the image's proportions, then made smaller.
    """

    name: str
    sdk_name: str
    frame_height: int
    frame_width: int
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        if not 1 <= self.height <= self.frame_height or not 1 <= self.width <= self.frame_width:
            raise ConfigError(
                f"CameraConfig {self.name}: images must not be larger than frames, got {self.height}x{self.width} from "
                f"{self.frame_height}x{self.frame_width}"
            )


DEFAULT_CAMERAS = (
    CameraConfig("head", "head", 720, 1280),
    CameraConfig("hand_left", "hand_left", 480, 848),
    CameraConfig("hand_right", "hand_right", 480, 848),
)


@dataclasses.dataclass(frozen=True)
class PostureConfig:
    """Where lift, waist and head stand during episodes. They never move inside one.

    commanded: bring them there at each reset; False = a person has, and the reset only looks. The tolerances say how near
    the measured values must be: a head that speaks other units than configured shows here.
    """

    lift_m: float = dataclasses.field(default_factory=lambda: load_kinematics().home.lift_m)
    waist_pitch_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.waist_pitch_rad)
    head_yaw_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.head_yaw_rad)
    head_pitch_rad: float = dataclasses.field(default_factory=lambda: load_kinematics().home.head_pitch_rad)
    commanded: bool = False
    tolerance_rad: float = 0.05
    tolerance_m: float = 0.02

    def __post_init__(self) -> None:
        _check_range("PostureConfig.lift_m", self.lift_m, 0.0, 0.5)
        _check_range("PostureConfig.waist_pitch_rad", self.waist_pitch_rad, 0.0, math.pi / 2)
        _check_range("PostureConfig.head_yaw_rad", self.head_yaw_rad, -math.pi / 2, math.pi / 2)
        # The narrower of two published lower ends, and the wider upper one: the vendor's own home pose needs it.
        _check_range("PostureConfig.head_pitch_rad", self.head_pitch_rad, -0.3491, 0.5236)
        _check_positive(self, "tolerance_rad", "tolerance_m")


@dataclasses.dataclass(frozen=True)
class LimitsConfig:
    """What no command may pass, whoever gives it.

    low, high: absolute targets, 14 joints [rad] and 2 grippers. max_step_rad: from the measured joint. max_speed [rad/s]
    and max_acceleration [rad/s^2]: of the commanded joints; slowing down is never limited, nor are grippers, which are told
    open or closed and limit themselves. workspace_low_m, workspace_high_m: the box in the robot's base frame (x forward, y
    left, z up) that both tool points stay in. clearance_m: least distance between an arm and the rest of the robot.
    soft_start_s: for so long after a reset or a hold, speed rises from soft_start_share of its limit to the whole.
    """

    low: tuple[float, ...] = ACTION_LOW
    high: tuple[float, ...] = ACTION_HIGH
    max_step_rad: float = MAX_STEP_RAD
    max_speed: float = 3.0
    max_acceleration: float = 6.0
    workspace_low_m: tuple[float, float, float] = (-0.2, -1.1, 0.1)
    workspace_high_m: tuple[float, float, float] = (1.2, 1.1, 2.0)
    clearance_m: float = 0.01
    soft_start_s: float = 1.0
    soft_start_share: float = 0.2

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(ACTION_LOW):
            raise ConfigError(f"LimitsConfig: low and high must have {len(ACTION_LOW)} values each, got {self}")
        for low, high, least, most in zip(self.low, self.high, ACTION_LOW, ACTION_HIGH, strict=True):
            if not least <= low < high <= most:
                raise ConfigError(
                    f"LimitsConfig: limits may only be narrower than the robot's {least} .. {most}, got {low} .. {high}"
                )
        _check_range("LimitsConfig.max_step_rad", self.max_step_rad, 1e-3, MAX_STEP_RAD)
        _check_positive(self, "max_speed", "max_acceleration")
        _check_range("LimitsConfig.soft_start_share", self.soft_start_share, 0.01, 1.0)
        if self.clearance_m < 0 or self.soft_start_s < 0:
            raise ConfigError(f"LimitsConfig: clearance_m and soft_start_s must be >= 0, got {self}")
        if any(low >= high for low, high in zip(self.workspace_low_m, self.workspace_high_m, strict=True)):
            raise ConfigError(f"LimitsConfig: workspace_low_m must lie below workspace_high_m, got {self}")


@dataclasses.dataclass(frozen=True)
class TimingConfig:
    """Deadlines [s]. Nothing is known of what the robot does when commands stop, so we act as if it did nothing.

    command_late_s: without a command for so long, the watchdog holds the robot where it was sent last.
    give_up_s: after so long, and after so long without fresh states or pictures, the episode is over.
    max_state_age_s, max_frame_age_s: older samples are refused. max_ahead_s: stamps may lie so far in the future.
    max_spread_s: how far pictures and states of one observation may lie apart. max_frozen_s: a camera whose picture stays
    the same to the last bit for so long is frozen; None = don't look (pictures without noise). max_lag_rad, max_lag_s: a
    joint that stays so far from its command for so long, and doesn't move, isn't following. reset_s: how long the way to
    the start may take.
    """

    control_hz: float = 30.0
    command_late_s: float = 0.2
    give_up_s: float = 2.0
    max_state_age_s: float = 0.1
    max_frame_age_s: float = 0.25
    max_ahead_s: float = 0.02
    max_spread_s: float = 0.05
    max_frozen_s: float | None = 1.0
    max_lag_rad: float = 0.2
    max_lag_s: float = 1.5
    reset_s: float = 20.0

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self) if field.name != "max_frozen_s"]
        _check_positive(self, *names)
        if self.max_frozen_s is not None:
            _check_positive(self, "max_frozen_s")
        if self.command_late_s <= 1 / self.control_hz:
            raise ConfigError(f"TimingConfig.command_late_s must exceed a control period, got {self}")
        if self.give_up_s <= self.command_late_s:
            raise ConfigError(f"TimingConfig.give_up_s must exceed command_late_s, got {self}")

    @property
    def period_ns(self) -> int:
        return round(1e9 / self.control_hz)


@dataclasses.dataclass(frozen=True)
class Ros2Config:
    """Where the robot's ROS 2 topics are. They are reached over DDS itself, so this computer needs no ROS.

    domain_id: the robot's ROS_DOMAIN_ID. interface: the network interface towards the robot ("lo" = this computer alone); ""
    lets DDS choose. camera: the topic of a camera's pictures, `{}` standing for `CameraConfig.sdk_name`. status: whole-body
    status, from which stops are read; "" only where the lab has a stop signal of its own. best_effort: for a robot whose
    publishers don't repeat what was lost; a reliable reader never meets them. max_status_age_s: how long the status topic may
    be silent before the robot is no longer driven; how often a robot sends it is to be confirmed.
    """

    domain_id: int = 0
    interface: str = ""
    arms: str = "/hal/arm_joint_state"
    left_gripper: str = "/hal/left_ee_data"
    right_gripper: str = "/hal/right_ee_data"
    head: str = "/hal/neck_state"
    waist: str = "/hal/waist_state"
    status: str = "/hal/whole_body_status"
    camera: str = "/camera/{}_color"
    arms_command: str = "/wbc/arm_command"
    left_gripper_command: str = "/wbc/left_ee_command"
    right_gripper_command: str = "/wbc/right_ee_command"
    best_effort: bool = False
    max_status_age_s: float = 2.0

    def __post_init__(self) -> None:
        _check_range("Ros2Config.domain_id", self.domain_id, 0, 232)
        if not self.max_status_age_s > 0:
            raise ConfigError(f"Ros2Config.max_status_age_s must be positive, got {self.max_status_age_s}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_topic = field.type is str and field.name != "interface"
            if is_topic and not (value.startswith("/") or (field.name == "status" and not value)):
                raise ConfigError(
                    f"Ros2Config.{field.name} must be an absolute topic name such as /hal/..., got {value!r}"
                )
        if self.camera.count("{}") != 1:
            raise ConfigError(f"Ros2Config.camera must have one {{}} for the camera's name, got {self.camera!r}")


@dataclasses.dataclass(frozen=True)
class G1RobotConfig:
    """One robot. `arms` are those that the policy moves; the other one is held where it is at reset.

    link: over the vendor's SDK, or over the robot's ROS 2 topics.

    start_rad: arm joints [14] at the start of episodes, brought there slowly; None = wherever they are.
    dry_run: everything but sending; its episodes end as ABORTED and are never trained on.
    sdk_socket: where `launch/g1/sdk_server.py` answers for an SDK that this Python can't import; "" imports it here.
    """

    arms: tuple[Literal["left", "right"], ...] = ("left", "right")
    start_rad: tuple[float, ...] | None = None
    time_limit_s: float = 120.0
    dry_run: bool = False
    link: Literal["sdk", "ros2"] = "sdk"
    sdk_socket: str = ""
    ros2: Ros2Config = dataclasses.field(default_factory=Ros2Config)
    units: UnitsConfig = dataclasses.field(default_factory=UnitsConfig)
    cameras: tuple[CameraConfig, ...] = DEFAULT_CAMERAS
    posture: PostureConfig = dataclasses.field(default_factory=PostureConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    timing: TimingConfig = dataclasses.field(default_factory=TimingConfig)

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) != len(self.arms) or not set(self.arms) <= {"left", "right"}:
            raise ConfigError(f"G1RobotConfig.arms must name left, right or both once, got {self.arms}")
        names = [camera.name for camera in self.cameras]
        if not names or len(set(names)) != len(names) or not set(names) <= set(CAMERA_NAMES):
            raise ConfigError(f"G1RobotConfig.cameras must be of {CAMERA_NAMES}, each at most once, got {names}")
        if self.start_rad is not None:
            if len(self.start_rad) != NUM_ARM_JOINTS:
                raise ConfigError(f"G1RobotConfig.start_rad must have {NUM_ARM_JOINTS} joints, got {self.start_rad}")
            for value, low, high in zip(self.start_rad, self.limits.low, self.limits.high, strict=False):
                _check_range("G1RobotConfig.start_rad", value, low, high)
        _check_positive(self, "time_limit_s")
        if self.link not in ("sdk", "ros2"):
            raise ConfigError(f"G1RobotConfig.link must be 'sdk' or 'ros2', got {self.link!r}")
        if self.link == "ros2" and self.posture.commanded:
            raise ConfigError(
                "G1RobotConfig: the layout of the posture's ROS 2 message isn't known, so with link 'ros2' a person brings "
                "lift, waist and head to their places: set posture.commanded to false"
            )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be {low} .. {high}, got {value}")


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{type(config).__name__}.{name} must be positive and finite, got {value}")
