"""What a simulated fleet is told: who works, how long things take, and the stations' own configs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from fleet_sim.deployment import Deployment, Shift, check_shifts
from fleet_sim.operator_pool import check_rule
from sop_jax.actors.episode import RecordingConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.registry import AlgorithmConfig
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.config import LearnerConfig
from sop_jax.replay.tables import MixConfig
from sop_jax.robots.scripted_supervisor import SupervisorConfig
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class TimingConfig:
    """How long things take, on virtual time.

    learner_steps_per_s: speed of the learner. reset_s: from an episode's end to the robot's next one. upload_s: from an
    episode's end to its arrival in the store. swap_s: from a publication to the robots that may start with it.
    """

    learner_steps_per_s: float = 5.0
    reset_s: float = 10.0
    upload_s: float = 1.0
    swap_s: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learner_steps_per_s) and self.learner_steps_per_s > 0):
            raise ConfigError(f"TimingConfig.learner_steps_per_s must be positive, got {self.learner_steps_per_s}")
        for name in ("reset_s", "upload_s", "swap_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"TimingConfig.{name} must be finite and >= 0, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of a fleet's life: the robots work for `duration_s`, then (if `then_steps`) the learner trains alone.

    robots: the policy acts, supervised ("policy"), or the expert demonstrates ("expert"; its episodes go to the offline
        buffer).
    learner_steps: most steps that the learner takes beside the robots; 0 = it waits.
    human_total_s: for how long people may have acted by this stage's end, since the fleet's life began. Once they have, as
        far as is known of episodes under way, nobody takes over in those that begin. None = no bound.
    finishes: what robots have begun by the end they finish, and it is kept, before the learner trains alone; the time that it
        takes a robot is taken off its next stage. Off, it is dropped.
    """

    duration_s: float
    robots: Literal["policy", "expert"] = "policy"
    learner_steps: int = 0
    then_steps: int = 0
    human_total_s: float | None = None
    finishes: bool = False

    def __post_init__(self) -> None:
        if self.duration_s < 0 or min(self.learner_steps, self.then_steps) < 0 or (self.human_total_s or 0) < 0:
            raise ConfigError(f"Stage: durations, steps and human time must be >= 0, got {self}")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A deployment at work: its figures, who comes and goes, and whom people help first (`operator_pool.RULES`).

    Of its robots' and people's figures a fleet in worlds takes what the worlds don't decide: resets, failures, drift, kept
    bytes, reaction. How long episodes and helps last, and how often robots ask, is then what happens.
    patience_s: mean time that a robot that asked can hold still before its episode is lost.
    """

    deployment: Deployment
    rule: str = "first_come"
    patience_s: float = math.inf
    shifts: tuple[Shift, ...] = ()

    def __post_init__(self) -> None:
        check_rule(self.rule)
        check_shifts("Operation", self.shifts, self.deployment)
        if not self.patience_s > 0:
            raise ConfigError(f"Operation.patience_s must be above 0, got {self.patience_s}")


@dataclasses.dataclass(frozen=True)
class SimulatedFleetConfig:
    """A fleet, its learner and their world.

    robots: task -> number of robots that do it; all share one policy.
    min_online_items: the learner waits until one of the tasks has so many items online (`sampling/beginning.py`).
    seed: of scenes, noise and the order of data.
    timing: fixed times, unless there is an `operation`: then times follow from its links, people and learner.
    """

    robots: Mapping[str, int]
    algorithm: AlgorithmConfig
    seed: int = 0
    min_online_items: int = 1
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    timing: TimingConfig = dataclasses.field(default_factory=TimingConfig)
    operation: Operation | None = None
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    loader: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    mix: MixConfig = dataclasses.field(default_factory=MixConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)
    supervisor: SupervisorConfig = dataclasses.field(default_factory=SupervisorConfig)

    @property
    def reset_s(self) -> float:
        """Time in which a scene is set up again after an episode."""
        return self.timing.reset_s if self.operation is None else self.operation.deployment.robots.reset_s

    def __post_init__(self) -> None:
        if not self.robots or min(self.robots.values()) < 1:
            raise ConfigError(
                f"SimulatedFleetConfig.robots: every task needs at least one robot, got {dict(self.robots)}"
            )
        if self.learner.batch_size != self.loader.batch_size:
            raise ConfigError(
                "SimulatedFleetConfig: learner.batch_size and loader.batch_size must be equal, got "
                f"{self.learner.batch_size} and {self.loader.batch_size}"
            )
        if self.min_online_items < 0:
            raise ConfigError(f"SimulatedFleetConfig.min_online_items must be >= 0, got {self.min_online_items}")
        if self.operation is not None:
            self._check_operation(self.operation)

    def _check_operation(self, operation: Operation) -> None:
        training, robots = operation.deployment.training, operation.deployment.robots
        for name, wanted, found in (
            ("num_robots", robots.num_robots, self.num_robots),
            ("publish_every", training.publish_every, self.learner.publish_every),
            ("batch_size", training.batch_size, self.learner.batch_size),
        ):
            if wanted != found:
                raise ConfigError(
                    f"SimulatedFleetConfig.operation: {name} is {wanted} in the deployment and {found} in the fleet; "
                    "they must be equal (see `operated`)"
                )
        if math.isfinite(robots.drift_every_s) and self.world.individuals == "identical":
            raise ConfigError(
                "SimulatedFleetConfig.operation: robots drift into other individuals, and world.individuals is 'identical': "
                "choose a distribution of individuals"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.robots)

    def world_of(self, task: str) -> WorldConfig:
        """The world in which a task is done."""
        return self.world.for_task(task)

    @property
    def num_robots(self) -> int:
        return sum(self.robots.values())

    @property
    def robot_ids(self) -> dict[str, str]:
        """robot_id -> task. Names are the same whatever the other tasks' numbers."""
        return {
            f"{task.replace('_', '-')}-{number}": task for task, count in self.robots.items() for number in range(count)
        }


def operated(config: SimulatedFleetConfig, operation: Operation) -> SimulatedFleetConfig:
    """The same fleet in a deployment: batch size and publications are the deployment's."""
    training = operation.deployment.training
    return dataclasses.replace(
        config,
        operation=operation,
        learner=dataclasses.replace(
            config.learner, batch_size=training.batch_size, publish_every=training.publish_every
        ),
        loader=dataclasses.replace(config.loader, batch_size=training.batch_size),
    )
