"""The SDK in a process of its own: the link over it gives what the link in this process gives."""

import ast
import contextlib
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sop_jax.robots.g1.config import CameraConfig, UnitsConfig
from sop_jax.robots.g1.faults import CommandRejectedError, LinkFault, StateLateError
from sop_jax.robots.g1.remote_sdk import SdkLine
from sop_jax.robots.g1.sdk_link import connect
from sop_jax.specs.errors import MissingDependencyError

SERVER = pathlib.Path(__file__).parents[2] / "launch" / "g1" / "sdk_server.py"
CAMERAS = (CameraConfig("head", "head", 6, 8, 4, 4), CameraConfig("hand_left", "silent", 6, 8, 4, 4))
SDK = """
import numpy as np, pathlib
LOG = pathlib.Path(__file__).with_name("log.txt")
def note(text):
    with LOG.open("a") as log: log.write(text + "\\n")
class RobotDds:
    def arm_joint_states(self): return (np.linspace(0, 1.3, 14), np.int64(1_700_000_000_000_000_001))
    def arm_joint_states_nearest(self, at_ns): return ([0.5] * 14, at_ns + 3)
    def gripper_states(self): return ([0.25, 1.0], 7)
    def gripper_states_nearest(self, at_ns): return ([0.25, 1.0], at_ns)
    def head_joint_states(self): return (np.array([0.0, 10.0]), 8)
    def head_joint_states_nearest(self, at_ns): return ([0.0, 10.0], at_ns)
    def waist_joint_states(self): return ((0.5, 0.02), 9)
    def waist_joint_states_nearest(self, at_ns): return (None, None) if at_ns == 1 else ([0.5, 0.02], at_ns)
    def move_arm(self, joints):
        note(f"move_arm {joints[0]}")
        if joints[0] == 1.0: return False
        if joints[0] == 2.0: raise RuntimeError("no")
    def move_gripper(self, positions): note(f"move_gripper {positions}")
    def shutdown(self): note("shutdown")
class CosineCamera:
    def __init__(self, names): note(f"cameras {names}")
    def get_latest_image(self, name):
        return (None, None) if name == "silent" else (np.arange(144, dtype=np.uint8).reshape(6, 8, 3)[:, ::-1], 11)
    def get_image_nearest(self, name, at_ns): return np.full((6, 8, 3), 9, np.uint8), at_ns
    def close(self): note("camera closed")
class RobotController:
    def get_motion_status(self): return {"error": np.int32(0), "frames": {"arm": object()}, "mode": 1}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    package = tmp_path / "a2d_sdk"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "robot.py").write_text(SDK)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in ("a2d_sdk", "a2d_sdk.robot"):
        sys.modules.pop(name, None)


@contextlib.contextmanager
def serving(place):
    path = str(place.parent / "sdk.sock")
    environment = {"PYTHONPATH": str(place.parent), "PATH": ""}
    process = subprocess.Popen([sys.executable, str(SERVER), path, "head", "silent"], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not pathlib.Path(path).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield path
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_it_says_what_the_sdk_says(place):
    here = connect(CAMERAS, UnitsConfig())
    with serving(place) as path:
        assert pathlib.Path(path).stat().st_mode & 0o077 == 0  # nobody else may command the robot
        there = connect(CAMERAS, UnitsConfig(), sdk_socket=path)
        for at_ns in (None, 1_700_000_000_000_000_007):
            ours, theirs = here.read_state(at_ns), there.read_state(at_ns)
            np.testing.assert_array_equal(ours.vector, theirs.vector)
            np.testing.assert_array_equal([*ours.head, *ours.waist], [*theirs.head, *theirs.waist])
            assert (ours.time_ns, ours.newest_ns) == (theirs.time_ns, theirs.newest_ns)
            mine, yours = here.read_frame("head", at_ns), there.read_frame("head", at_ns)
            np.testing.assert_array_equal(mine.image, yours.image)
            assert mine.time_ns == yours.time_ns
        assert there.read_frame("hand_left") is None
        assert there.stopped() == ""
        with pytest.raises(StateLateError, match="no sample yet"):
            there.read_state(1)
        for joint, complaint in ((1.0, "it returned False"), (2.0, "RuntimeError: no")):
            with pytest.raises(CommandRejectedError, match=complaint):
                there.send(np.full(16, joint))
        there.send(np.full(16, 0.5))
        assert (place / "log.txt").read_text().splitlines()[-2:] == ["move_arm 0.5", "move_gripper [0.5, 0.5]"]
        line = SdkLine(path)
        there.close()
        with pytest.raises(RuntimeError, match=r"unknown call robot.shutdown"):
            line.call("robot", "shutdown")
        line.close()
    assert (place / "log.txt").read_text().splitlines()[-2:] == ["camera closed", "shutdown"]


def test_without_its_server_it_says_so_and_a_restarted_one_is_found_again(place):
    with pytest.raises(MissingDependencyError, match=r"Start launch/g1/sdk_server.py"):
        connect(CAMERAS, UnitsConfig(), sdk_socket=str(place.parent / "sdk.sock"))
    with serving(place) as path:
        link = connect(CAMERAS, UnitsConfig(), sdk_socket=path)
        link.read_state()
    with pytest.raises(LinkFault, match="arm_joint_states failed"):
        link.read_state()
    with serving(place):
        assert link.read_state().grippers[1] == 1.0
        link.close()


@pytest.mark.parametrize("reply", [b"", b"\xff\xff\xff\xff", struct.pack(">I", 3) + b"abc", struct.pack(">I", 2) + b"[]",
                                   struct.pack(">I", 15) + b'{"num_bytes":-1}'[:15]])  # fmt: skip
def test_what_isnt_an_answer_is_a_fault_of_the_link(tmp_path, reply):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)

        def misbehave():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=misbehave)
        thread.start()
        line = SdkLine(path, timeout_s=5.0)
        with pytest.raises((OSError, ValueError, AttributeError)):
            line.call("robot", "arm_joint_states")
        thread.join()
        assert line._socket is None


def test_a_slow_server_is_a_timeout(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        line = SdkLine(path, timeout_s=0.05)
        with pytest.raises(TimeoutError):
            line.call("robot", "arm_joint_states")
        line.close()


def test_the_vendors_older_python_can_read_it():
    tree = ast.parse(SERVER.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Match)]
