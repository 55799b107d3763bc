"""AgiBot World's LeRobot layout, as its public conversions have it: which of its features are a G1's 16 dimensions.

The names are those that several public users of the data read. NOT confirmed on a robot or by the vendor: the gripper's
measured opening, about 35 when open and 120 when closed (its unit is documented as mm, yet it rises as the gripper closes).
"""

from sop_jax.interchange.mapping import Camera, Dimensions, ImportMapping
from sop_jax.robots.two_arm import ACTION_NAMES, CAMERA_NAMES

_JOINTS, _GRIPPERS = ACTION_NAMES[:14], ACTION_NAMES[14:]
GRIPPER_OPEN, GRIPPER_CLOSED = 35.0, 120.0
"""The measured gripper position, `observation.states.effector.position`; commands are 0 open .. 1 closed already."""

AGIBOT_WORLD = ImportMapping(
    state=(
        Dimensions("observation.states.joint.position", _JOINTS),
        Dimensions(
            "observation.states.effector.position",
            _GRIPPERS,
            unit="gripper",
            open_at=GRIPPER_OPEN,
            closed_at=GRIPPER_CLOSED,
        ),
    ),
    action=(
        Dimensions("actions.joint.position", _JOINTS),
        Dimensions("actions.effector.position", _GRIPPERS, unit="gripper"),
    ),
    cameras=tuple(Camera(f"observation.images.{name}", name) for name in CAMERA_NAMES),
)
