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

import numpy as np

from fleet_sim.bodies import Cast, make_cast
from fleet_sim.crew import EpisodeOrder, Helps, PlayedEpisode, is_told, keep_file
from sop_jax.actors.episode import EpisodeHeader, RecordingConfig, run_episode
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.episodes.format import pack
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.worker import find_publication
from sop_jax.evaluation.world import WorldConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.robots.scripted_supervisor import SupervisorConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import SopError
from sop_jax.specs.interfaces import Request, Supervisor
from sop_jax.specs.records import Episode, Outcome, Source
from sop_jax.weights.follower import Follower


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know: the base policy's directory, the store that holds the publications, a folder for finished
    episodes, and how episodes are played and recorded.

    conditioning: what policies are told; base_is_told: the base policy too, because it was trained to understand it.
    """

    bundle: str
    store: str
    scratch: str
    world: WorldConfig
    rollout: RolloutConfig
    recording: RecordingConfig
    supervisor: SupervisorConfig
    conditioning: Conditioning
    base_is_told: bool = False

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
            base_is_told=values["base_is_told"],
        )


class _EpisodeClock:
    """Stands still at the time at which the present episode began."""

    def __init__(self) -> None:
        self.started_ns = 0

    def now_ns(self) -> int:
        return self.started_ns

    def sleep_s(self, duration_s: float) -> None:
        del duration_s


class HelpLog:
    """A supervisor that notes when it acted. `tick` is the present control tick; set it as time goes on."""

    def __init__(self, supervisor: Supervisor):
        self._supervisor = supervisor
        self.tick = 0
        self._starts: list[int] = []
        self._ends: list[int] = []  # after the last tick of each help so far

    def clear(self) -> None:
        """A new episode, whether or not anybody may help in it."""
        self.tick, self._starts, self._ends = 0, [], []

    def reset(self) -> None:
        self._supervisor.reset()

    def wants_control(self) -> Request | None:
        return self._supervisor.wants_control()

    def act(self) -> np.ndarray:
        if not self._ends or self._ends[-1] != self.tick:
            self._starts.append(self.tick)
            self._ends.append(self.tick)
        self._ends[-1] = self.tick + 1
        return self._supervisor.act()

    def releases_control(self) -> bool:
        return self._supervisor.releases_control()

    def helps(self, over: bool) -> Helps:
        """As of the present tick's beginning. Who still acts has no end yet, unless the episode is `over`."""
        ends = self._ends if over or not self._ends or self._ends[-1] < self.tick else self._ends[:-1]
        return Helps(tuple(self._starts), tuple(ends))


class EpisodePlayer:
    """Plays orders one after another. Keeps a robot per task (per name, where individuals differ) and one policy."""

    def __init__(self, settings: WorkerSettings):
        self._settings = settings
        self._clock = _EpisodeClock()
        self._robots: dict[tuple[str, str], _Played] = {}
        self._policy: PolicyRunner | None = None

    def play(self, order: EpisodeOrder, on_tick: Callable[[int, Helps], None]) -> tuple[Episode, Helps]:
        """The sealed episode, and when people helped. `on_tick` is told each tick's number and the helps before it."""
        settings, acts = self._settings, order.actor == "policy"
        self._clock.started_ns = order.started_ns
        played = self._cast(order)
        cast, supervisor = played.cast, played.supervisor
        robot = cast.robot
        supervisor.clear()
        num_ticks = 0

        def begin_tick() -> bool:
            nonlocal num_ticks
            supervisor.tick = num_ticks
            on_tick(num_ticks, supervisor.helps(over=False))
            num_ticks += 1
            return False

        policy = self._policy_of(order.version, robot) if acts else None
        header = EpisodeHeader(
            episode_id=order.episode_id,
            seed=order.seed,
            source=Source.ONLINE if acts else Source.OFFLINE,
            world=robot.world,
            weights_base=policy.weights_base if policy is not None else "",
            norm_stats=policy.norm_stats if policy is not None else "",
        )
        episode = run_episode(
            robot,
            policy,
            supervisor if acts and order.supervised else None,
            header,
            dataclasses.replace(settings.rollout, realtime=False),
            self._clock,
            expert=None if acts else cast.expert,
            recording=settings.recording,
            should_stop=begin_tick,
        )
        return episode, supervisor.helps(over=True)

    def _cast(self, order: EpisodeOrder) -> "_Played":
        own_body = self._settings.world.individuals != "identical"
        key = (order.task, order.robot_id if own_body else "")
        if key not in self._robots or self._robots[key].drifts != order.drifts:
            if key in self._robots:
                self._robots.pop(key).cast.robot.close()
            name = f"{order.robot_id}/{order.drifts}" if order.drifts else order.robot_id
            cast = make_cast(self._settings.world.for_task(order.task), self._clock, name, self._settings.supervisor)
            self._robots[key] = _Played(cast, HelpLog(cast.supervisor), order.drifts)
        return self._robots[key]

    def _policy_of(self, version: int, robot: SimulatedRobot) -> PolicyRunner:
        settings = self._settings
        if self._policy is None or self._policy.version > version or self._policy.version == 0 < version:
            # A base policy that was never told what the algorithm tells its own acts on the bare instruction.
            conditioning = settings.conditioning if version or settings.base_is_told else None
            bundle = load_bundle(pathlib.Path(settings.bundle))
            self._policy = PolicyRunner.from_bundle(bundle, settings.rollout.chunking, conditioning)
            self._policy.warm_up(robot.spec)
        policy = self._policy
        if policy.version != version:
            publication = find_publication(Candidate(settings.bundle, settings.store, version))
            follower = Follower(settings.store, policy.weights_base, policy.norm_stats)
            policy.swap(follower.load(publication, policy.trained_template), version)
        return policy


@dataclasses.dataclass(frozen=True)
class _Played:
    """Who plays in an episode. `supervisor`: the cast's, who notes. `drifts`: of the robot, when it was made."""

    cast: Cast
    supervisor: HelpLog
    drifts: int


def serve(player: EpisodePlayer, scratch: pathlib.Path, orders: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> None:
    """The main loop, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the simulation's business

    def tell(**values: Any) -> None:
        out.write(json.dumps(values) + "\n")
        out.flush()

    try:
        for line in orders:
            played, helps = _play(player, EpisodeOrder.from_json(line), scratch, tell)
            tell(
                num_frames=played.num_frames, path=str(played.path), succeeded=played.succeeded,
                helps=dataclasses.asdict(helps),
            )  # fmt: skip
    except BrokenPipeError:  # the simulation was killed
        os._exit(0)


def _play(
    player: EpisodePlayer, order: EpisodeOrder, scratch: pathlib.Path, tell: Callable[..., None]
) -> tuple[PlayedEpisode, Helps]:
    def on_tick(tick: int, helps: Helps) -> None:
        if is_told(tick):
            tell(num_ticks=tick, helps=dataclasses.asdict(helps))

    episode, helps = player.play(order, on_tick)
    path = keep_file(scratch, order.episode_id, pack(episode))
    manifest = episode.manifest
    return PlayedEpisode(manifest.num_frames, path, manifest.outcome is Outcome.SUCCESS), helps


if __name__ == "__main__":
    try:
        settings = WorkerSettings.from_json(json.loads(sys.argv[1]))
        serve(EpisodePlayer(settings), pathlib.Path(settings.scratch))
    except SopError as error:  # one line for the crew to pass on
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
