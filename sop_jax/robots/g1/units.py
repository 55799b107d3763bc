"""From the SDK's numbers to ours and back, once, at the edge. Ours: rad, m, grippers 0 open .. 1 closed.

A value that can't be in the unit that the configuration says is refused: a head that reports degrees as radians would
otherwise be a policy's nightmare.
"""

import math
from collections.abc import Sequence

import numpy as np

from sop_jax.robots.g1.config import NUM_ARM_JOINTS, GripperCalibration, UnitsConfig
from sop_jax.robots.g1.faults import WrongUnitsError

_ARM_LOW, _ARM_HIGH = -3.3, 3.3  # the widest joint reaches 3.14; the rest is for calibration
_HEAD_LIMITS_RAD = ((-1.7, 1.7), (-0.55, 0.65))
_WAIST_LIMITS_RAD = (-0.1, 1.7)
_LIFT_LIMITS_M = (-0.03, 0.58)
_GRIPPER_SLACK = 0.15  # share of the stroke by which a raw value may lie outside of its calibration
_CM = 100.0


def arms_from_sdk(raw: Sequence[float]) -> np.ndarray:
    """Joint angles, float64 [14]. Raises WrongUnitsError."""
    joints = _numbers("arm_joint_states", raw, NUM_ARM_JOINTS)
    for index, value in enumerate(joints):
        _refuse(f"arm joint {index + 1} of 14", value, _ARM_LOW, _ARM_HIGH, "rad", "it looks like degrees")
    return joints


def head_from_sdk(raw: Sequence[float], units: UnitsConfig) -> np.ndarray:
    """Yaw and pitch [rad], float64 [2]. Raises WrongUnitsError."""
    values = _numbers("head_joint_states", raw, 2)
    radians = np.radians(values) if units.head_state == "deg" else values
    for name, value, (low, high) in zip(("yaw", "pitch"), radians, _HEAD_LIMITS_RAD, strict=True):
        _refuse(f"head {name} (raw {values.tolist()})", value, low, high, "rad", "check UnitsConfig.head_state")
    return radians


def waist_from_sdk(raw: Sequence[float], units: UnitsConfig) -> np.ndarray:
    """Waist pitch [rad] and lift [m], float64 [2]. Raises WrongUnitsError."""
    pitch, lift = _numbers("waist_joint_states", raw, 2)
    _refuse("waist pitch", pitch, *_WAIST_LIMITS_RAD, "rad", "it looks like degrees")
    lift_m = lift / _CM if units.lift_state == "cm" else lift
    _refuse(f"lift (raw {lift})", lift_m, *_LIFT_LIMITS_M, "m", "check UnitsConfig.lift_state")
    return np.array([pitch, lift_m])


def grippers_from_sdk(raw: Sequence[float], units: UnitsConfig) -> np.ndarray:
    """How far both grippers are closed, float64 [2] in 0 .. 1. Raises WrongUnitsError."""
    values = _numbers("gripper_states", raw, 2)
    closed = []
    for side, value, calibration in zip(("left", "right"), values, _grippers(units), strict=True):
        share = (value - calibration.state_open) / (calibration.state_closed - calibration.state_open)
        _refuse(
            f"{side} gripper (raw {value}, calibrated {calibration.state_open} open .. {calibration.state_closed} closed)",
            share,
            -_GRIPPER_SLACK,
            1 + _GRIPPER_SLACK,
            "share",
            f"check UnitsConfig.{side}_gripper",
        )
        closed.append(min(max(share, 0.0), 1.0))
    return np.array(closed)


def grippers_to_sdk(closed: np.ndarray, units: UnitsConfig) -> list[float]:
    """Raw commands of both grippers, for shares 0 open .. 1 closed."""
    return [
        calibration.command_open + float(share) * (calibration.command_closed - calibration.command_open)
        for share, calibration in zip(closed, _grippers(units), strict=True)
    ]


def waist_to_sdk(pitch_rad: float, lift_m: float, units: UnitsConfig) -> list[float]:
    """The command [pitch, lift] as this SDK version takes it."""
    return [pitch_rad, lift_m * _CM if units.lift_command == "cm" else lift_m]


def image_from_sdk(frame: np.ndarray, units: UnitsConfig) -> np.ndarray:
    """The frame in RGB order."""
    return frame[..., ::-1] if units.channels == "bgr" else frame


def _grippers(units: UnitsConfig) -> tuple[GripperCalibration, GripperCalibration]:
    return units.left_gripper, units.right_gripper


def _numbers(what: str, raw: Sequence[float], count: int) -> np.ndarray:
    values = np.array(raw, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise WrongUnitsError(f"{what}: expected {count} finite numbers, got {raw}; look at the SDK's version")
    return values


def _refuse(what: str, value: float, low: float, high: float, unit: str, hint: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise WrongUnitsError(f"{what} = {value:.4g} {unit}: expected {low} .. {high}; {hint}")
