"""The link over the SDK's names: a fake SDK module, units, refusals, and what comes without one."""

import sys
import types

import numpy as np
import pytest

from sop_jax.robots.g1.config import CameraConfig, GripperCalibration, UnitsConfig
from sop_jax.robots.g1.faults import (
    CommandRejectedError,
    LinkFault,
    StateLateError,
    WrongUnitsError,
)
from sop_jax.robots.g1.link import G1Link
from sop_jax.robots.g1.sdk_link import SDK_MODULE, connect
from sop_jax.specs.errors import MissingDependencyError

CAMERAS = (CameraConfig("head", "head_colour", 4, 6, 4, 4),)
UNITS = UnitsConfig(channels="bgr", left_gripper=GripperCalibration(35.0, 120.0, 1.0, 0.0))


class RobotDds:
    def __init__(self):
        self.sent, self.answer, self.closed = [], None, False
        self.arms = [0.1] * 14

    def __getattr__(self, name):
        values = {
            "arm_joint_states": self.arms,
            "gripper_states": [77.5, 0.25],
            "head_joint_states": [0.0, 18.0],
            "waist_joint_states": [0.5, 0.2],
        }
        if name.endswith("_nearest"):
            return lambda at_ns: (values[name.removesuffix("_nearest")], at_ns + 3)
        if name in values:
            return lambda: (values[name], 100 + len(name))
        if name.startswith("move_"):
            return lambda what: self.sent.append((name, what)) or self.answer
        raise AttributeError(name)

    def shutdown(self):
        self.closed = True


class CosineCamera:
    def __init__(self, names):
        self.names, self.frame, self.closed = names, np.zeros((4, 6, 3), np.uint8), False
        self.frame[..., 0] = 9

    def get_latest_image(self, name):
        return self.frame, 5

    def get_image_nearest(self, name, at_ns):
        return None, None

    def close(self):
        self.closed = True


class RobotController:
    error = 0

    def get_motion_status(self):
        return {"timestamp": 1, "mode": 2, "error": self.error, "frames": {}}


@pytest.fixture
def link(monkeypatch):
    sdk = types.ModuleType(SDK_MODULE)
    for part in (RobotDds, CosineCamera, RobotController):
        setattr(sdk, part.__name__, part)
    monkeypatch.setitem(sys.modules, "a2d_sdk", types.ModuleType("a2d_sdk"))
    monkeypatch.setitem(sys.modules, SDK_MODULE, sdk)
    return connect(CAMERAS, UNITS)


def test_without_the_sdk_the_fix_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "a2d_sdk", None)
    with pytest.raises(MissingDependencyError, match="Install the vendor's wheel"):
        connect(CAMERAS, UNITS)


def test_states_come_in_our_units_with_their_oldest_and_newest_stamp(link):
    assert isinstance(link, G1Link)
    state = link.read_state()
    np.testing.assert_allclose(state.vector, [*[0.1] * 14, 0.5, 0.25])
    np.testing.assert_allclose(state.head, [0.0, np.pi / 10])
    np.testing.assert_allclose(state.waist, [0.5, 0.2])
    assert (state.time_ns, state.newest_ns) == (114, 118)
    assert link.read_state(1000).time_ns == 1003


def test_frames_come_as_rgb_or_not_at_all(link):
    frame = link.read_frame("head")
    assert (frame.time_ns, frame.image[0, 0].tolist()) == (5, [0, 0, 9])
    assert link.read_frame("head", 7) is None
    assert link._camera.names == ["head_colour"]
    link._camera.frame = np.zeros((8, 6, 3), np.uint8)
    with pytest.raises(LinkFault, match=r"camera head: expected uint8 frames \(4, 6, 3\), got uint8 \(8, 6, 3\)"):
        link.read_frame("head")


def test_commands_go_out_in_the_sdks_units(link):
    link.send(np.r_[np.arange(14) / 10, 0.25, 1.0])
    link.send_posture(np.array([0.1, 0.2]), np.array([0.5, 0.2]))
    assert [name for name, _ in link._robot.sent] == ["move_arm", "move_gripper", "move_head", "move_waist"]
    arms, grippers, head, waist = (values for _, values in link._robot.sent)
    np.testing.assert_allclose(arms, np.arange(14) / 10)
    assert grippers == [0.75, 1.0]
    assert head == [0.1, 0.2]
    assert waist == [0.5, 20.0]
    assert all(type(value) is float for value in arms + grippers + head + waist)


def test_a_refusal_is_an_error_whichever_way_it_comes(link):
    link._robot.answer = False
    with pytest.raises(CommandRejectedError, match="move_arm was rejected: it returned False"):
        link.send(np.zeros(16))

    def refuse(joints):
        raise RuntimeError("busy")

    link._robot.move_arm = refuse
    with pytest.raises(CommandRejectedError, match="move_arm was rejected: RuntimeError: busy"):
        link.send(np.zeros(16))


def test_what_the_sdk_breaks_is_a_fault_of_the_link(link):
    link._robot.arms = [60.0] * 14
    with pytest.raises(WrongUnitsError):
        link.read_state()

    def gone():
        raise OSError("shared memory is gone")

    link._robot.arm_joint_states = gone
    with pytest.raises(LinkFault, match="arm_joint_states failed: OSError: shared memory is gone"):
        link.read_state()
    link._robot.arm_joint_states = lambda: (None, None)
    with pytest.raises(StateLateError, match="no sample yet"):
        link.read_state()


def test_the_stop_is_read_from_the_motion_status_or_from_the_labs_own_signal(link):
    assert link.stopped() == ""
    link._controller.error = 17
    assert link.stopped() == "motion status reports 17"
    link._stop_signal = lambda: "the red button"
    assert link.stopped() == "the red button"

    def unplugged():
        raise OSError("no such device")

    link._stop_signal = unplugged
    with pytest.raises(LinkFault, match="stop_signal failed: OSError: no such device"):
        link.stopped()


def test_closing_shuts_the_sdk_down_even_if_a_camera_will_not_close(link):
    def stuck():
        raise OSError("stuck")

    link._camera.close = stuck
    with pytest.raises(OSError, match="stuck"):
        link.close()
    assert link._robot.closed


@pytest.mark.parametrize(
    ("answer", "told"), [(None, "got NoneType"), (([0.1] * 14,), "got tuple"), (([0.1] * 14, "soon"), "got tuple")]
)
def test_an_answer_of_another_form_is_a_fault(link, answer, told):
    link._robot.arm_joint_states = lambda: answer
    with pytest.raises(LinkFault, match=f"arm_joint_states: expected .value, stamp in ns., {told}"):
        link.read_state()


def test_compressed_frames_are_refused_with_advice(link):
    link._camera.frame = b"\xff\xd8"
    with pytest.raises(LinkFault, match=r"got bytes; correct its CameraConfig, or choose the uncompressed mode"):
        link.read_frame("head")
