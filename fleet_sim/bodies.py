"""Robots whose bodies are worlds, with the people beside them: one by one, or many that look and move together."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, final

import numpy as np

import envs
from sop_jax.actors.robot_wrapper import RobotWrapper
from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor, SupervisorConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import Clock
from sop_jax.specs.records import Observation


@dataclasses.dataclass(frozen=True)
class Cast:
    """Who plays in an episode: the robot, who may take over, and who can show the task."""

    robot: SimulatedRobot
    supervisor: ScriptedSupervisor
    expert: envs.Expert


def make_cast(world: WorldConfig, clock: Clock, robot_id: str, supervision: SupervisorConfig) -> Cast:
    """The robot of this name, with scripted people. Raises ConfigError."""
    robot = make_robot(world, clock, robot_id)
    environment = robot.environment
    supervisor = ScriptedSupervisor(
        environment, envs.make_expert(environment), envs.make_gate(environment), supervision
    )
    return Cast(robot, supervisor, envs.make_expert(environment))


class Bodies(Protocol):
    """What the bodies of several robots do together; `robots` are their places in the order in which they were given."""

    def look(self, robots: Sequence[int]) -> None:
        """Reads the cameras of these, whose next `observe` gives the images."""
        ...

    def move(self, robots: Sequence[int]) -> None:
        """Lets a control tick pass for these, which were commanded."""
        ...

    def close(self) -> None: ...


@final
class BatchedRobot(RobotWrapper[SimulatedRobot]):
    """A robot that looks and moves when its `BatchedBodies` do: `apply` only commands it."""

    def __init__(self, robot: SimulatedRobot):
        super().__init__(robot)
        self.seen: dict[str, np.ndarray] = {}

    @property
    def body(self) -> SimulatedRobot:
        return self._robot

    def observe(self, images: bool = True) -> Observation:
        observation = self._robot.observe(images=False)
        return dataclasses.replace(observation, images=self.seen) if images else observation

    def apply(self, action: np.ndarray) -> np.ndarray:
        return self._robot.begin_apply(action)


@final
class BatchedBodies:
    """Implements `Bodies` by an `envs.EnvironmentBatch`, whose threads share the physics and the images."""

    def __init__(self, robots: Sequence[BatchedRobot], num_threads: int = 0):
        """`num_threads` 0: one per usable core. Closing it closes the robots."""
        self._robots = tuple(robots)
        self._batch = envs.EnvironmentBatch([robot.body.environment for robot in robots], num_threads)

    def look(self, robots: Sequence[int]) -> None:
        for robot, images in zip(robots, self._batch.render(robots), strict=True):
            self._robots[robot].seen = images

    def move(self, robots: Sequence[int]) -> None:
        self._batch.advance_physics(robots)
        for robot in robots:
            self._robots[robot].body.end_apply()

    def close(self) -> None:
        self._batch.close()
