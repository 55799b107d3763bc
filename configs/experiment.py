"""What an experiment is made of: the stations' own configs, nested, and how long each phase takes.

Times are wall seconds unless named otherwise; counts are `num_x`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from sop_jax.actors.demonstrate import DemonstrationConfig
from sop_jax.actors.episode import RecordingConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.registry import AlgorithmConfig
from sop_jax.evaluation.results import RESET_S
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.config import LearnerConfig
from sop_jax.replay.intake import IntakeConfig
from sop_jax.replay.tables import MixConfig
from sop_jax.robots.scripted_supervisor import SupervisorConfig
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class DemonstrationsConfig:
    """The expert's episodes, for the offline buffer. They depend on these values alone, whatever the machine.

    num_episodes: in all. robot_hours: robot time in all, in place of a number of episodes; 0 = the number counts.
    num_collectors: robots that collect side by side; each draws its own scenes, so changing the number changes the
        demonstrations.
    num_by_task: number of episodes of some tasks, where several are collected and they should differ.
    name: of the collectors, before their number. Episodes of several tasks in one store need several names.
    """

    num_episodes: int = 100
    robot_hours: float = 0.0
    num_by_task: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_collectors: int = 2
    seed: int = 0
    name: str = "demonstrator"
    collection: DemonstrationConfig = dataclasses.field(default_factory=DemonstrationConfig)

    def __post_init__(self) -> None:
        if min(self.num_episodes, self.num_collectors, *self.num_by_task.values()) < 1:
            raise ConfigError(f"DemonstrationsConfig: num_episodes and num_collectors must be at least 1, got {self}")
        if self.robot_hours < 0:
            raise ConfigError(f"DemonstrationsConfig.robot_hours must be at least 0, got {self.robot_hours}")

    @property
    def collectors(self) -> tuple[str, ...]:
        """The collectors' robot_ids."""
        return tuple(f"{self.name}-{number}" for number in range(self.num_collectors))

    def for_task(self, task: str) -> "DemonstrationsConfig":
        """The same for one task of several, by collectors whose names tell the task."""
        return dataclasses.replace(
            self,
            name=f"{self.name}-{task}",
            num_episodes=self.num_by_task.get(task, self.num_episodes),
            num_by_task={},
        )

    def share_of(self, collector: int) -> int | None:
        """How many episodes collector number `collector` contributes; None if robot time counts."""
        if self.robot_hours:
            return None
        return self.num_episodes // self.num_collectors + (collector < self.num_episodes % self.num_collectors)

    @property
    def robot_s_each(self) -> float:
        """Robot time that each collector contributes, if that counts [s]."""
        return 3600 * self.robot_hours / self.num_collectors


@dataclasses.dataclass(frozen=True)
class FleetConfig:
    """The robots and who watches over them.

    weights_poll_s: how often a robot looks for a new publication. drain_s: how long a stopping robot may take to upload what
    it has recorded.
    """

    num_robots: int = 4
    supervised: bool = True
    weights_poll_s: float = 1.0
    drain_s: float = 20.0
    rollout: RolloutConfig = dataclasses.field(default_factory=lambda: RolloutConfig(realtime=True))
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)
    supervisor: SupervisorConfig = dataclasses.field(default_factory=SupervisorConfig)

    def __post_init__(self) -> None:
        if self.num_robots < 1:
            raise ConfigError(f"FleetConfig.num_robots must be at least 1, got {self.num_robots}")


@dataclasses.dataclass(frozen=True)
class LearningConfig:
    """How the learner learns. Its batch size holds for the loader too.

    min_online_items: the learner waits until one of the tasks has so many items online (`sampling/beginning.py`); 0 starts on
        demonstrations.
    niceness: added to the learner process's; above 0 it leaves the robots their 30 Hz on a crowded machine.
    control_hz: rate of the robots that it learns for, 30 in the worlds; episodes of another rate are passed over.
    """

    algorithm: AlgorithmConfig
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    loader: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    min_online_items: int = 1
    niceness: int = 10
    control_hz: float = 30.0

    def __post_init__(self) -> None:
        if self.learner.batch_size != self.loader.batch_size:
            raise ConfigError(
                "LearningConfig: learner.batch_size and loader.batch_size must be equal, got "
                f"{self.learner.batch_size} and {self.loader.batch_size}"
            )
        if self.min_online_items < 0 or not 0 <= self.niceness <= 19:
            raise ConfigError(f"LearningConfig: min_online_items must be >= 0 and niceness 0 to 19, got {self}")
        if not 0 < self.control_hz < math.inf:
            raise ConfigError(f"LearningConfig.control_hz must be positive and finite, got {self.control_hz}")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Trials without help, on seeds that nothing was trained on.

    num_workers: processes; 0 = one per usable core. reset_s: robot time to set up the scene again, counted in successes per
    hour.
    """

    num_trials: int = 120
    seed: int = 0
    num_workers: int = 0
    reset_s: float = RESET_S
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """The replay tables and the intake that fills them."""

    mix: MixConfig = dataclasses.field(default_factory=MixConfig)
    intake: IntakeConfig = dataclasses.field(default_factory=IntakeConfig)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """The whole loop on one machine.

    world, tasks: one world per task, alike but for the task (none: the world's own); robots take them in turns, and all
        share one policy.
    policy: the base policy's directory. seed: of the robots' scenes and the learner's order of data (demonstrations and
        evaluation have their own).
    max_loop_s: longest time that the fleet works; the learner's number of steps usually ends it first.
    control_result: a stored result of the same learner steps on demonstrations alone, shown unless the control is run.
    max_restarts: how often each process is restarted after dying.
    """

    name: str
    title: str
    policy: str
    learning: LearningConfig
    seed: int = 0
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    tasks: tuple[str, ...] = ()
    demonstrations: DemonstrationsConfig = dataclasses.field(default_factory=DemonstrationsConfig)
    fleet: FleetConfig = dataclasses.field(default_factory=FleetConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    max_loop_s: float = 420.0
    max_restarts: int = 3
    control_result: str = ""

    def __post_init__(self) -> None:
        if self.max_loop_s <= 0:
            raise ConfigError(f"DemoConfig.max_loop_s must be positive, got {self.max_loop_s}")
        if self.replay.intake.segment_length != self.learning.loader.picker.segment_length:
            raise ConfigError(
                "DemoConfig: replay.intake.segment_length and learning.loader.picker.segment_length must be equal, got "
                f"{self.replay.intake.segment_length} and {self.learning.loader.picker.segment_length}"
            )
        check_tasks(self.tasks)

    @property
    def worlds(self) -> tuple[WorldConfig, ...]:
        """One world per task."""
        return worlds_of(self.world, self.tasks)


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """How a base policy is made: demonstrations, then behaviour cloning.

    model: a preset's name. seed: of the parameters' start and of the order of data. world, tasks: as in `DemoConfig`;
    every task has its own demonstrations.
    """

    name: str
    model: Literal["compact"] | str
    learning: LearningConfig
    seed: int = 0
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    tasks: tuple[str, ...] = ()
    demonstrations: DemonstrationsConfig = dataclasses.field(default_factory=DemonstrationsConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_tasks(self.tasks)

    @property
    def worlds(self) -> tuple[WorldConfig, ...]:
        """One world per task."""
        return worlds_of(self.world, self.tasks)


def worlds_of(world: WorldConfig, tasks: Sequence[str]) -> tuple[WorldConfig, ...]:
    """The same world for every task; without tasks, the world itself."""
    return tuple(world.for_task(task) for task in tasks) if tasks else (world,)


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises ConfigError if a task repeats."""
    if len(set(tasks)) != len(tasks):
        raise ConfigError(f"tasks must be different, got {list(tasks)}")
