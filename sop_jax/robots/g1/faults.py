"""What can go wrong with a real robot. Each kind ends an episode as ERROR under its own name."""

from typing import ClassVar

from sop_jax.specs.errors import SopError


class G1Fault(SopError):
    """Base of every fault of the robot, its sensors or its link; `kind` is the episode's `failure_kind`."""

    kind: ClassVar[str] = "robot_fault"


class LinkFault(G1Fault):
    """The SDK raised, or gave something that isn't what its documentation says."""

    kind = "link_fault"


class WrongUnitsError(G1Fault):
    """A value that can't be in the unit that the configuration says."""

    kind = "wrong_units"


class StateLateError(G1Fault):
    """The newest joint states are too old, or none lie near the wanted time."""

    kind = "state_late"


class CameraLateError(G1Fault):
    """A camera gives no frame, an old one, or the same picture again and again."""

    kind = "camera_late"


class ClockSkewError(G1Fault):
    """Fresh samples carry stamps of another time: two clocks disagree."""

    kind = "clock_skew"


class CommandRejectedError(G1Fault):
    """The robot did not take a command."""

    kind = "command_rejected"


class NotFollowingError(G1Fault):
    """The robot takes commands and does not move."""

    kind = "not_following"


class EmergencyStopError(G1Fault):
    """An emergency stop is pressed, or the robot reports an error of its own."""

    kind = "emergency_stop"


class CommandsStoppedError(G1Fault):
    """Whoever acts gave no command for so long that the episode is over."""

    kind = "commands_stopped"


class StartStoppedError(G1Fault):
    """A person stopped the robot on the way to its start."""

    kind = "start_stopped"


class PostureError(G1Fault):
    """Lift, waist, head or an arm is not, and does not come, where the configuration says."""

    kind = "posture"
