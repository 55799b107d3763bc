"""Demonstrations: episodes in which an expert alone acts, for the offline buffer.

Legend: `A` action dimensions.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sop_jax.actors.disturbance import DisturbanceConfig, DisturbedRobot
from sop_jax.actors.episode import EmptyEpisodeError, EpisodeHeader, RecordingConfig, run_episode, was_interrupted
from sop_jax.actors.pilot import Demonstrator
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import derive_seed, episode_seed
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.interfaces import Metrics, Robot
from sop_jax.specs.records import Episode, Outcome, Source


class NoSuccessError(SopError):
    """The expert fails so often that there is no point in going on."""


@dataclasses.dataclass(frozen=True)
class StartNoise:
    """Moves the robot off its start pose before an episode begins, off the record, to widen the states it starts from.

    joint_std_rad: spread of the offset of each dimension in `dims` (drawn normally, cut at two deviations).
    duration_s: robot time for moving there.
    dims: action dimensions to move; None = all 14 joints. Name one arm's only, and the other stays idle in the data.
    """

    joint_std_rad: float = 0.1
    duration_s: float = 0.5
    dims: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.joint_std_rad < 0 or self.duration_s <= 0:
            raise ConfigError(f"StartNoise needs joint_std_rad >= 0 and duration_s > 0, got {self}")


@dataclasses.dataclass(frozen=True)
class DemonstrationConfig:
    """How demonstrations are collected.

    keep_failures: also keep the episodes in which the expert did not succeed.
    max_tries: give up after this many episodes per one kept or still wanted, plus 20.
    start_noise: None starts every episode from the scene's own pose.
    disturbance: pushes the robot about while the expert acts, which shows how to come back from where a policy may stray.
    """

    keep_failures: bool = False
    max_tries: int = 5
    start_noise: StartNoise | None = None
    disturbance: DisturbanceConfig | None = None
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)

    def __post_init__(self) -> None:
        if self.max_tries < 1:
            raise ConfigError(f"DemonstrationConfig.max_tries must be >= 1, got {self.max_tries}")


@dataclasses.dataclass(frozen=True)
class DemonstrationReport:
    """What a collection came to: episodes kept and tried, frames and robot time of the kept ones."""

    episode_ids: tuple[str, ...]
    num_tried: int
    num_frames: int
    duration_s: float
    interrupted: bool


def collect_demonstrations(
    robot: Robot,
    expert: Demonstrator,
    num_episodes: int | None,
    seed: int,
    accept: Callable[[Episode], object],
    clock: Clock,
    *,
    robot_id: str,
    world: str = "",
    config: DemonstrationConfig | None = None,
    metrics: Metrics | None = None,
    robot_s: float = 0.0,
) -> DemonstrationReport:
    """Lets the expert act until `num_episodes` episodes are kept, and hands each to `accept` (`EpisodeStore.put`, say).

    With `num_episodes` None, until the kept episodes come to `robot_s` seconds of robot time instead.

    Episode number i has the seed `episode_seed(seed, robot_id, i)`, so equal arguments give equal scenes. Ctrl-C ends the
    collection; what was accepted stays. Blocks; drives the robot on this thread.

    Raises:
        NoSuccessError: far more episodes were tried than wanted.
    """
    config = config or DemonstrationConfig()
    if config.disturbance is not None:
        robot = DisturbedRobot(robot, config.disturbance)
    started_ns = clock.now_ns()
    ids, num_frames, num_tried, interrupted = [], 0, 0, False

    def is_enough() -> bool:
        if num_episodes is not None:
            return len(ids) >= num_episodes
        return num_frames / robot.spec.control_hz >= robot_s

    while not is_enough() and not interrupted:
        if num_tried >= config.max_tries * (len(ids) if num_episodes is None else num_episodes) + 20:
            wanted = f"{robot_s:g} s of them" if num_episodes is None else str(num_episodes)
            raise NoSuccessError(
                f"task {robot.task}: the expert succeeded in {len(ids)} of {num_tried} episodes, {wanted} were "
                "wanted. Check the expert, or pass keep_failures."
            )
        scene_seed = episode_seed(seed, robot_id, num_tried)
        header = EpisodeHeader(make_episode_id(robot_id, started_ns, num_tried), scene_seed, Source.OFFLINE, world)
        num_tried += 1
        try:
            episode = run_episode(
                robot,
                None,
                None,
                header,
                config.rollout,
                clock,
                expert=expert,
                recording=config.recording,
                metrics=metrics,
                before_start=None if config.start_noise is None else _Wander(config.start_noise, scene_seed),
            )
        except EmptyEpisodeError:  # The start noise ended the scene.
            continue
        interrupted = was_interrupted(episode)
        if episode.manifest.outcome is Outcome.SUCCESS or (config.keep_failures and not interrupted):
            accept(episode)
            ids.append(episode.manifest.episode_id)
            num_frames += episode.manifest.num_frames
    return DemonstrationReport(tuple(ids), num_tried, num_frames, num_frames / robot.spec.control_hz, interrupted)


class _Wander:
    """Drives a robot from its start pose to a random one nearby, in a straight line."""

    def __init__(self, config: StartNoise, seed: int):
        self._config = config
        self._rng = np.random.default_rng(derive_seed(seed, "start_noise"))

    def __call__(self, robot: Robot) -> None:
        state = robot.observe(images=False).state
        dims = list(range(min(14, len(state))) if self._config.dims is None else self._config.dims)
        offset = np.zeros_like(state)
        offset[dims] = np.clip(self._rng.normal(size=len(dims)), -2, 2) * self._config.joint_std_rad
        num_ticks = max(1, round(self._config.duration_s * robot.spec.control_hz))
        for tick in range(1, num_ticks + 1):
            robot.apply(state + offset * np.float32(tick / num_ticks))
            if robot.check_end() is not None:
                return
