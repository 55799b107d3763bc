"""The vendor's SDK over an emulated robot: the same names, shapes, units and answers, as far as they are public."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sop_jax.robots.g1.config import GripperCalibration
from sop_jax.robots.g1.emulator import Emulator, Moment
from sop_jax.robots.g1.sdk_link import SdkLink


def connect_emulator(emulator: Emulator) -> SdkLink:
    """A link to an emulated robot, through the same code as to a real one."""
    return SdkLink(
        EmulatedRobotDds(emulator),
        EmulatedCosineCamera(emulator),
        EmulatedRobotController(emulator),
        emulator.cameras,
        emulator.units,
    )


class EmulatedRobotDds:
    """As the SDK's `RobotDds`: states as (values, stamp in ns), moves to absolute targets."""

    def __init__(self, emulator: Emulator):
        self._emulator = emulator
        self.is_shut_down = False

    def arm_joint_states(self) -> tuple[list[float], int]:
        return self._arms(*self._emulator.moment())

    def arm_joint_states_nearest(self, timestamp_ns: int) -> tuple[list[float], int]:
        return self._arms(*self._emulator.moment(timestamp_ns))

    def gripper_states(self) -> tuple[list[float], int]:
        return self._grippers(*self._emulator.moment())

    def gripper_states_nearest(self, timestamp_ns: int) -> tuple[list[float], int]:
        return self._grippers(*self._emulator.moment(timestamp_ns))

    def head_joint_states(self) -> tuple[list[float], int]:
        return self._head(*self._emulator.moment())

    def head_joint_states_nearest(self, timestamp_ns: int) -> tuple[list[float], int]:
        return self._head(*self._emulator.moment(timestamp_ns))

    def waist_joint_states(self) -> tuple[list[float], int]:
        return self._waist(*self._emulator.moment())

    def waist_joint_states_nearest(self, timestamp_ns: int) -> tuple[list[float], int]:
        return self._waist(*self._emulator.moment(timestamp_ns))

    def move_arm(self, joints: list[float]) -> None:
        """14 joints, rad."""
        values = _numbers("move_arm", joints, 14)
        self._emulator.command(lambda target: np.copyto(target[:14], values))

    def move_gripper(self, positions: list[float]) -> None:
        """Left and right, in the raw units of the calibration."""
        shares = [
            (raw - calibration.command_open) / (calibration.command_closed - calibration.command_open)
            for raw, calibration in zip(_numbers("move_gripper", positions, 2), self._calibrations, strict=True)
        ]
        self._emulator.command(lambda target: np.copyto(target[14:], shares))

    def move_head(self, angles: list[float]) -> None:
        """Yaw and pitch, always in rad."""
        yaw, pitch = _numbers("move_head", angles, 2)
        self._emulator.command(lambda _: self._emulator.place(head=(float(yaw), float(pitch))))

    def move_waist(self, values: list[float]) -> None:
        """Pitch in rad, lift in the version's unit."""
        pitch, lift = _numbers("move_waist", values, 2)
        lift_m = lift / 100 if self._emulator.units.lift_command == "cm" else lift
        self._emulator.command(lambda _: self._emulator.place(waist=(float(pitch), float(lift_m))))

    def shutdown(self) -> None:
        self.is_shut_down = True

    @property
    def _calibrations(self) -> tuple[GripperCalibration, GripperCalibration]:
        return self._emulator.units.left_gripper, self._emulator.units.right_gripper

    def _arms(self, moment: Moment, stamp_ns: int) -> tuple[list[float], int]:
        joints = moment.state[:14]
        return (np.degrees(joints) if self._emulator.faults.wrong_arm_units else joints).tolist(), stamp_ns

    def _grippers(self, moment: Moment, stamp_ns: int) -> tuple[list[float], int]:
        raw = [
            calibration.state_open + float(share) * (calibration.state_closed - calibration.state_open)
            for share, calibration in zip(moment.state[14:], self._calibrations, strict=True)
        ]
        return raw, stamp_ns

    def _head(self, moment: Moment, stamp_ns: int) -> tuple[list[float], int]:
        in_degrees = (self._emulator.units.head_state == "deg") != self._emulator.faults.wrong_head_units
        return (np.degrees(moment.head) if in_degrees else np.array(moment.head)).tolist(), stamp_ns

    def _waist(self, moment: Moment, stamp_ns: int) -> tuple[list[float], int]:
        pitch, lift_m = moment.waist
        return [pitch, lift_m * 100 if self._emulator.units.lift_state == "cm" else lift_m], stamp_ns


class EmulatedCosineCamera:
    """As the SDK's `CosineCamera`: (image or None, stamp in ns or None), without waiting."""

    def __init__(self, emulator: Emulator, names: Sequence[str] | None = None):
        self._emulator = emulator
        self._own = {camera.sdk_name: camera.name for camera in emulator.cameras}
        if unknown := sorted(set(names or ()) - set(self._own)):
            raise ValueError(f"no camera {unknown}")
        self.is_closed = False

    def get_latest_image(self, name: str) -> tuple[np.ndarray | None, int | None]:
        return self._in_order(*self._emulator.picture(self._own[name]))

    def get_image_nearest(self, name: str, timestamp_ns: int) -> tuple[np.ndarray | None, int | None]:
        return self._in_order(*self._emulator.picture(self._own[name], timestamp_ns))

    def close(self) -> None:
        self.is_closed = True

    def _in_order(self, image: np.ndarray | None, stamp_ns: int | None) -> tuple[np.ndarray | None, int | None]:
        if image is not None and self._emulator.units.channels == "bgr":
            image = image[..., ::-1]
        return image, stamp_ns


class EmulatedRobotController:
    """As the SDK's `RobotController`, of which the motion status is used."""

    def __init__(self, emulator: Emulator):
        self._emulator = emulator

    def get_motion_status(self) -> dict[str, Any]:
        self._emulator.catch_up()
        error = "emergency stop" if self._emulator.faults.emergency_stop else 0
        return {"timestamp": self._emulator.clock.now_ns(), "mode": 0, "error": error, "frames": {}}


def _numbers(what: str, values: Sequence[float], count: int) -> np.ndarray:
    array = np.array(values, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{what}: expected {count} finite numbers, got {values}")
    return array
