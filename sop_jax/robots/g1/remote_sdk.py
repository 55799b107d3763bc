"""The vendor's SDK in another process, whose Python can import it: `launch/g1/sdk_server.py` answers here.

On the wire, both ways: length of a JSON object (4 bytes, big-endian), the object, then a picture's `num_bytes` if it has any.
"""

import json
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from sop_jax.specs.errors import MissingDependencyError

TIMEOUT_S = 0.5
"""A call that takes longer is a fault of the link; the watchdog holds the robot meanwhile."""

_MAX_REPLY_BYTES = 2**16
_MAX_PICTURE_BYTES = 2**25


@final
class SdkLine:
    """Calls over one socket, one at a time, from any thread.

    A call that fails half-way hangs up, since later answers could not be told apart, and the next one calls in anew. Raises
    RuntimeError for what the SDK raised, OSError when the server is slow or gone, ValueError for what isn't an answer.
    """

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S):
        self._path = path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        try:
            self._socket: socket.socket | None = self._connect()
        except OSError as error:
            raise MissingDependencyError(
                f"nobody answers for the G1's SDK at {path}: {error}. Start launch/g1/sdk_server.py with the SDK's own Python"
            ) from error

    def call(self, part: str, name: str, *arguments: object) -> tuple[Any, np.ndarray | None]:
        """The SDK's answer, and a picture if it gave one."""
        request = json.dumps({"part": part, "call": name, "arguments": arguments}).encode()
        with self._lock:
            try:
                self._socket = line = self._socket or self._connect()
                line.sendall(struct.pack(">I", len(request)) + request)
                (length,) = struct.unpack(">I", _receive(line, 4))
                reply = json.loads(_receive(line, _checked(length, _MAX_REPLY_BYTES)))
                pixels = _receive(line, _checked(reply.get("num_bytes", 0), _MAX_PICTURE_BYTES))
            except (OSError, ValueError, AttributeError):
                self._hang_up()
                raise
        if "error" in reply:
            raise RuntimeError(f"the SDK's {reply['error']}")
        image = np.frombuffer(pixels, reply["dtype"]).reshape(reply["shape"]) if pixels else None
        return reply.get("value"), image

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def _connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(self._timeout_s)
        try:
            line.connect(self._path)
        except OSError:
            line.close()
            raise
        return line

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _receive(line: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    got = 0
    while got < count:
        more = line.recv_into(view[got:])
        if not more:
            raise ConnectionError("the SDK's server hung up")
        got += more
    return bytes(data)


def _checked(count: object, most: int) -> int:
    if not isinstance(count, int) or not 0 <= count <= most:
        raise ValueError(f"the SDK's server announced {count} bytes, expected at most {most}")
    return count


@final
class RemoteRobotDds:
    """Implements `sdk_link.SdkRobot` over a line. `shutdown` leaves the SDK to its own process."""

    def __init__(self, line: SdkLine):
        self._line = line

    def arm_joint_states(self) -> tuple[Sequence[float], int]:
        return self._call("arm_joint_states")

    def gripper_states(self) -> tuple[Sequence[float], int]:
        return self._call("gripper_states")

    def head_joint_states(self) -> tuple[Sequence[float], int]:
        return self._call("head_joint_states")

    def waist_joint_states(self) -> tuple[Sequence[float], int]:
        return self._call("waist_joint_states")

    def arm_joint_states_nearest(self, timestamp_ns: int, /) -> tuple[Sequence[float], int]:
        return self._call("arm_joint_states_nearest", timestamp_ns)

    def gripper_states_nearest(self, timestamp_ns: int, /) -> tuple[Sequence[float], int]:
        return self._call("gripper_states_nearest", timestamp_ns)

    def head_joint_states_nearest(self, timestamp_ns: int, /) -> tuple[Sequence[float], int]:
        return self._call("head_joint_states_nearest", timestamp_ns)

    def waist_joint_states_nearest(self, timestamp_ns: int, /) -> tuple[Sequence[float], int]:
        return self._call("waist_joint_states_nearest", timestamp_ns)

    def move_arm(self, joints: list[float], /) -> object:
        return self._call("move_arm", joints)

    def move_gripper(self, positions: list[float], /) -> object:
        return self._call("move_gripper", positions)

    def move_head(self, angles: list[float], /) -> object:
        return self._call("move_head", angles)

    def move_waist(self, values: list[float], /) -> object:
        return self._call("move_waist", values)

    def shutdown(self) -> None:
        self._line.close()

    def _call(self, name: str, *arguments: object) -> Any:
        return self._line.call("robot", name, *arguments)[0]


@final
class RemoteCosineCamera:
    """Implements `sdk_link.SdkCamera` over a line."""

    def __init__(self, line: SdkLine):
        self._line = line

    def get_latest_image(self, name: str, /) -> tuple[np.ndarray | None, int | None]:
        stamp_ns, image = self._line.call("camera", "get_latest_image", name)
        return image, stamp_ns

    def get_image_nearest(self, name: str, timestamp_ns: int, /) -> tuple[np.ndarray | None, int | None]:
        stamp_ns, image = self._line.call("camera", "get_image_nearest", name, timestamp_ns)
        return image, stamp_ns

    def close(self) -> None:
        """The cameras stay with the SDK's process."""


@final
class RemoteRobotController:
    """Implements `sdk_link.SdkController` over a line."""

    def __init__(self, line: SdkLine):
        self._line = line

    def get_motion_status(self) -> Mapping[str, Any]:
        return self._line.call("controller", "get_motion_status")[0]
