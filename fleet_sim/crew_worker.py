"""A worker process of a crew: `python -m fleet_sim.crew_worker SETTINGS` (see `crew`).

SETTINGS is a `WorkerSettings` as JSON.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

import envs
from fleet_sim.crew import EpisodeOrder, PlayedEpisode
from sop_jax.actors.episode import EpisodeHeader, RecordingConfig, run_episode
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.episodes.format import pack
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.worker import find_publication
from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.models.bundle import load_bundle
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor, SupervisorConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import SopError
from sop_jax.specs.records import Episode, Source
from sop_jax.weights.follower import Follower

_TICKS_PER_NOTE = 30


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know: the base policy's directory, the store that holds the publications, a folder for finished
    episodes, and how episodes are played and recorded."""

    bundle: str
    store: str
    scratch: str
    world: WorldConfig
    rollout: RolloutConfig
    recording: RecordingConfig
    supervisor: SupervisorConfig
    conditioning: Conditioning

    @staticmethod
    def from_json(values: dict[str, Any]) -> "WorkerSettings":
        return WorkerSettings(
            bundle=values["bundle"],
            store=values["store"],
            scratch=values["scratch"],
            world=WorldConfig(**values["world"]),
            rollout=RolloutConfig.from_dict(values["rollout"]),
            recording=RecordingConfig(**values["recording"]),
            supervisor=SupervisorConfig(**values["supervisor"]),
            conditioning=Conditioning(**values["conditioning"]),
        )


class _EpisodeClock:
    """Stands still at the time at which the present episode began."""

    def __init__(self) -> None:
        self.started_ns = 0

    def now_ns(self) -> int:
        return self.started_ns

    def sleep_s(self, duration_s: float) -> None:
        del duration_s


class EpisodePlayer:
    """Plays orders one after another. Keeps a robot per task (per name, where individuals differ) and one policy."""

    def __init__(self, settings: WorkerSettings):
        self._settings = settings
        self._clock = _EpisodeClock()
        self._robots: dict[tuple[str, str], tuple[SimulatedRobot, ScriptedSupervisor, envs.Expert]] = {}
        self._policy: PolicyRunner | None = None
        self._warm: set[str] = set()

    def play(self, order: EpisodeOrder, on_tick: Callable[[], bool]) -> Episode:
        """The sealed episode. `on_tick` is called once per tick."""
        settings, acts = self._settings, order.actor == "policy"
        self._clock.started_ns = order.started_ns
        robot, supervisor, expert = self._robot(order)
        policy = self._policy_of(order.version, robot) if acts else None
        header = EpisodeHeader(
            episode_id=order.episode_id,
            seed=order.seed,
            source=Source.ONLINE if acts else Source.OFFLINE,
            world=robot.world,
            weights_base=policy.weights_base if policy is not None else "",
            norm_stats=policy.norm_stats if policy is not None else "",
        )
        return run_episode(
            robot,
            policy,
            supervisor if acts and order.supervised else None,
            header,
            dataclasses.replace(settings.rollout, realtime=False),
            self._clock,
            expert=None if acts else expert,
            recording=settings.recording,
            should_stop=on_tick,
        )

    def _robot(self, order: EpisodeOrder) -> tuple[SimulatedRobot, ScriptedSupervisor, envs.Expert]:
        own_body = self._settings.world.individuals != "identical"
        key = (order.task, order.robot_id if own_body else "")
        if key not in self._robots:
            world = self._settings.world.for_task(order.task)
            robot = make_robot(world, self._clock, order.robot_id)
            environment = robot.environment
            expert = envs.make_expert(environment)
            supervisor = ScriptedSupervisor(
                environment, envs.make_expert(environment), envs.make_gate(environment), self._settings.supervisor
            )
            self._robots[key] = robot, supervisor, expert
        return self._robots[key]

    def _policy_of(self, version: int, robot: SimulatedRobot) -> PolicyRunner:
        settings = self._settings
        if self._policy is None or self._policy.version > version or self._policy.version == 0 < version:
            # The base policy was never told what the algorithm tells its own: it acts on the bare instruction.
            conditioning = settings.conditioning if version else None
            bundle = load_bundle(pathlib.Path(settings.bundle))
            self._policy = PolicyRunner.from_bundle(bundle, settings.rollout.chunking, conditioning)
            self._policy.warm_up(robot.spec)
        policy = self._policy
        if policy.version != version:
            publication = find_publication(Candidate(settings.bundle, settings.store, version))
            follower = Follower(settings.store, policy.weights_base, policy.norm_stats)
            policy.swap(follower.load(publication, policy.trained_template), version)
        return policy


def serve(player: EpisodePlayer, scratch: pathlib.Path, orders: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> None:
    """The main loop, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the simulation's business

    def tell(**values: Any) -> None:
        out.write(json.dumps(values) + "\n")
        out.flush()

    try:
        for line in orders:
            played = _play(player, EpisodeOrder.from_json(line), scratch, tell)
            tell(num_frames=played.num_frames, path=str(played.path))
    except BrokenPipeError:  # the simulation was killed
        os._exit(0)


def _play(
    player: EpisodePlayer, order: EpisodeOrder, scratch: pathlib.Path, tell: Callable[..., None]
) -> PlayedEpisode:
    num_ticks = 0

    def on_tick() -> bool:
        nonlocal num_ticks
        if num_ticks % _TICKS_PER_NOTE == 0:
            tell(num_ticks=num_ticks)
        num_ticks += 1
        return False

    episode = player.play(order, on_tick)
    path = scratch / f"{order.episode_id}.zip"
    path.write_bytes(pack(episode))
    return PlayedEpisode(episode.manifest.num_frames, path)


if __name__ == "__main__":
    try:
        settings = WorkerSettings.from_json(json.loads(sys.argv[1]))
        serve(EpisodePlayer(settings), pathlib.Path(settings.scratch))
    except SopError as error:  # one line for the crew to pass on
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
