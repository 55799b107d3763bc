"""Which simulated world a process works in: what its robots see, and how the scene is drawn."""

import dataclasses

import envs
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """A task and its scene.

    task: one of the worlds' tasks. image_size: height and width of every camera's images [pixels].
    num_distractors: items beside the wanted one; None = the task's own number.
    time_limit_s: longest episode [robot seconds]; None = the task's own.
    """

    task: str = "restock_shelf"
    image_size: int = 64
    num_distractors: int | None = None
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.image_size < 8:
            raise ConfigError(f"WorldConfig.image_size must be at least 8 pixels, got {self.image_size}")


def make_robot(world: WorldConfig, clock: Clock) -> SimulatedRobot:
    """A robot in this world. Raises ConfigError on an unknown task (with the near match) or a value that it refuses."""
    try:
        environment = envs.load(
            world.task,
            image_size=world.image_size,
            num_distractors=world.num_distractors,
            time_limit_s=world.time_limit_s,
        )
    except (envs.UnknownTaskError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return SimulatedRobot(environment, clock)
