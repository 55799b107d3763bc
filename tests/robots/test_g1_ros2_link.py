"""The link over ROS 2 topics: real DDS messages, an emulated robot's episodes, another process, and what can go wrong."""

import dataclasses
import itertools
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from g1_parts import CAMERAS, CONFIG, START_NS, make_bench, stretch

import envs
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.robots.g1.config import (
    CameraConfig,
    G1RobotConfig,
    GripperCalibration,
    PostureConfig,
    Ros2Config,
    UnitsConfig,
)
from sop_jax.robots.g1.connecting import connect_robot
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.faults import CommandRejectedError, LinkFault, StateLateError, WrongUnitsError
from sop_jax.robots.g1.link import G1Link
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, MissingDependencyError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import EpisodeEnd, Outcome

pytest.importorskip("cyclonedds", reason="Cyclone DDS has no wheel for this platform")

from sop_jax.robots.g1 import ros2_messages as ros
from sop_jax.robots.g1.emulated_ros2 import EmulatedRos2Link
from sop_jax.robots.g1.ros2_link import Ros2Link
from sop_jax.robots.g1.ros2_topics import Ros2Node

EPISODE = EpisodeHeader("g1-1.00000000000000000001.000000", seed=3)
_domains = itertools.count(100)


@pytest.fixture
def config():
    """Topics that no other test sees."""
    return Ros2Config(next(_domains), "lo")


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


@pytest.mark.parametrize("size", [0, 1, 7, 3 * 48 * 64])
def test_our_own_coding_of_pictures_is_that_of_cyclone_dds(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    image = ros.Image(ros.Header(ros.Time(-3, 999_999_999), "käse"), 48, 64, "rgb8", 0, 192, data.tobytes())
    theirs = ros.Image.__idl__.serialize(dataclasses.replace(image, data=data.tolist()), use_version_2=False)
    assert image.serialize() == theirs
    back = ros.Image.deserialize(theirs)
    assert (back.header, back.height, back.width, back.encoding, back.step) == (image.header, 48, 64, "rgb8", 192)
    assert bytes(back.data) == data.tobytes()


def test_stamps_keep_their_nanoseconds():
    assert ros.Time.from_ns(1_700_000_000_000_000_001) == ros.Time(1_700_000_000, 1)
    assert ros.Time(1_700_000_000, 1).ns == 1_700_000_000_000_000_001


def test_an_emulated_robots_episode_over_topics_is_that_over_the_sdk(environment, config):
    over_sdk = make_bench(environment)
    expected = run_episode(over_sdk.robot, FakePolicy(), None, EPISODE, RolloutConfig(realtime=True), over_sdk.clock)
    clock, metrics = ManualClock(START_NS), MemoryMetrics()
    emulator = Emulator(environment, clock, CONFIG.units, CAMERAS)
    link = EmulatedRos2Link(emulator, config)
    assert isinstance(link, G1Link)
    robot = G1Robot(CONFIG, link, emulator, clock, metrics, background=False)
    episode = run_episode(robot, FakePolicy(), None, EPISODE, RolloutConfig(realtime=True), clock)
    assert EpisodeEnd(episode.manifest.outcome, episode.manifest.failure_kind) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    for name in ("state", "action", "time_ns", "image_frames"):
        np.testing.assert_array_equal(getattr(episode.arrays, name), getattr(expected.arrays, name))
    assert episode.jpegs == expected.jpegs


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"emergency_stop": True}, "emergency_stop"),
        ({"state_gap": True}, "state_late"),
        ({"silent_cameras": frozenset({"head"})}, "camera_late"),
        ({"camera_clock_s": 1.0}, "clock_skew"),
        ({"wrong_arm_units": True}, "wrong_units"),
        ({"rejects": True}, "not_following"),  # a topic tells nobody that its command was refused
    ],
)
def test_faults_end_episodes_as_over_the_sdk(environment, config, fault, kind):
    clock = ManualClock(START_NS)
    emulator = Emulator(environment, clock, CONFIG.units, CAMERAS)
    robot_config = dataclasses.replace(CONFIG, time_limit_s=4.0)
    link = EmulatedRos2Link(emulator, config)
    robot = G1Robot(robot_config, link, emulator, clock, MemoryMetrics(), background=False)
    emulator.at(10, **fault)
    episode = run_episode(robot, FakePolicy(stretch), None, EPISODE, RolloutConfig(realtime=True), clock)
    assert (episode.manifest.outcome, episode.manifest.failure_kind) == (Outcome.ERROR, kind)


@pytest.mark.parametrize("encoding", ["bgr8", "jpeg"])
def test_pictures_in_other_encodings(environment, config, encoding):
    clock = ManualClock(START_NS)
    emulator = Emulator(environment, clock, UnitsConfig(), CAMERAS)
    emulator.prepare(5)
    plain = EmulatedRos2Link(emulator, config).read_frame("head")
    other = EmulatedRos2Link(emulator, dataclasses.replace(config, camera="/other/{}"), encoding).read_frame("head")
    apart = np.abs(other.image.astype(int) - plain.image)
    assert apart.max() == 0 if encoding == "bgr8" else apart.mean() < 3
    assert other.time_ns == plain.time_ns == START_NS - 66_666_666


def test_units_of_this_robot(environment, config):
    units = UnitsConfig("rad", "cm", "cm", "rgb", GripperCalibration(35.0, 120.0, 1.0, 0.0))
    emulator = Emulator(environment, ManualClock(START_NS), units, CAMERAS)
    emulator.prepare(5)
    link = EmulatedRos2Link(emulator, config)
    state = link.read_state()
    np.testing.assert_allclose(state.vector, emulator.moment()[0].state)
    np.testing.assert_allclose([*state.head, *state.waist], [*emulator.moment()[0].head, *emulator.moment()[0].waist])
    target = np.r_[np.linspace(-0.5, 0.5, 14), 0.25, 0.75]
    link.send(target)
    np.testing.assert_allclose(emulator.target, target)
    link._units = UnitsConfig()  # a configuration that doesn't know this robot
    with pytest.raises(WrongUnitsError, match=r"left gripper \(raw"):
        link.read_state()


class Robot:
    """The other side of the topics, by hand."""

    def __init__(self, config):
        self.node = Ros2Node(config)
        self.states = {
            topic: self.node.writer(topic, kind)
            for topic, kind in (
                (config.arms, ros.JointState),
                (config.left_gripper, ros.EndState),
                (config.right_gripper, ros.EndState),
                (config.head, ros.HeadState),
                (config.waist, ros.WaistState),
                (config.status, ros.WholeBodyStatus),
            )
        }
        self.camera = self.node.writer("/camera/head_color", ros.Image)
        self.config = config

    def send(self, at_ns, arms=14, motors=2):
        header = ros.Header(ros.Time.from_ns(at_ns), "")
        motor = ros.MotorState(0, True, 0.25, 0, 0, 0, 0, 0, 0, 0)
        config = self.config
        self.states[config.arms].write(ros.JointState(header, [f"j{n}" for n in range(arms)], [0.1] * arms, [], []))
        for topic in (config.left_gripper, config.right_gripper):
            self.states[topic].write(ros.EndState(header, True, [motor]))
        for topic, kind in ((config.head, ros.HeadState), (config.waist, ros.WaistState)):
            self.states[topic].write(kind(header, [motor] * motors, []))

    def status(self, **fields):
        zeros = {field.name: 0 for field in dataclasses.fields(ros.WholeBodyStatus)} | {
            "header": ros.Header(ros.Time(1, 0), "")
        }
        flags = {name: False for name in zeros if name.endswith(("_estop", "_control"))}
        self.states[self.config.status].write(ros.WholeBodyStatus(**zeros | flags | fields))

    def picture(self, encoding, data, step=18):
        header = ros.Header(ros.Time(1, 0), "")
        self.camera.write(ros.Image(header, 4, 6, encoding, 0, step, data))


HEAD = (CameraConfig("head", "head", 4, 6, 4, 4),)


def test_the_nearest_of_what_has_come(config):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig(head_state="rad"))
    for at_ns in (1_000, 2_000, 5_000):
        robot.send(at_ns)
    assert link.read_state().time_ns == 5_000
    assert [link.read_state(at_ns).time_ns for at_ns in (0, 1_400, 3_900, 9_000)] == [1_000, 1_000, 5_000, 5_000]


def test_before_the_first_message_it_says_what_to_look_at(config):
    link = Ros2Link(config, HEAD, UnitsConfig())
    assert link.read_frame("head") is None
    with pytest.raises(StateLateError, match=rf"arm_joint_state: no message yet.*in DDS domain {config.domain_id}"):
        link.read_state()
    with pytest.raises(StateLateError, match=r"whole_body_status: no message yet.*give a stop signal"):
        link.stopped()
    with pytest.raises(CommandRejectedError, match="/wbc/arm_command: nobody listens"):
        link.send(np.zeros(16))
    with pytest.raises(CommandRejectedError, match="a person brings them"):
        link.send_posture(np.zeros(2), np.zeros(2))


def test_messages_of_other_sizes_are_faults_of_the_link(config):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig(head_state="rad"))
    robot.send(1, motors=1)
    with pytest.raises(LinkFault, match="/hal/neck_state: expected 2 motors, got 1"):
        link.read_state()
    robot.send(2, arms=7)
    with pytest.raises(WrongUnitsError, match="expected 14 finite numbers"):
        link.read_state()


@pytest.mark.parametrize(
    ("encoding", "data", "step"),
    [("mono16", b"0" * 72, 18), ("rgb8", b"0" * 71, 18), ("rgb8", b"0" * 40, 10), ("jpeg", b"\xff\xd8nothing", 18)],
)
def test_pictures_that_cannot_be_read(config, encoding, data, step):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig())
    robot.picture(encoding, data, step)
    with pytest.raises(LinkFault, match=f"camera head: a frame of 4x6, encoding '{encoding}'"):
        link.read_frame("head")


def test_pictures_of_another_size_and_with_padded_rows(config):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig())
    robot.picture("rgb8", bytes(range(80)), step=20)
    image = link.read_frame("head").image
    assert image.shape == (4, 6, 3)
    assert image[1, 0].tolist() == [20, 21, 22]
    other = Ros2Link(config, (CameraConfig("head", "head", 8, 6, 4, 4),), UnitsConfig())
    robot.picture("rgb8", bytes(72))
    with pytest.raises(LinkFault, match=r"expected frames \(8, 6, 3\), got \(4, 6, 3\)"):
        other.read_frame("head")


def test_stops_come_from_the_status_or_from_the_labs_own_signal(config):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig())
    robot.status(left_arm_control=True)
    assert link.stopped() == ""
    robot.status(left_arm_estop=True, waist_error=17)
    assert link.stopped() == "whole-body status reports left_arm_estop True, waist_error 17"
    signal_alone = Ros2Link(dataclasses.replace(config, status=""), HEAD, UnitsConfig(), lambda: "the red button")
    assert signal_alone.stopped() == "the red button"

    def unplugged():
        raise OSError("no such device")

    with pytest.raises(LinkFault, match="stop_signal failed: OSError: no such device"):
        Ros2Link(config, HEAD, UnitsConfig(), unplugged).stopped()


def test_a_status_that_falls_silent_no_longer_says_that_all_is_well(config):
    config = dataclasses.replace(config, max_status_age_s=0.2)
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig())
    for _ in range(2):
        robot.status(left_arm_control=True)
        assert link.stopped() == ""
        time.sleep(0.3)
        with pytest.raises(
            StateLateError, match=r"no message for 0\.\d s, so a stop wouldn't be seen; expected one every 0"
        ):
            link.stopped()


def test_commands_carry_the_joints_names(config):
    robot, link = Robot(config), Ros2Link(config, HEAD, UnitsConfig(head_state="rad"))
    readers = [robot.node.reader(topic, ros.JointState, 4) for topic in link._commands]
    robot.send(1)
    link.read_state()
    link.send(np.r_[np.arange(14) / 10, 0.25, 1.0])
    arms, left, right = (reader.refresh() or reader.find()[0] for reader in readers)
    assert arms.name == [f"j{n}" for n in range(14)]
    np.testing.assert_allclose(arms.position, np.arange(14) / 10)
    assert (left.name, list(left.position)) == (["left_gripper_joint1"], [0.25])
    assert (right.name, list(right.position)) == (["right_gripper_joint1"], [1.0])


def test_a_robot_in_another_process():
    """UDP on the loopback: states and pictures come, a command moves the robot."""
    config = Ros2Config(next(_domains), "lo")
    command = [sys.executable, "-m", "sop_jax.robots.g1.emulated_ros2", "--image-size", "64", "--encoding", "jpeg"]
    process = subprocess.Popen([*command, "--domain-id", str(config.domain_id)], stdout=subprocess.PIPE, text=True)
    try:
        assert "on the loopback" in process.stdout.readline()
        cameras = tuple(CameraConfig(name, name, 64, 64, 32, 32) for name in ("head", "hand_left", "hand_right"))
        link = connect_robot(G1RobotConfig(link="ros2", ros2=config, cameras=cameras))
        start = _wait_for(link.read_state)
        frame = _wait_for(lambda: link.read_frame("hand_left"))
        assert frame.image.shape == (64, 64, 3)
        assert frame.image.std() > 5
        assert abs(frame.time_ns - time.time_ns()) < 10e9
        goal = start.vector + 0.2 * np.eye(16)[6]
        _wait_for(lambda: link.send(goal) or True)

        def turned():
            link.send(goal)
            return abs(link.read_state().arms[6] - goal[6]) < 0.02

        _wait_for(turned)
        assert link.stopped() == ""
        link.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(30) == 0


def _wait_for(call):
    """What `call` gives once it gives something."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if found := call():
                return found
        except (StateLateError, CommandRejectedError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ros2Config(domain_id=233), "domain_id must be 0 .. 232"),
        (lambda: Ros2Config(arms="hal/arms"), "arms must be an absolute topic name"),
        (lambda: Ros2Config(camera="/camera/head"), "camera must have one {}"),
        (lambda: G1RobotConfig(link="ros"), "link must be 'sdk' or 'ros2'"),
        (lambda: G1RobotConfig(link="ros2", posture=PostureConfig(commanded=True)), "set posture.commanded to false"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_interface_that_isnt_there_or_another_one(config):
    with pytest.raises(ValueError, match=r"can't be entered on network interface 'nothing0'"):
        Ros2Node(dataclasses.replace(config, interface="nothing0"))
    Ros2Node(config)
    with pytest.raises(ValueError, match="on interface 'lo' already, not on 'eth9'"):
        Ros2Node(dataclasses.replace(config, interface="eth9"))


def test_without_cyclone_dds_the_fix_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "sop_jax.robots.g1.ros2_link")
    monkeypatch.setitem(sys.modules, "cyclonedds.core", None)
    with pytest.raises(MissingDependencyError, match=r"launch/setup.sh installs it"):
        connect_robot(G1RobotConfig(link="ros2"))
