"""A robot that people look after, on a thread of its own, as `sop act --operator` has it."""

import dataclasses
import threading

from actor_parts import make_runner

import envs
from sop_jax.actors.actor import Actor, ActorConfig
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.operator.attended_robot import AttendedRobot
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.link import ConsoleLink
from sop_jax.actors.operator.steering import Steering
from sop_jax.actors.operator.supervisor import OperatorSupervisor
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.robots.simulated_pictures import SimulatedPictures
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import MemoryMetrics


class KeepEpisodes:
    """An acceptor that keeps what it is given."""

    num_given_up = 0

    def __init__(self):
        self.episodes = []

    def accept(self, episode):
        self.episodes.append(episode)


class RobotAtWork(threading.Thread):
    """A simulated robot in real time with a policy that hardly moves; `finish` ends it."""

    def __init__(self, robot_id, address, **world):
        super().__init__(name=robot_id, daemon=True)
        self.robot_id, self._address, self._world = robot_id, address, world
        self.kept, self.metrics = KeepEpisodes(), MemoryMetrics()
        self.console = None
        self._actor = None
        self._stopped = False
        self.failure = None
        self.start()

    @property
    def episodes(self):
        return self.kept.episodes

    def run(self):
        try:
            self._run()
        except BaseException as error:
            self.failure = error

    def finish(self):
        self._stopped = True
        if self._actor is not None:
            self._actor.stop()
        self.join(60)
        if self.failure is not None:
            raise self.failure
        assert not self.is_alive()

    def _run(self):
        clock, runner = WallClock(), make_runner(7)
        environment = envs.load("restock_shelf", image_size=16, **self._world)
        self.console = console = Console(self.robot_id, clock, lambda: runner.version, self.metrics)
        robot = AttendedRobot(
            SimulatedRobot(environment, clock), console, photographer=SimulatedPictures(environment, 48)
        )
        supervisor = OperatorSupervisor(console, robot, Steering(robot.spec))
        rollout = RolloutConfig(realtime=True, reaction_delay_s=0.0, handover=HandoverConfig(0.1))
        config = ActorConfig(self.robot_id, "restock_shelf", rollout=rollout)
        link = ConsoleLink(console, self._address, clock)
        self._actor = Actor(config, robot, runner, self.kept, clock, supervisor=supervisor, metrics=self.metrics)
        try:
            if not self._stopped:
                self._actor.run()
        finally:
            link.close()
            robot.close()


def events(metrics, name):
    return [event for event in metrics.events if event["event"] == name]


def plain(command):
    """A command's fields, for comparisons."""
    return dataclasses.asdict(command)
