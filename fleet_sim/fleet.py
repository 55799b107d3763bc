"""A fleet on virtual time: robots, uploads, the learner and its publications as SimPy processes.

    t=0   robots start, one after another      robot:   play -> (upload) -> reset -> play ...
          learner waits for online data         learner: step, step, ... publish every k steps
    A robot begins each episode with the newest version that has reached it, and keeps it to the end (decision 4).

How long things take, and who waits for whom, is the business of the `surroundings`. Everything that happens follows from the
config and the seed alone: SimPy orders the events, workers only play ahead.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

from fleet_sim.config import SimulatedFleetConfig, Stage
from fleet_sim.crew import LOCAL, Crew, Engine, EpisodeInPlay, EpisodeOrder
from fleet_sim.deployed import make_surroundings
from fleet_sim.journal import EpisodeRecord, Journal, PublicationRecord
from fleet_sim.learning_side import LearningSide
from fleet_sim.lost_episodes import cut_file
from fleet_sim.replayed import Recordings, ReplayedCrew
from fleet_sim.surroundings import HZ, FixedTimes, Lived
from fleet_sim.tally import DynamicsResult
from fleet_sim.virtual_clock import VirtualClock
from sop_jax.actors.seeds import episode_seed
from sop_jax.algorithms.algorithm import Algorithm, Phase
from sop_jax.algorithms.registry import check_ready
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.retention import RetentionConfig
from sop_jax.models.bundle import PolicyBundle
from sop_jax.specs.errors import SopError
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, EpisodeManifest
from sop_jax.weights.management import pin

Events = Generator[simpy.Event, Any, None]
_JUST_BEFORE_S = 1e-6


class NotPublishedError(SopError):
    """What the learner has learnt didn't get into the store."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a fleet has come, for whoever watches."""

    virtual_s: float
    num_episodes: int
    learner_step: int
    version: int


class SimulatedFleet:
    """Runs stages of a fleet's life, one after another.

        fleet = SimulatedFleet(config, bundle, bundle_dir, algorithm, root, num_workers)
        fleet.run(Stage(1200.0, learner_steps=6000))
        journal = fleet.journal()
        fleet.close()

    `root` is a folder: `root/store` holds episodes (put demonstrations there before) and publications.
    """

    def __init__(
        self,
        config: SimulatedFleetConfig,
        bundle: PolicyBundle,
        bundle_dir: pathlib.Path,
        algorithm: Algorithm,
        root: pathlib.Path,
        num_workers: int,
        metrics: Metrics | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        recordings: Recordings | None = None,
        engine: Engine = LOCAL,
        base_is_told: bool = False,
    ):
        """`recordings`: episodes are these, lived again, instead of played in a world. `engine`: where they are played.
        `base_is_told`: the base policy was trained on what the algorithm tells its policies (RECAP's indicator).

        Raises ConfigError if something that labelling the fleet's tasks needs is missing: RECAP's value function."""
        check_ready(algorithm, config.tasks)
        self._config = config
        self._store_url = f"file://{(root / 'store').absolute()}/"
        scratch = root / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self._environment = simpy.Environment()
        self._around = make_surroundings(self._environment, config.timing, config.operation, config.seed)
        clock = VirtualClock(self._environment)
        self._learning = LearningSide(config, bundle, algorithm, self._store_url, clock, metrics or NoMetrics())
        self._learning.take_in_stored()
        settings = {
            "bundle": str(bundle_dir.absolute()),
            "store": self._store_url,
            "scratch": str(scratch.absolute()),
            "conditioning": dataclasses.asdict(algorithm.conditioning(Phase.COLLECTING)),
            "base_is_told": base_is_told,
            "rollout": dataclasses.asdict(config.rollout),
            **{name: dataclasses.asdict(getattr(config, name)) for name in ("world", "recording", "supervisor")},
        }
        self._crew = Crew(settings, num_workers, engine) if recordings is None else ReplayedCrew(recordings, settings)
        self._on_progress = on_progress
        self._counts = dict.fromkeys(config.robot_ids, 0)
        self._episodes: list[EpisodeRecord] = []
        self._publications: list[PublicationRecord] = []
        self._kept: dict[float, int] = {}
        self._learner_began_s: float | None = None
        self._human_s = 0.0  # in the episodes that have arrived
        self._under_way: dict[str, EpisodeInPlay] = {}  # begun, and neither arrived nor given up
        self._robots_s = self._absent_s = 0.0
        self._overtime_s: dict[
            int, float
        ] = {}  # of each robot in a stage that `finishes`, to be taken off the next one

    def run(self, stage: Stage) -> None:
        """The robots work for the stage's time; unless the stage `finishes`, what they had begun by its end is dropped.

        Raises CrewFailedError, NotPublishedError, or what a station raised.
        """
        first_step = self._learning.num_steps
        ends_s = self._environment.now + stage.duration_s
        self._around.begin()
        robots = [
            self._environment.process(self._work(number, stage, ends_s)) for number in range(self._config.num_robots)
        ]
        if stage.learner_steps:
            self._environment.process(self._learn_beside(first_step + stage.learner_steps, ends_s))
        if stage.duration_s:
            self._environment.run(until=ends_s)
        self._robots_s += stage.duration_s
        self._absent_s += self._around.end()
        if stage.finishes:
            self._environment.run(until=simpy.AllOf(self._environment, robots))
            while self._under_way:  # uploads
                self._environment.step()
        for robot in robots:
            if robot.is_alive:
                robot.interrupt()
        if stage.then_steps:
            done = self._environment.process(self._learn(self._learning.num_steps + stage.then_steps, float("inf")))
            self._environment.run(until=done)
        self._publish_rest()
        self._around.settle()

    def keep_versions_at(self, times_s: Sequence[float]) -> None:
        """Pins, as each of these times passes, the version that robots start with then, so that it stays readable."""
        self.at(times_s, self._keep)

    def at(self, times_s: Sequence[float], call: Callable[[float], None]) -> None:
        """Has `call` called with each of these times as it passes; with a stage's end too, just before it."""
        for time_s in times_s:
            self._environment.process(self._call(time_s, call))

    def keep_store_small(self, retention: RetentionConfig, every_s: float) -> None:
        """From now on lets old episodes go, by virtual time (see `episodes.retention`)."""
        self._environment.process(self._retain(retention, every_s))

    def kept_versions(self) -> dict[float, int]:
        """What was pinned so far: time -> version."""
        return dict(sorted(self._kept.items()))

    def version_at(self, time_s: float) -> int:
        """The version that robots begin with at this time, which is not later than now."""
        return self._around.version_at(time_s)

    def table_sizes(self) -> dict[str, int]:
        """Items in each replay table."""
        return self._learning.table_sizes()

    def _call(self, time_s: float, call: Callable[[float], None]) -> Events:
        # why: an environment that runs until T stops before what is due at T, and a stage's last moment would be missed
        yield self._environment.timeout(max(0.0, time_s - _JUST_BEFORE_S - self._environment.now))
        call(time_s)

    def _retain(self, retention: RetentionConfig, every_s: float) -> Events:
        while True:
            yield self._environment.timeout(every_s)
            self._learning.retain(retention)

    def _keep(self, time_s: float) -> None:
        self._kept[time_s] = version = self.version_at(time_s)
        if version:
            pin(self._store_url, version)

    def journal(self) -> Journal:
        """Everything so far."""
        return Journal(
            episodes=tuple(self._episodes),
            publications=tuple(self._publications),
            learner_steps=self._learning.num_steps,
            last_version=self._learning.last_version,
            duration_s=self._robots_s,
            num_robots=self._config.num_robots,
            online_share=self._learning.online_share(),
            absent_s=self._absent_s,
        )

    def dynamics(self) -> DynamicsResult | None:
        """What links, people and publications did while robots worked, in the figures of a plan; None with fixed times."""
        return None if isinstance(self._around, FixedTimes) else self._around.result()

    def close(self) -> None:
        """Ends the workers and the loader's threads."""
        self._crew.close()
        self._learning.close()

    def _work(self, robot: int, stage: Stage, ends_s: float) -> Events:
        """A robot's life in one stage, until it leaves, is interrupted, or has finished what it had begun by its end."""
        environment, around, playing = self._environment, self._around, None
        robot_id, task = list(self._config.robot_ids.items())[robot]
        try:
            late_s = self._overtime_s.pop(robot, around.spread_s * robot / self._config.num_robots)
            yield environment.timeout(late_s)
            yield from around.join(robot)
            while around.is_there(robot) and not (stage.finishes and environment.now >= ends_s):
                order = self._order(robot, robot_id, task, stage)
                playing = self._under_way[order.episode_id] = self._crew.play(order)
                lived = yield from around.live(robot, playing)
                playing = None
                environment.process(self._arrive(robot, order, lived))
                yield from around.rest(robot, lived.moved_s)
            if stage.finishes:
                self._overtime_s[robot] = max(0.0, environment.now - ends_s)
        except simpy.Interrupt:
            if playing is not None:
                playing.drop()
                del self._under_way[playing.order.episode_id]

    def _people_may_act(self, stage: Stage) -> bool:
        """In an episode that begins now. It depends on virtual time alone, not on how far ahead workers are."""
        under_way_s = sum(playing.num_helped for playing in self._under_way.values()) / HZ
        return stage.human_total_s is None or self._human_s + under_way_s < stage.human_total_s

    def _order(self, robot: int, robot_id: str, task: str, stage: Stage) -> EpisodeOrder:
        count = self._counts[robot_id]
        self._counts[robot_id] += 1
        return EpisodeOrder(
            episode_id=make_episode_id(robot_id, 0, count),
            robot_id=robot_id,
            task=task,
            seed=episode_seed(self._config.seed, robot_id, count),
            started_ns=round(self._environment.now * 1e9),
            version=self._around.version_of(robot) if stage.robots == "policy" else NO_POLICY,
            actor=stage.robots,
            supervised=self._people_may_act(stage),
            drifts=self._around.drifts_of(robot),
        )

    def _arrive(self, robot: int, order: EpisodeOrder, lived: Lived) -> Events:
        """The upload: the episode is in the store once it is over."""
        ended_s = self._environment.now
        if lived.lost and not lived.num_frames:  # asked at once: nothing to keep
            lived.played.path.unlink()
            del self._under_way[order.episode_id]
            return
        if lived.lost:
            cut_file(lived.played.path, lived.num_frames)
        yield from self._around.deliver(robot, lived)
        self._learning.take_in(order.episode_id, lived.played.path)
        parsed = self._learning.store.read_without_images(episode_path(order.episode_id))
        self._note(order, parsed.manifest, int(parsed.arrays.intervention.sum()), ended_s, lived.waited_s)

    def _note(
        self, order: EpisodeOrder, manifest: EpisodeManifest, num_human_frames: int, ended_s: float, waited_s: float
    ) -> None:
        human_s = num_human_frames / manifest.control_hz
        self._human_s += human_s
        del self._under_way[order.episode_id]
        started_s = order.started_ns / 1e9
        staleness_s, behind = self._staleness(order.version, (started_s + ended_s) / 2)
        self._episodes.append(
            EpisodeRecord(
                episode_id=order.episode_id,
                robot_id=order.robot_id,
                task=order.task,
                started_s=started_s,
                ended_s=ended_s,
                version=order.version,
                outcome=manifest.outcome.value,
                failure_kind=manifest.failure_kind,
                num_takeovers=manifest.num_interventions,
                human_s=human_s,
                staleness_s=staleness_s,
                versions_behind=behind,
                waited_s=waited_s,
            )
        )
        self._tell()

    def _staleness(self, version: int, at_s: float) -> tuple[float | None, int | None]:
        if version == NO_POLICY:
            return None, None
        newest = max((p.version for p in self._publications if p.published_s <= at_s), default=0)
        made_s = self._learner_began_s if version == 0 else self._publications[version - 1].published_s
        return (0.0 if made_s is None else max(0.0, at_s - made_s)), newest - version

    def _learn_beside(self, until_step: int, ends_s: float) -> Events:
        """Waits for online data, then learns while the robots work."""
        period_s = 1 / self._around.learner_steps_per_s
        while not self._learning.is_ready():
            if self._environment.now + period_s >= ends_s:
                return
            yield self._environment.timeout(period_s)
        yield from self._learn(until_step, ends_s)

    def _learn(self, until_step: int, ends_s: float) -> Events:
        period_s = 1 / self._around.learner_steps_per_s
        if self._learner_began_s is None:
            self._learner_began_s = self._environment.now
        while self._learning.num_steps < until_step and self._environment.now + period_s < ends_s:
            yield self._environment.timeout(period_s)  # a step's result is there when its time has passed
            is_last = self._learning.num_steps + 1 >= until_step or self._environment.now + period_s >= ends_s
            self._learning.step(fetch_ahead=not is_last)
            self._note_publications()
            if self._learning.num_steps % 25 == 0:
                self._tell()

    def _publish_rest(self) -> None:
        """Raises NotPublishedError."""
        if self._learning.num_steps > self._step_published:
            self._learning.publish()
            self._note_publications()
        if self._learning.num_steps > self._step_published:
            raise NotPublishedError(
                f"the learner's step {self._learning.num_steps} could not be published (the last that was: "
                f"{self._step_published}), so no robot and no trial would act with what was learnt. Is the disk full? See "
                f"{self._store_url}"
            )

    @property
    def _step_published(self) -> int:
        return self._publications[-1].learner_step if self._publications else 0

    def _note_publications(self) -> None:
        if self._learning.last_version > len(self._publications):
            self._publications.append(
                PublicationRecord(self._learning.last_version, self._learning.num_steps, self._environment.now)
            )
            self._around.published()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    self._environment.now, len(self._episodes), self._learning.num_steps, self._learning.last_version
                )
            )
