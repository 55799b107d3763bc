"""Conversions at the edge, and refusals of what can't be in the configured unit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.robots.g1 import units as convert
from sop_jax.robots.g1.config import GripperCalibration, UnitsConfig
from sop_jax.robots.g1.faults import WrongUnitsError

RAW_GRIPPER = GripperCalibration(state_open=35.0, state_closed=120.0, command_open=0.0, command_closed=1.0)
shares = st.floats(0.0, 1.0)
ends = st.tuples(st.floats(-200, 200), st.floats(-200, 200)).filter(lambda pair: abs(pair[0] - pair[1]) > 1.0)


@given(left=ends, right=ends, closed=st.tuples(shares, shares))
def test_grippers_survive_the_way_there_and_back(left, right, closed):
    units = UnitsConfig(left_gripper=GripperCalibration(*left, *left), right_gripper=GripperCalibration(*right, *right))
    raw = convert.grippers_to_sdk(np.array(closed), units)
    np.testing.assert_allclose(convert.grippers_from_sdk(raw, units), closed, atol=1e-9)


@given(pitch=st.floats(0.0, 1.57), lift=st.floats(0.0, 0.55), unit=st.sampled_from(["m", "cm"]))
def test_lift_and_waist_survive_the_way_there_and_back(pitch, lift, unit):
    units = UnitsConfig(lift_state=unit, lift_command=unit)
    raw = convert.waist_to_sdk(pitch, lift, units)
    np.testing.assert_allclose(convert.waist_from_sdk(raw, units), [pitch, lift], atol=1e-12)


@given(yaw=st.floats(-1.57, 1.57), pitch=st.floats(-0.34, 0.52))
def test_heads_in_degrees_and_in_radians_mean_the_same(yaw, pitch):
    in_degrees = convert.head_from_sdk([math.degrees(yaw), math.degrees(pitch)], UnitsConfig(head_state="deg"))
    in_radians = convert.head_from_sdk([yaw, pitch], UnitsConfig(head_state="rad"))
    np.testing.assert_allclose(in_degrees, in_radians, atol=1e-12)
    np.testing.assert_allclose(in_radians, [yaw, pitch])


def test_known_numbers():
    units = UnitsConfig(left_gripper=RAW_GRIPPER)
    np.testing.assert_allclose(convert.grippers_from_sdk([77.5, 0.25], units), [0.5, 0.25])
    np.testing.assert_allclose(convert.grippers_from_sdk([34.8, 1.0], units), [0.0, 1.0])  # A little beyond open.
    assert convert.waist_to_sdk(0.5, 0.2, UnitsConfig()) == [0.5, 20.0]
    np.testing.assert_allclose(convert.waist_from_sdk([0.5, 0.2], UnitsConfig()), [0.5, 0.2])
    np.testing.assert_allclose(convert.head_from_sdk([0.0, 26.316], UnitsConfig()), [0.0, 0.4593], atol=1e-4)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: convert.arms_from_sdk([0.0] * 13 + [35.0]), "arm joint 14 of 14 = 35 rad.*looks like degrees"),
        (lambda: convert.arms_from_sdk([0.0] * 13 + [math.nan]), "expected 14 finite numbers"),
        (lambda: convert.arms_from_sdk([0.0] * 13), "expected 14 finite numbers"),
        (lambda: convert.head_from_sdk([0.0, 26.3], UnitsConfig(head_state="rad")), "head pitch.*head_state"),
        (lambda: convert.head_from_sdk([0.0, 60.0], UnitsConfig()), "head pitch"),
        (lambda: convert.waist_from_sdk([0.5, 20.0], UnitsConfig()), "lift.*lift_state"),
        (lambda: convert.waist_from_sdk([29.0, 0.2], UnitsConfig()), "waist pitch.*looks like degrees"),
        (lambda: convert.grippers_from_sdk([35.0, 0.0], UnitsConfig()), "left gripper.*left_gripper"),
        (lambda: convert.grippers_from_sdk([0.0, -0.3], UnitsConfig()), "right gripper.*right_gripper"),
    ],
)
def test_what_cannot_be_the_unit_is_refused(read, message):
    with pytest.raises(WrongUnitsError, match=message):
        read()


def test_colours_come_out_as_rgb():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0] = 200
    assert convert.image_from_sdk(frame, UnitsConfig(channels="bgr"))[0, 0].tolist() == [0, 0, 200]
    assert convert.image_from_sdk(frame, UnitsConfig())[0, 0].tolist() == [200, 0, 0]
