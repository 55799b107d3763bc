"""The ROS 2 messages of a G1 as DDS carries them: names and layouts on the wire. Importing this needs Cyclone DDS.

Of the vendor's package `genie_msgs` only what is read here; its layouts were taken from public interface definitions and
have not met a robot (launch/g1/README.md says how to compare them). ROS puts `rt` before a topic's name, and `dds_` and an
underscore around a type's.
"""

import dataclasses
import struct
from typing import TYPE_CHECKING, Any

from cyclonedds import idl
from cyclonedds.idl import types

if TYPE_CHECKING:
    from builtins import list as sequence
else:
    from cyclonedds.idl.types import sequence


def dds_topic(topic: str) -> str:
    """The name under which DDS knows a ROS topic."""
    return f"rt{topic}"


@dataclasses.dataclass
class Time(idl.IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    """Since the epoch."""

    sec: types.int32
    nanosec: types.uint32

    @property
    def ns(self) -> int:
        return self.sec * 10**9 + self.nanosec

    @classmethod
    def from_ns(cls, time_ns: int) -> "Time":
        return cls(*divmod(time_ns, 10**9))


@dataclasses.dataclass
class Header(idl.IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    """When something was measured, and in which frame."""

    stamp: Time
    frame_id: str


@dataclasses.dataclass
class JointState(idl.IdlStruct, typename="sensor_msgs::msg::dds_::JointState_"):
    """Joints, measured or wanted: rad."""

    header: Header
    name: sequence[str]
    position: sequence[types.float64]
    velocity: sequence[types.float64]
    effort: sequence[types.float64]


@dataclasses.dataclass
class MotorState(idl.IdlStruct, typename="genie_msgs::msg::dds_::MotorState_"):
    """One motor; 0 means all is well in `status` and `err_code`."""

    id: types.uint32
    enable: bool
    position: types.float64
    velocity: types.float64
    effort: types.float64
    current: types.float32
    voltage: types.float32
    temperature: types.float32
    status: types.uint32
    err_code: types.uint32


@dataclasses.dataclass
class EndState(idl.IdlStruct, typename="genie_msgs::msg::dds_::EndState_"):
    """A gripper."""

    header: Header
    controlled: bool
    end_state: sequence[MotorState]


@dataclasses.dataclass
class HeadState(idl.IdlStruct, typename="genie_msgs::msg::dds_::HeadState_"):
    """Yaw and pitch."""

    header: Header
    motor_states: sequence[MotorState]
    name: sequence[str]


@dataclasses.dataclass
class WaistState(idl.IdlStruct, typename="genie_msgs::msg::dds_::WaistState_"):
    """Pitch and lift."""

    header: Header
    motor_states: sequence[MotorState]
    name: sequence[str]


@dataclasses.dataclass
class WholeBodyStatus(idl.IdlStruct, typename="genie_msgs::msg::dds_::WholeBodyStatus_"):
    """Errors (0 = none) and emergency stops of every part."""

    header: Header
    right_arm_error: types.uint32
    left_arm_error: types.uint32
    right_arm_control: bool
    left_arm_control: bool
    right_arm_estop: bool
    left_arm_estop: bool
    right_end_error: types.uint32
    left_end_error: types.uint32
    waist_error: types.uint32
    lift_error: types.uint32
    neck_error: types.uint32
    chassis_error: types.uint32


@dataclasses.dataclass
class Image(idl.IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    """A picture. `data` is bytes, for Cyclone DDS would make a Python number of every one of them."""

    header: Header
    height: types.uint32
    width: types.uint32
    encoding: str
    is_bigendian: types.uint8
    step: types.uint32
    data: sequence[types.uint8]

    def serialize(self, *_: Any, **__: Any) -> bytes:
        """Plain CDR, little endian."""
        stamp = self.header.stamp
        head = struct.pack("<iI", stamp.sec, stamp.nanosec)
        head = _with_number(_with_text(head, self.header.frame_id), self.height, self.width)
        head = _with_text(head, self.encoding) + struct.pack("B", self.is_bigendian)
        return b"\x00\x01\x00\x00" + _with_number(head, self.step, len(self.data)) + bytes(self.data)

    @classmethod
    def deserialize(cls, data: bytes, *_: Any, **__: Any) -> "Image":
        """Of plain CDR in either order of bytes. Cyclone DDS has checked lengths before."""
        cursor = _Cursor(memoryview(data)[4:], "<" if data[1] & 1 else ">")
        header = Header(Time(cursor.number("i"), cursor.number("I")), cursor.text())
        height, width, encoding = cursor.number("I"), cursor.number("I"), cursor.text()
        is_bigendian, step = cursor.number("B"), cursor.number("I")
        return cls(header, height, width, encoding, is_bigendian, step, cursor.take(cursor.number("I")))  # pyright: ignore[reportArgumentType]


def _with_number(head: bytes, *numbers: int) -> bytes:
    return head + bytes(-len(head) % 4) + struct.pack(f"<{len(numbers)}I", *numbers)


def _with_text(head: bytes, text: str) -> bytes:
    encoded = text.encode() + b"\x00"
    return _with_number(head, len(encoded)) + encoded


class _Cursor:
    """Reads CDR values one after the other, each aligned to its size."""

    def __init__(self, data: memoryview, order: str):
        self._data, self._order, self._at = data, order, 0

    def number(self, code: str) -> int:
        size = struct.calcsize(code)
        self._at += -self._at % size
        (value,) = struct.unpack_from(self._order + code, self._data, self._at)
        self._at += size
        return value

    def text(self) -> str:
        return bytes(self.take(self.number("I")))[:-1].decode()

    def take(self, length: int) -> memoryview:
        self._at += length
        return self._data[self._at - length : self._at]
