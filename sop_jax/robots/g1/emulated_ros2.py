"""The ROS 2 topics of an emulated robot: the same names, types and units over real DDS. Importing this needs Cyclone DDS.

    python -m sop_jax.robots.g1.emulated_ros2 --task restock_shelf --domain-id 42

lets one stand on this computer's loopback until Ctrl-C, for `"link": "ros2"` to be tried on.
"""

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import simplejpeg

import envs
from sop_jax.robots.g1 import ros2_messages as ros
from sop_jax.robots.g1.config import CameraConfig, Ros2Config, UnitsConfig
from sop_jax.robots.g1.emulated_sdk import EmulatedCosineCamera, EmulatedRobotController, EmulatedRobotDds
from sop_jax.robots.g1.emulator import PAST_TICKS, PERIOD_NS, Emulator
from sop_jax.robots.g1.faults import LinkFault
from sop_jax.robots.g1.link import BodyState, Frame
from sop_jax.robots.g1.ros2_link import Ros2Link
from sop_jax.robots.g1.ros2_topics import LOOPBACK, Ros2Node, TopicReader, TopicWriter
from sop_jax.robots.g1.units import grippers_to_sdk
from sop_jax.robots.two_arm import CAMERA_NAMES
from sop_jax.specs.clock import WallClock

JOINT_NAMES = [
    f"idx{first + joint}_arm_{side}_joint{joint + 1}" for side, first in (("l", 21), ("r", 61)) for joint in range(7)
]
Source = Callable[[int | None], tuple[Any, int | None]]
"""The message nearest to a time, or the newest, and its stamp; None, None before the first."""

_COMMANDS_PER_TICK = 4
_MEETING_S = 10.0


class EmulatedRos2:
    """Publishes what an emulated robot measures and sees, and takes its commands, each time that `turn` is called.

    A message goes out when there is a new one, as from a real robot. What the emulated SDK answers is what is sent, so faults
    and units are the same; a command that it refuses is lost in silence, for a topic has no answer.
    """

    def __init__(self, emulator: Emulator, config: Ros2Config, encoding: str = "rgb8"):
        """`encoding` of pictures: rgb8, bgr8 or jpeg."""
        node = Ros2Node(config)
        self._emulator = emulator
        self._robot = EmulatedRobotDds(emulator)
        self._camera = EmulatedCosineCamera(emulator)
        self._controller = EmulatedRobotController(emulator)
        self._encoding = encoding
        self._sent: dict[str, int] = {}
        self._scene_ns = -1
        self._writers: dict[str, TopicWriter[Any]] = {}
        self._sources: dict[str, Source] = {}
        for topic, message_type, source in self._publications(config):
            self._writers[topic] = node.writer(topic, message_type)
            self._sources[topic] = source
        self._cameras: dict[str, Source] = {}
        for camera in emulator.cameras:
            topic = config.camera.format(camera.sdk_name)
            self._writers[topic] = node.writer(topic, ros.Image)
            self._cameras[topic] = functools.partial(self._picture, camera.sdk_name)
        self._commands = {
            config.arms_command: self._robot.move_arm,
            config.left_gripper_command: lambda value: self._move_gripper(0, value),
            config.right_gripper_command: lambda value: self._move_gripper(1, value),
        }
        self._readers = {topic: node.reader(topic, ros.JointState, 1) for topic in self._commands}
        self._taken: dict[str, ros.JointState] = {}

    @property
    def is_heard(self) -> bool:
        """Whether every topic has a reader: what was sent before is lost."""
        return all(writer.has_readers for writer in self._writers.values())

    def turn(self, pictures: bool = True) -> None:
        """Takes the newest commands, then sends what is new; of a new scene also what was measured just before.

        Without `pictures` any thread may call it; with them always the same one, to which the renderer belongs.
        """
        for topic, reader in self._readers.items():
            self._take(topic, reader)
        started_ns = self._emulator.started_ns
        if self._scene_ns != started_ns:
            self._scene_ns = started_ns
            self._sent.clear()
            for ticks in range(PAST_TICKS, 0, -1):
                self._send_new(self._sources, started_ns - ticks * PERIOD_NS)
        self._send_new(self._sources)
        if pictures:
            self._send_new(self._cameras)

    def _send_new(self, sources: Mapping[str, Source], at_ns: int | None = None) -> None:
        for topic, source in sources.items():
            message, stamp_ns = source(at_ns)
            if stamp_ns is not None and self._sent.get(topic) != stamp_ns:
                self._sent[topic] = stamp_ns
                self._writers[topic].write(message)

    def _publications(self, config: Ros2Config) -> list[tuple[str, type[Any], Source]]:
        publications: list[tuple[str, type[Any], Source]] = [
            (config.arms, ros.JointState, self._arms),
            (config.left_gripper, ros.EndState, lambda at_ns: self._gripper(0, at_ns)),
            (config.right_gripper, ros.EndState, lambda at_ns: self._gripper(1, at_ns)),
            (config.head, ros.HeadState, self._head),
            (config.waist, ros.WaistState, self._waist),
        ]
        if config.status:
            publications.append((config.status, ros.WholeBodyStatus, self._status))
        return publications

    def _take(self, topic: str, reader: TopicReader[ros.JointState]) -> None:
        reader.refresh()
        found = reader.find()
        if found is not None and self._taken.get(topic) is not found[0]:
            self._taken[topic] = found[0]
            with contextlib.suppress(RuntimeError):
                self._commands[topic](list(found[0].position))

    def _move_gripper(self, side: int, positions: list[float]) -> None:
        (position,) = positions
        both = grippers_to_sdk(self._emulator.target[14:], self._emulator.units)
        both[side] = position
        self._robot.move_gripper(both)

    def _arms(self, at_ns: int | None) -> tuple[ros.JointState, int]:
        joints, stamp_ns = self._read("arm_joint_states", at_ns)
        return ros.JointState(_header(stamp_ns), JOINT_NAMES, joints, [0.0] * 14, [0.0] * 14), stamp_ns

    def _gripper(self, side: int, at_ns: int | None) -> tuple[ros.EndState, int]:
        positions, stamp_ns = self._read("gripper_states", at_ns)
        return ros.EndState(_header(stamp_ns), True, [_motor(1, positions[side])]), stamp_ns

    def _head(self, at_ns: int | None) -> tuple[ros.HeadState, int]:
        positions, stamp_ns = self._read("head_joint_states", at_ns)
        motors = [_motor(number, position) for number, position in enumerate(positions)]
        return ros.HeadState(_header(stamp_ns), motors, ["yaw", "pitch"]), stamp_ns

    def _waist(self, at_ns: int | None) -> tuple[ros.WaistState, int]:
        positions, stamp_ns = self._read("waist_joint_states", at_ns)
        motors = [_motor(number, position) for number, position in enumerate(positions)]
        return ros.WaistState(_header(stamp_ns), motors, ["pitch", "lift"]), stamp_ns

    def _status(self, at_ns: int | None) -> tuple[ros.WholeBodyStatus, int]:
        del at_ns  # it is of the present
        status = self._controller.get_motion_status()
        stamp_ns, stopped = status["timestamp"], bool(status["error"])
        return ros.WholeBodyStatus(_header(stamp_ns), 0, 0, True, True, stopped, stopped, *[0] * 6), stamp_ns

    def _picture(self, name: str, at_ns: int | None) -> tuple[ros.Image | None, int | None]:
        del at_ns  # a camera shows the past anyway
        image, stamp_ns = self._camera.get_latest_image(name)
        if image is None or stamp_ns is None:
            return None, None
        height, width = image.shape[:2]
        data = self._encode(np.ascontiguousarray(image))
        return ros.Image(_header(stamp_ns), height, width, self._encoding, 0, 3 * width, data), stamp_ns  # pyright: ignore[reportArgumentType]

    def _read(self, name: str, at_ns: int | None) -> tuple[list[float], int]:
        return getattr(self._robot, name)() if at_ns is None else getattr(self._robot, f"{name}_nearest")(at_ns)

    def _encode(self, image: np.ndarray) -> bytes:
        if self._encoding == "jpeg":
            return simplejpeg.encode_jpeg(image, 95, "RGB", "444")
        return (image[..., ::-1] if self._encoding == "bgr8" else image).tobytes()


class EmulatedRos2Link(Ros2Link):
    """The link to an emulated robot on a simulated clock: its turn comes whenever somebody looks or commands."""

    def __init__(self, emulator: Emulator, config: Ros2Config, encoding: str = "rgb8"):
        """On the loopback, whatever `config` says: nobody else may take it for a robot."""
        config = dataclasses.replace(config, interface=LOOPBACK)
        self._emulated = EmulatedRos2(emulator, config, encoding)
        super().__init__(config, emulator.cameras, emulator.units)
        deadline = time.monotonic() + _MEETING_S
        while not self._emulated.is_heard:
            if time.monotonic() > deadline:
                raise LinkFault(
                    f"the emulated robot's topics found no reader within {_MEETING_S} s of this process's own"
                )
            time.sleep(0.001)

    def read_state(self, at_ns: int | None = None) -> BodyState:
        self._emulated.turn(pictures=False)
        return super().read_state(at_ns)

    def read_frame(self, camera: str, at_ns: int | None = None) -> Frame | None:
        self._emulated.turn()
        return super().read_frame(camera, at_ns)

    def send(self, target: np.ndarray) -> None:
        super().send(target)
        self._emulated.turn(pictures=False)

    def stopped(self) -> str:
        self._emulated.turn(pictures=False)
        return super().stopped()


def main() -> None:
    """One emulated robot on the loopback, at 30 Hz, until it is interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--task", default="restock_shelf")
    parser.add_argument("--domain-id", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--encoding", choices=("rgb8", "bgr8", "jpeg"), default="rgb8")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    size = arguments.image_size
    cameras = [CameraConfig(name, name, size, size, size, size) for name in CAMERA_NAMES]
    emulator = Emulator(envs.load(arguments.task, image_size=size), WallClock(), UnitsConfig(), cameras)
    emulator.prepare(arguments.seed)
    topics = EmulatedRos2(emulator, Ros2Config(arguments.domain_id, LOOPBACK), arguments.encoding)
    print(f"{arguments.task}: {emulator.instruction!r}, DDS domain {arguments.domain_id} on the loopback", flush=True)  # noqa: T201
    with contextlib.closing(emulator), contextlib.suppress(KeyboardInterrupt):
        while True:
            topics.turn()
            time.sleep(PERIOD_NS / 1e9 / _COMMANDS_PER_TICK)


def _header(stamp_ns: int) -> ros.Header:
    return ros.Header(ros.Time.from_ns(int(stamp_ns)), "")


def _motor(number: int, position: float) -> ros.MotorState:
    return ros.MotorState(number, True, float(position), 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


if __name__ == "__main__":
    main()
