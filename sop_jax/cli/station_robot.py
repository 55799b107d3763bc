"""The robot that a station's file asks for, with the people who look after it.

Imports nothing that trains: a robot's computer doesn't have it. `a2d_sdk` is imported when a real robot is made.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import envs
from configs.station import StationConfig
from envs.g1.config import G1Config
from sop_jax.actors.operator.attended_robot import AttendedRobot
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.standstill import StandstillGate
from sop_jax.actors.operator.steering import Steering
from sop_jax.actors.operator.supervisor import Gate, OperatorSupervisor
from sop_jax.cli.stopping import StopRequests
from sop_jax.evaluation.world import make_robot
from sop_jax.robots.g1.config import CameraConfig, G1RobotConfig
from sop_jax.robots.g1.connecting import connect_robot, import_ros2
from sop_jax.robots.g1.emulated_sdk import connect_emulator
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.faults import StartStoppedError
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.robots.g1.workplace import AttendedWorkplace, JudgedWorkplace
from sop_jax.robots.simulated_pictures import SimulatedPictures
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Metrics, Robot, Supervisor


@dataclasses.dataclass(frozen=True)
class Staffed:
    """A robot, who may take over, and the name of its world ("" on a real one)."""

    robot: Robot
    supervisor: Supervisor | None
    world: str


def make_staffed(
    config: StationConfig, robot_id: str, console: Console | None, clock: Clock, metrics: Metrics, stop: StopRequests
) -> Staffed:
    """The station's robot, ready to be reset.

    Raises:
        ConfigError: the configuration contradicts itself, or a real robot has nobody to look after it.
        MissingDependencyError: the vendor's SDK isn't installed.
    """
    if config.robot == "simulated":
        return _simulated(config, robot_id, console, clock)
    if config.robot == "g1_emulator":
        return _emulated(config, robot_id, console, clock, metrics, stop)
    return _real(config, console, clock, metrics, stop)


def _simulated(config: StationConfig, robot_id: str, console: Console | None, clock: Clock) -> Staffed:
    robot = make_robot(config.world, clock, robot_id)
    if console is None:
        return Staffed(robot, None, robot.world)
    attended = AttendedRobot(robot, console, photographer=SimulatedPictures(robot.environment))
    return _staff(attended, console, envs.make_gate(robot.environment), None, robot.world)


def _emulated(
    config: StationConfig,
    robot_id: str,
    console: Console | None,
    clock: Clock,
    metrics: Metrics,
    stop: StopRequests,
) -> Staffed:
    environment = make_robot(config.world, clock, robot_id).environment
    size = config.world.image_size
    cameras = tuple(CameraConfig(each.name, each.sdk_name, size, size, size, size) for each in config.g1.cameras)
    g1 = dataclasses.replace(config.g1, cameras=cameras)
    emulator = Emulator(environment, clock, g1.units, cameras)
    workplace = JudgedWorkplace(emulator)
    if g1.link == "ros2":
        link = import_ros2("emulated_ros2").EmulatedRos2Link(emulator, g1.ros2)
    else:
        link = connect_emulator(emulator)
    robot = G1Robot(g1, link, workplace, clock, metrics, on_the_way=_watch_of(console, stop))
    if console is None:
        return Staffed(robot, None, environment.world)
    attended = AttendedRobot(robot, console, workplace.mark)
    return _staff(attended, console, envs.make_gate(environment), _body(g1), environment.world)


def _real(
    config: StationConfig, console: Console | None, clock: Clock, metrics: Metrics, stop: StopRequests
) -> Staffed:
    if console is None:
        raise ConfigError(
            "a real robot needs a person who sets its scenes and judges its episodes: start it with --operator PORT or "
            "--join-operator"
        )
    if config.g1.link == "ros2" and not config.g1.ros2.status and not config.g1.dry_run:
        raise ConfigError(
            "Ros2Config.status is '', so nothing would tell of a stop, and a station's file can't name a signal of your own: "
            "give the status topic, or write a program that passes `stop_signal` to Ros2Link"
        )
    task, instruction = config.task, config.instruction

    def set_scene(seed: int) -> None:
        del seed
        # Without a scene the robot must not move to its start either.
        if not console.wait_for_scene(task, instruction, stop):
            raise KeyboardInterrupt

    workplace = AttendedWorkplace(task, instruction, set_scene)
    with contextlib.ExitStack() as unless_made:
        link = connect_robot(config.g1)
        unless_made.callback(link.close)
        robot = G1Robot(config.g1, link, workplace, clock, metrics, on_the_way=_watch_of(console, stop))
        unless_made.pop_all()
    attended = AttendedRobot(robot, console, workplace.mark)
    gate = StandstillGate(attended, robot.spec.control_hz, config.standstill_s)
    return _staff(attended, console, gate, _body(config.g1), "")


def _watch_of(console: Console | None, stop: StopRequests) -> Callable[[], None]:
    """Stops a robot on the way to its start for a signal, which ends the program, or for a person."""

    def watch() -> None:
        if stop():
            raise KeyboardInterrupt
        if console is not None and not console.allow_way():
            raise StartStoppedError(
                "a person stopped the robot on the way to its start; look at the scene, then set it again"
            )

    return watch


def _staff(robot: AttendedRobot, console: Console, gate: Gate, body: G1Config | None, world: str) -> Staffed:
    return Staffed(robot, OperatorSupervisor(console, robot, Steering(robot.spec, body=body), gate), world)


def _body(config: G1RobotConfig) -> G1Config:
    """Where the arms hang: hands are steered in the base's frame."""
    posture = config.posture
    return G1Config(
        lift_m=posture.lift_m,
        waist_pitch_rad=posture.waist_pitch_rad,
        head_yaw_rad=posture.head_yaw_rad,
        head_pitch_rad=posture.head_pitch_rad,
    )
