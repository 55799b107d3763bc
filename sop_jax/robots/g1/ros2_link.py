"""The link over the robot's ROS 2 topics, through DDS itself: no ROS on this computer. Importing this needs Cyclone DDS."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import simplejpeg
from cyclonedds.core import DDSException

from sop_jax.robots.g1 import ros2_messages as ros
from sop_jax.robots.g1 import units as convert
from sop_jax.robots.g1.config import NUM_ARM_JOINTS, CameraConfig, Ros2Config, UnitsConfig
from sop_jax.robots.g1.faults import CommandRejectedError, LinkFault, StateLateError
from sop_jax.robots.g1.link import BodyState, Frame
from sop_jax.robots.g1.ros2_topics import Ros2Node, TopicReader, TopicWriter

GRIPPER_NAMES = ("left_gripper_joint1", "right_gripper_joint1")
_KEEP_STATES, _KEEP_FRAMES = 64, 8
_RAW_CHANNELS = {"rgb8": 1, "bgr8": -1}
_JPEG = ("jpeg", "jpg")


class Ros2Link:
    """Implements `link.G1Link` over topics.

    A topic takes commands in silence: nobody listening is an error, a refusal shows only in what the robot does then
    (`NotFollowingError`). `stop_signal` is a lab's own source of the emergency stop, asked beside the status topic.
    """

    def __init__(
        self,
        config: Ros2Config,
        cameras: Sequence[CameraConfig],
        units: UnitsConfig,
        stop_signal: Callable[[], str] | None = None,
    ):
        node = Ros2Node(config)
        self._config = config
        self._cameras = {camera.name: camera for camera in cameras}
        self._units = units
        self._stop_signal = stop_signal
        self._joint_names: list[str] = []
        types = {
            config.arms: ros.JointState,
            config.left_gripper: ros.EndState,
            config.right_gripper: ros.EndState,
            config.head: ros.HeadState,
            config.waist: ros.WaistState,
        }
        if config.status:
            types[config.status] = ros.WholeBodyStatus
        self._states: dict[str, TopicReader[Any]] = {
            topic: node.reader(topic, message_type, _KEEP_STATES) for topic, message_type in types.items()
        }
        self._frames = {
            camera.name: node.reader(config.camera.format(camera.sdk_name), ros.Image, _KEEP_FRAMES)
            for camera in cameras
        }
        commands = (config.arms_command, config.left_gripper_command, config.right_gripper_command)
        self._commands: Mapping[str, TopicWriter[ros.JointState]] = {
            topic: node.writer(topic, ros.JointState) for topic in commands
        }

    def read_state(self, at_ns: int | None = None) -> BodyState:
        config = self._config
        arms, arms_ns = self._read(config.arms, at_ns)
        grippers, stamps = [], [arms_ns]
        for topic in (config.left_gripper, config.right_gripper):
            message, stamp_ns = self._read(topic, at_ns)
            grippers.append(_motors(topic, message.end_state, 1)[0])
            stamps.append(stamp_ns)
        head, head_ns = self._read(config.head, at_ns)
        waist, waist_ns = self._read(config.waist, at_ns)
        stamps += [head_ns, waist_ns]
        self._joint_names = list(arms.name[:NUM_ARM_JOINTS])
        return BodyState(
            arms=convert.arms_from_sdk(arms.position[:NUM_ARM_JOINTS]),
            grippers=convert.grippers_from_sdk(grippers, self._units),
            head=convert.head_from_sdk(_motors(config.head, head.motor_states, 2), self._units),
            waist=convert.waist_from_sdk(_motors(config.waist, waist.motor_states, 2), self._units),
            time_ns=min(stamps),
            newest_ns=max(stamps),
        )

    def read_frame(self, camera: str, at_ns: int | None = None) -> Frame | None:
        self._refresh(self._frames[camera])
        found = self._frames[camera].find(at_ns)
        if found is None:
            return None
        message, stamp_ns = found
        return Frame(_decode(self._cameras[camera], message), stamp_ns)

    def send(self, target: np.ndarray) -> None:
        config, stamp = self._config, ros.Header(ros.Time(0, 0), "")
        grippers = convert.grippers_to_sdk(target[NUM_ARM_JOINTS:], self._units)
        arms = [float(value) for value in target[:NUM_ARM_JOINTS]]
        self._command(config.arms_command, ros.JointState(stamp, self._joint_names, arms, [], []))
        topics = (config.left_gripper_command, config.right_gripper_command)
        for topic, name, value in zip(topics, GRIPPER_NAMES, grippers, strict=True):
            self._command(topic, ros.JointState(stamp, [name], [value], [], []))

    def send_posture(self, head: np.ndarray, waist: np.ndarray) -> None:
        raise CommandRejectedError(
            "the ROS 2 link can't command lift, waist and head: a person brings them to their places"
        )

    def stopped(self) -> str:
        if self._stop_signal is not None:
            try:
                why = self._stop_signal()
            except Exception as error:  # the lab's own code; whatever it raises, the robot must not go on
                raise LinkFault(f"stop_signal failed: {type(error).__name__}: {error}") from error
            if why:
                return why
        if not self._config.status:
            return ""
        status, _ = self._read(self._config.status, None)
        silent_s = self._states[self._config.status].silent_s
        if silent_s > self._config.max_status_age_s:
            raise StateLateError(
                f"{self._config.status}: no message for {silent_s:.1f} s, so a stop wouldn't be seen; expected one every "
                f"{self._config.max_status_age_s:g} s (Ros2Config.max_status_age_s)"
            )
        found = [
            f"{name} {value}" for name, value in vars(status).items() if name.endswith(("_error", "_estop")) and value
        ]
        return f"whole-body status reports {', '.join(found)}" if found else ""

    def close(self) -> None:
        """Readers and writers leave the network as the last reference to them goes."""
        self._states, self._frames, self._commands = {}, {}, {}

    def _read(self, topic: str, at_ns: int | None) -> tuple[Any, int]:
        reader = self._states[topic]
        self._refresh(reader)
        found = reader.find(at_ns)
        if found is None:
            raise StateLateError(
                f"{topic}: no message yet. Is the robot on, in its external-control mode and in DDS domain "
                f"{self._config.domain_id}? Compare its name with `ros2 topic list -t`; without the status topic, set "
                "Ros2Config.status to '' and give a stop signal"
            )
        return found

    def _refresh(self, reader: TopicReader[Any]) -> None:
        try:
            reader.refresh()
        except (DDSException, ValueError) as error:  # what doesn't fit its type is no message
            raise LinkFault(f"a topic can't be read: {type(error).__name__}: {error}") from error

    def _command(self, topic: str, message: ros.JointState) -> None:
        writer = self._commands[topic]
        try:
            if not writer.has_readers:
                raise CommandRejectedError(
                    f"{topic}: nobody listens. Is the robot in its external-control mode, and the name that of `ros2 topic "
                    "list`?"
                )
            writer.write(message)
        except DDSException as error:
            raise CommandRejectedError(f"{topic}: the command was not taken in time: {error}") from error


def _motors(topic: str, motors: Sequence[ros.MotorState], count: int) -> list[float]:
    """Positions of the first motors. Raises LinkFault."""
    if len(motors) < count:
        raise LinkFault(f"{topic}: expected {count} motors, got {len(motors)}; does the message's layout match?")
    return [float(motor.position) for motor in motors[:count]]


def _decode(camera: CameraConfig, message: ros.Image) -> np.ndarray:
    """uint8 RGB [h, w, 3]. Raises LinkFault."""
    expected = (camera.frame_height, camera.frame_width, 3)
    data = np.frombuffer(message.data, np.uint8)  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        if message.encoding.lower() in _JPEG:
            image = simplejpeg.decode_jpeg(data, "RGB")
        else:
            order = _RAW_CHANNELS[message.encoding]
            rows = data.reshape(message.height, message.step)[:, : 3 * message.width]
            image = rows.reshape(message.height, message.width, 3)[..., ::order]
    except (ValueError, KeyError, RuntimeError) as error:
        raise LinkFault(
            f"camera {camera.name}: a frame of {message.height}x{message.width}, encoding {message.encoding!r}, "
            f"{len(data)} bytes can't be read ({type(error).__name__}: {error}); expected rgb8, bgr8 or jpeg"
        ) from error
    if image.shape != expected:
        raise LinkFault(
            f"camera {camera.name}: expected frames {expected}, got {image.shape}; correct its CameraConfig"
        )
    return image
