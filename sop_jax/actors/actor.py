"""The actor: a robot's life between switching on and switching off."""

import dataclasses
import threading
from collections.abc import Callable, Generator
from typing import Protocol, final

from sop_jax.actors.episode import (
    EmptyEpisodeError,
    EpisodeHeader,
    RecordingConfig,
    episode_steps,
    was_interrupted,
)
from sop_jax.actors.interrupts import deferred_interrupt
from sop_jax.actors.robot_policy import RobotPolicy
from sop_jax.actors.rollout import Pause, RolloutConfig, Step, never, run_through
from sop_jax.actors.seeds import episode_seed
from sop_jax.actors.weights_feed import WeightsFeed
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, InvalidPublicationError, SopError
from sop_jax.specs.identifiers import check_name, make_episode_id
from sop_jax.specs.interfaces import Metrics, Robot, Supervisor
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import Episode, Outcome, Source


class RobotBrokenError(SopError):
    """Episode after episode was over before its first frame."""


class EpisodeAcceptor(Protocol):
    """Where finished episodes go: a Spool on a robot, the store itself in a simulation.

    `num_given_up` counts the episodes that it had no room for.
    """

    @property
    def num_given_up(self) -> int: ...

    def accept(self, episode: Episode) -> object: ...


@dataclasses.dataclass(frozen=True)
class ActorConfig:
    """One robot's settings.

    seed, first_episode: episode number i draws its scene and noise from (seed, robot_id, first_episode + i).
    num_episodes: how many to run; None = until stopped.
    supervised: whether a supervisor may take over; then the actor needs one.
    world: name and version of the simulated world, for the manifests; "" on a real robot.
    max_empty_episodes: so many episodes in a row that end before their first frame mean a broken robot.
    """

    robot_id: str
    task: str
    seed: int = 0
    first_episode: int = 0
    num_episodes: int | None = None
    supervised: bool = True
    world: str = ""
    max_empty_episodes: int = 5
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)

    def __post_init__(self) -> None:
        check_name("robot_id", self.robot_id)
        check_name("task", self.task)
        if self.num_episodes is not None and self.num_episodes < 0:
            raise ConfigError(f"ActorConfig.num_episodes must be >= 0 or None, got {self.num_episodes}")
        if self.first_episode < 0 or self.max_empty_episodes < 1:
            raise ConfigError(f"ActorConfig: first_episode must be >= 0 and max_empty_episodes >= 1, got {self}")


@dataclasses.dataclass(frozen=True)
class ActorReport:
    """What an actor did: episodes handed on and successes among them, swaps made, publications refused.

    num_given_up: episodes that its spool had no room for, since the spool's directory was made.
    """

    num_episodes: int
    num_successes: int
    num_swaps: int
    num_refused: int
    num_given_up: int = 0


@final
class Actor:
    """Runs episodes one after another, each with the newest policy at its start.

        while episodes remain:
            loaded = feed.take(policy.version)          # verified, or None
            if loaded: policy.swap(...)                 # never inside an episode
            episode = run_episode(robot, policy, supervisor, ...)
            spool.accept(episode)                       # durable before the next episode begins

    A publication that is refused leaves the old policy in place. `run` drives the robot on the calling thread; `stop` may be
    called from any thread or signal handler, and ends the present episode as ABORTED. Whoever runs many robots on one thread
    takes `steps` instead of `run`.

    Metrics: "acting" (the version that it begins with), "swap" (version, from_version, created_ns, now_ns), "episode_end"
    (what the manifest says, and policy_version), "rollout" (ticks and lateness), "publication_refused", "empty_episode".
    """

    def __init__(
        self,
        config: ActorConfig,
        robot: Robot,
        policy: RobotPolicy,
        spool: EpisodeAcceptor,
        clock: Clock,
        *,
        supervisor: Supervisor | None = None,
        feed: WeightsFeed | None = None,
        metrics: Metrics | None = None,
        on_episode: Callable[[Episode], None] | None = None,
    ):
        if config.supervised and supervisor is None:
            raise ConfigError(
                f"actor {config.robot_id} is supervised but got no supervisor; pass one, or supervised=False"
            )
        if robot.task != config.task:
            raise ConfigError(f"actor {config.robot_id} is set to task {config.task!r}, its robot does {robot.task!r}")
        self._config = config
        self._robot = robot
        self._policy = policy
        self._spool = spool
        self._clock = clock
        self._supervisor = supervisor if config.supervised else None
        self._feed = feed
        self._metrics = metrics or NoMetrics()
        self._on_episode = on_episode
        self._stopped = threading.Event()
        self._num_tried = self._num_episodes = self._num_successes = self._num_swaps = self._num_refused = 0

    def run(self) -> ActorReport:
        """Runs until the configured number of episodes, `stop`, or Ctrl-C; what was recorded by then is handed on.

        Raises:
            RobotBrokenError: no episode gets past its start.
        """
        self._policy.warm_up(self._robot.spec)
        with deferred_interrupt() as interrupted:
            run_through(self._run_episodes(interrupted, None))
        return self.report()

    def steps(self) -> Generator[Step, None, None]:
        """`run` in steps (see `rollout_steps`), which also stop before every episode (`Pause.BETWEEN`) and listen to `stop`
        only; the policy is warm. Closed in the middle of an episode they drop it. Raises RobotBrokenError.
        """
        return self._run_episodes(never, never)

    def report(self) -> ActorReport:
        """What it did so far."""
        num_refused = self._num_refused + (0 if self._feed is None else self._feed.num_refused)
        return ActorReport(
            self._num_episodes, self._num_successes, self._num_swaps, num_refused, self._spool.num_given_up
        )

    def stop(self) -> None:
        """Asks `run` to come to an end after the present tick."""
        self._stopped.set()

    def swap_if_new(self) -> bool:
        """Takes on the newest publication, if there is one; called between episodes only."""
        loaded = None if self._feed is None else self._feed.take(self._policy.version)
        if loaded is None:
            return False
        publication, old_version = loaded.publication, self._policy.version
        try:
            self._policy.swap(loaded.params, publication.version)
        except InvalidPublicationError as error:
            self._num_refused += 1
            self._metrics.write("publication_refused", version=publication.version, reason=str(error)[:300])
            return False
        self._num_swaps += 1
        self._metrics.write(
            "swap",
            robot_id=self._config.robot_id,
            version=publication.version,
            from_version=old_version,
            learner_step=publication.learner_step,
            created_ns=publication.created_ns,
            now_ns=self._clock.now_ns(),
        )
        return True

    def _run_episodes(
        self, interrupted: Callable[[], bool], in_episode: Callable[[], bool] | None
    ) -> Generator[Step, None, None]:
        """`interrupted` holds between episodes, `in_episode` inside (see `episode_steps`)."""
        started_ns = self._clock.now_ns()
        num_empty = 0
        self._metrics.write("acting", robot_id=self._config.robot_id, version=self._policy.version)
        while not (self._is_done() or interrupted()):
            yield Pause.BETWEEN
            self.swap_if_new()
            try:
                episode = yield from self._run_one(
                    started_ns, lambda: self._stopped.is_set() or interrupted(), in_episode
                )
            except EmptyEpisodeError as error:
                num_empty += 1
                self._metrics.write("empty_episode", reason=str(error)[:300])
                if num_empty >= self._config.max_empty_episodes:
                    raise RobotBrokenError(
                        f"robot {self._config.robot_id}: {num_empty} episodes in a row ended before their first frame. "
                        f"{error}"
                    ) from error
                continue
            except KeyboardInterrupt:
                break
            num_empty = 0
            self._hand_on(episode)
            if was_interrupted(episode):
                break

    def _is_done(self) -> bool:
        enough = self._config.num_episodes is not None and self._num_episodes >= self._config.num_episodes
        return enough or self._stopped.is_set()

    def _run_one(
        self, started_ns: int, should_stop: Callable[[], bool], interrupted: Callable[[], bool] | None
    ) -> Generator[Step, None, Episode]:
        number = self._config.first_episode + self._num_tried
        self._num_tried += 1
        header = EpisodeHeader(
            episode_id=make_episode_id(self._config.robot_id, started_ns, number),
            seed=episode_seed(self._config.seed, self._config.robot_id, number),
            source=Source.ONLINE,
            world=self._config.world,
            weights_base=self._policy.weights_base,
            norm_stats=self._policy.norm_stats,
        )
        with self._policy.episode():
            return (
                yield from episode_steps(
                    self._robot,
                    self._policy,
                    self._supervisor,
                    header,
                    self._config.rollout,
                    self._clock,
                    recording=self._config.recording,
                    metrics=self._metrics,
                    should_stop=should_stop,
                    interrupted=interrupted,
                )
            )

    def _hand_on(self, episode: Episode) -> None:
        self._spool.accept(episode)
        manifest = episode.manifest
        self._num_episodes += 1
        self._num_successes += manifest.outcome is Outcome.SUCCESS
        self._metrics.write(
            "episode_end",
            episode_id=manifest.episode_id,
            robot_id=manifest.robot_id,
            task=manifest.task,
            outcome=manifest.outcome.value,
            failure_kind=manifest.failure_kind,
            policy_version=manifest.policy_version,
            num_frames=manifest.num_frames,
            duration_s=manifest.num_frames / manifest.control_hz,
            num_interventions=manifest.num_interventions,
            num_intervention_frames=int(episode.arrays.intervention.sum()),
            started_ns=manifest.started_ns,
            ended_ns=manifest.ended_ns,
        )
        if self._on_episode is not None:
            self._on_episode(episode)
