"""The link over the vendor's Python SDK (`a2d_sdk`), which is imported when a link to a robot is made, and not before."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from sop_jax.robots.g1 import units as convert
from sop_jax.robots.g1.config import CameraConfig, UnitsConfig
from sop_jax.robots.g1.faults import CommandRejectedError, G1Fault, LinkFault, StateLateError
from sop_jax.robots.g1.link import BodyState, Frame
from sop_jax.robots.g1.remote_sdk import RemoteCosineCamera, RemoteRobotController, RemoteRobotDds, SdkLine
from sop_jax.specs.errors import MissingDependencyError

SDK_MODULE = "a2d_sdk.robot"
Result = TypeVar("Result")
Stamped = tuple[Sequence[float], int]


class SdkRobot(Protocol):
    """The part of the SDK's `RobotDds` that we use: (values, stamp in ns) in, absolute targets out."""

    def arm_joint_states(self) -> Stamped: ...

    def gripper_states(self) -> Stamped: ...

    def head_joint_states(self) -> Stamped: ...

    def waist_joint_states(self) -> Stamped: ...

    def arm_joint_states_nearest(self, timestamp_ns: int, /) -> Stamped: ...

    def gripper_states_nearest(self, timestamp_ns: int, /) -> Stamped: ...

    def head_joint_states_nearest(self, timestamp_ns: int, /) -> Stamped: ...

    def waist_joint_states_nearest(self, timestamp_ns: int, /) -> Stamped: ...

    def move_arm(self, joints: list[float], /) -> object: ...

    def move_gripper(self, positions: list[float], /) -> object: ...

    def move_head(self, angles: list[float], /) -> object: ...

    def move_waist(self, values: list[float], /) -> object: ...

    def shutdown(self) -> object: ...


class SdkCamera(Protocol):
    """The part of the SDK's `CosineCamera` that we use."""

    def get_latest_image(self, name: str, /) -> tuple[np.ndarray | None, int | None]: ...

    def get_image_nearest(self, name: str, timestamp_ns: int, /) -> tuple[np.ndarray | None, int | None]: ...

    def close(self) -> object: ...


class SdkController(Protocol):
    """The part of the SDK's `RobotController` that we use."""

    def get_motion_status(self) -> Mapping[str, Any]: ...


class SdkLink:
    """Implements `link.G1Link` over the SDK's three objects, or over the emulator's.

    `stop_signal` is a lab's own source of the emergency stop, asked beside the SDK's motion status: the SDK's topics for it
    aren't published. Any error in the motion status counts as a stop.
    """

    def __init__(
        self,
        robot: SdkRobot,
        camera: SdkCamera,
        controller: SdkController,
        cameras: Sequence[CameraConfig],
        units: UnitsConfig,
        stop_signal: Callable[[], str] | None = None,
    ):
        self._robot = robot
        self._camera = camera
        self._controller = controller
        self._cameras = {config.name: config for config in cameras}
        self._units = units
        self._stop_signal = stop_signal

    def read_state(self, at_ns: int | None = None) -> BodyState:
        arms, arms_ns = self._read("arm_joint_states", at_ns)
        grippers, grippers_ns = self._read("gripper_states", at_ns)
        head, head_ns = self._read("head_joint_states", at_ns)
        waist, waist_ns = self._read("waist_joint_states", at_ns)
        stamps = (arms_ns, grippers_ns, head_ns, waist_ns)
        return BodyState(
            arms=convert.arms_from_sdk(arms),
            grippers=convert.grippers_from_sdk(grippers, self._units),
            head=convert.head_from_sdk(head, self._units),
            waist=convert.waist_from_sdk(waist, self._units),
            time_ns=min(stamps),
            newest_ns=max(stamps),
        )

    def read_frame(self, camera: str, at_ns: int | None = None) -> Frame | None:
        config = self._cameras[camera]
        name = config.sdk_name
        if at_ns is None:
            image, stamp_ns = _stamped("get_latest_image", lambda: self._camera.get_latest_image(name))
        else:
            image, stamp_ns = _stamped("get_image_nearest", lambda: self._camera.get_image_nearest(name, at_ns))
        if image is None or stamp_ns is None:
            return None
        expected = (config.frame_height, config.frame_width, 3)
        if not isinstance(image, np.ndarray) or image.shape != expected or image.dtype != np.uint8:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise LinkFault(
                f"camera {camera}: expected uint8 frames {expected}, got {got}; correct its CameraConfig, or choose the "
                "uncompressed mode"
            )
        return Frame(convert.image_from_sdk(image, self._units), stamp_ns)

    def send(self, target: np.ndarray) -> None:
        arms = [float(value) for value in target[:14]]
        grippers = convert.grippers_to_sdk(target[14:], self._units)
        _command("move_arm", lambda: self._robot.move_arm(arms))
        _command("move_gripper", lambda: self._robot.move_gripper(grippers))

    def send_posture(self, head: np.ndarray, waist: np.ndarray) -> None:
        waist_command = convert.waist_to_sdk(float(waist[0]), float(waist[1]), self._units)
        _command("move_head", lambda: self._robot.move_head([float(value) for value in head]))
        _command("move_waist", lambda: self._robot.move_waist(waist_command))

    def stopped(self) -> str:
        if self._stop_signal is not None and (why := _call("stop_signal", self._stop_signal)):
            return why
        status = _call("get_motion_status", self._controller.get_motion_status)
        if not isinstance(status, Mapping):
            raise LinkFault(f"get_motion_status: expected a mapping, got {type(status).__name__}")
        error = status.get("error")
        return f"motion status reports {error!r}" if error else ""

    def close(self) -> None:
        try:
            self._camera.close()
        finally:
            self._robot.shutdown()

    def _read(self, name: str, at_ns: int | None) -> tuple[Sequence[float], int]:
        if at_ns is None:
            values, stamp_ns = _stamped(name, getattr(self._robot, name))
        else:
            values, stamp_ns = _stamped(name, lambda: getattr(self._robot, f"{name}_nearest")(at_ns))
        if values is None or stamp_ns is None:
            raise StateLateError(f"{name}: the SDK has no sample yet; is the robot's service in its external mode?")
        return values, stamp_ns


def connect(
    cameras: Sequence[CameraConfig],
    units: UnitsConfig,
    stop_signal: Callable[[], str] | None = None,
    sdk_socket: str = "",
) -> SdkLink:
    """A link to the robot that this computer's SDK is set up for.

    sdk_socket: where `launch/g1/sdk_server.py` answers for an SDK that this Python can't import; "" imports it here.

    Raises MissingDependencyError without the SDK, or without its server.
    """
    if sdk_socket:
        line = SdkLine(sdk_socket)
        parts = (RemoteRobotDds(line), RemoteCosineCamera(line), RemoteRobotController(line))
        return SdkLink(*parts, cameras, units, stop_signal)
    try:
        sdk = importlib.import_module(SDK_MODULE)
    except ImportError as error:
        raise MissingDependencyError(
            f"the G1's SDK ({SDK_MODULE}) can't be imported: {error}. Install the vendor's wheel and source its env.sh in "
            "this shell; if it is for another Python, run launch/g1/sdk_server.py with that one (`sdk_socket`); or run "
            "against the emulator (sop_jax.robots.g1.emulator)"
        ) from error
    camera = sdk.CosineCamera([config.sdk_name for config in cameras])
    return SdkLink(sdk.RobotDds(), camera, sdk.RobotController(), cameras, units, stop_signal)


def _call(name: str, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except G1Fault:
        raise
    except Exception as error:  # The SDK documents no exceptions, so any of them is its fault.
        raise LinkFault(f"{name} failed: {type(error).__name__}: {error}") from error


def _stamped(name: str, call: Callable[[], Any]) -> tuple[Any, int | None]:
    """What the SDK says, with its stamp in ns. Raises LinkFault."""
    answer = _call(name, call)
    try:
        value, stamp_ns = answer
        return value, None if stamp_ns is None else int(stamp_ns)
    except (TypeError, ValueError) as error:
        raise LinkFault(f"{name}: expected (value, stamp in ns), got {type(answer).__name__}: {error}") from error


def _command(name: str, call: Callable[[], object]) -> None:
    try:
        answer = call()
    except Exception as error:  # As above: a command that raises was not taken.
        raise CommandRejectedError(f"{name} was rejected: {type(error).__name__}: {error}") from error
    if answer is False:
        raise CommandRejectedError(f"{name} was rejected: it returned False")
