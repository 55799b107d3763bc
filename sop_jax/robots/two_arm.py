"""The 16 dimensions of a two-armed robot: names in the order that every record uses, and limits of the AgiBot G1."""

from sop_jax.specs.records import CameraSpec, RobotSpec

CAMERA_NAMES = ("head", "hand_left", "hand_right")

ACTION_NAMES = (
    *(f"left_joint{number}" for number in range(1, 8)),
    *(f"right_joint{number}" for number in range(1, 8)),
    "left_gripper",
    "right_gripper",
)

_LEFT_LOW = (-3.14, -2.09, -3.1, -1.48, -3.1, -1.74, -3.1)
_LEFT_HIGH = (3.14, 1.48, 3.1, 1.48, 3.1, 1.74, 3.1)
_RIGHT_LOW = (-3.14, -1.48, -3.1, -1.48, -3.1, -1.74, -3.1)
_RIGHT_HIGH = (3.14, 2.09, 3.1, 1.48, 3.1, 1.74, 3.1)

ACTION_LOW = (*_LEFT_LOW, *_RIGHT_LOW, 0.0, 0.0)
"""Joint limits [rad] of the G1's published model; grippers 0 (open)."""

ACTION_HIGH = (*_LEFT_HIGH, *_RIGHT_HIGH, 1.0, 1.0)
"""Joint limits [rad] of the G1's published model; grippers 1 (closed)."""


def two_arm_spec(
    robot_type: str,
    image_size: int,
    control_hz: float = 30.0,
    action_low: tuple[float, ...] = ACTION_LOW,
    action_high: tuple[float, ...] = ACTION_HIGH,
    camera_names: tuple[str, ...] = CAMERA_NAMES,
) -> RobotSpec:
    """The spec of a two-armed robot whose cameras all give square images of `image_size` pixels."""
    return RobotSpec(
        robot_type=robot_type,
        cameras=tuple(CameraSpec(name, image_size, image_size) for name in camera_names),
        action_names=ACTION_NAMES,
        action_low=action_low,
        action_high=action_high,
        control_hz=control_hz,
    )
