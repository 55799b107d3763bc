"""Which simulated world a process works in: what its robots see, and how the scene is drawn."""

import dataclasses

import envs
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError

RESTOCKING = "restock_"
"""How the names of tasks begin that handle goods."""

EVALUATED_ROBOT = "evaluation"
"""The name of the robot that evaluations run on: where individuals differ, one that is in no fleet."""


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """A task and its scene.

    task: one of the worlds' tasks. image_size: height and width of every camera's images [pixels].
    catalogue: where the goods of a restocking task come from: one of `envs.restock.catalogue.CATALOGUES`; None = the task's
        own. num_distractors: items beside the wanted one; None = the task's own number.
    time_limit_s: longest episode [robot seconds]; None = the task's own.
    individuals: how much robots and their workplaces differ: one of `envs.DISTRIBUTIONS`.
    shuffle_instructions: robots are told anything that could be asked for in the scene and judged by what was asked for,
        which shows how much of a success rate hangs on the words. For evaluation only.
    """

    task: str = "restock_shelf"
    image_size: int = 64
    catalogue: str | None = None
    num_distractors: int | None = None
    time_limit_s: float | None = None
    individuals: str = "identical"
    shuffle_instructions: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 8:
            raise ConfigError(f"WorldConfig.image_size must be at least 8 pixels, got {self.image_size}")

    def for_task(self, task: str) -> "WorldConfig":
        """The same for another task. What is said about goods goes with restocking only."""
        if task.startswith(RESTOCKING):
            return dataclasses.replace(self, task=task)
        return dataclasses.replace(self, task=task, catalogue=None, num_distractors=None)


def make_robot(world: WorldConfig, clock: Clock, robot_id: str) -> SimulatedRobot:
    """The robot of this name in this world: which individual it is follows from the name.

    Raises:
        ConfigError: no task has this name (a near one is suggested), or it refuses a value.
    """
    try:
        environment = envs.load(
            world.task,
            image_size=world.image_size,
            catalogue=world.catalogue,
            num_distractors=world.num_distractors,
            time_limit_s=world.time_limit_s,
            individual=envs.draw_individual(world.individuals, robot_id),
            shuffle_instructions=world.shuffle_instructions,
        )
    except (envs.UnknownTaskError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return SimulatedRobot(environment, clock)
