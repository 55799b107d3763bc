"""A fleet on wall time: real Reverb, a learner and crowds of robots as processes, over one store.

What comes back is the journal that the fleet on virtual time keeps, made from what the store holds afterwards.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from fleet_sim.config import SimulatedFleetConfig
from fleet_sim.crew_worker import WorkerSettings
from fleet_sim.crowd import CrowdReport, CrowdSettings
from fleet_sim.journal import Journal
from fleet_sim.live_crowd_process import LiveCrowdSettings, LiveReport
from fleet_sim.wall_journal import make_journal
from fleet_sim.wall_learner import LearnerReport, LearnerSettings
from fleet_sim.wall_processes import FINISH, FleetProcess
from fleet_sim.wall_watch import FleetWatch
from sop_jax.actors.rollout import never
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.trial_pool import SINGLE_THREADED
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class LiveBodies:
    """Robots whose bodies are worlds: shared out among so many processes, each with one thread for all its robots.

    pace, num_threads: see `LiveCrowdSettings`.
    """

    num_processes: int = 1
    pace: Literal["real", "free"] = "real"
    num_threads: int = 0

    def __post_init__(self) -> None:
        if self.num_processes < 1 or self.num_threads < 0:
            raise ConfigError(f"LiveBodies: num_processes must be >= 1 and num_threads >= 0, got {self}")


@dataclasses.dataclass(frozen=True)
class WallResult:
    """What happened, in the robots' own seconds; how late learner and crowds were on this machine.

    num_restarts: of crowds that were killed. num_lost: episodes that a spool or the store accepted and that intake doesn't
    know; what a killed crowd had accepted is counted by the store alone.
    """

    journal: Journal
    learner: LearnerReport
    crowds: tuple[CrowdReport | LiveReport, ...]
    num_restarts: int
    num_lost: int


def run_wall(
    config: SimulatedFleetConfig,
    settings: LearnerSettings,
    recordings: str,
    root: pathlib.Path,
    duration_s: float,
    live: LiveBodies | None = None,
    should_stop: Callable[[], bool] = never,
) -> WallResult:
    """Runs the fleet for `duration_s` after everybody is ready, or until told to stop. Blocks.

    `settings.replay` is filled in here. `recordings`: URL of the store whose episodes the robots live again, unless they are
    `live`. The fleet's own store holds demonstrations.

    A crowd that a signal kills is started again, three times in all; its spools keep what they had accepted.

    Raises:
        WallFleetError: the learner or a crowd died, or it was told to stop before it began.
    """
    tables = mix_tables(config.tasks, config.mix)
    log = root / "logs" / "reverb.log"
    with ReverbServer(tables, log_path=log, hears_interrupts=False) as server, contextlib.ExitStack() as stack:
        told = dataclasses.replace(settings, replay=server.address)
        learner = stack.enter_context(FleetProcess("learner", "wall_learner", told, root))
        starts = _crowd_starts(config, settings, recordings, root, live)
        watch = FleetWatch(learner, starts, stack, WallClock(), should_stop)
        order = watch.begin(duration_s)
        crowds = tuple(_report_of(values) for values in watch.wait_for_crowds(order))
        learner.tell(FINISH)
        report = LearnerReport.from_json(watch.wait_for_learner())
    lasted = dataclasses.replace(order, duration_s=watch.lasted_s)
    journal = make_journal(config, settings, report, lasted, _pace_of(crowds, live))
    num_lost = _count_lost(settings, report, len(journal.episodes), crowds, watch.num_restarts)
    return WallResult(journal, report, crowds, watch.num_restarts, num_lost)


def _crowd_starts(
    config: SimulatedFleetConfig,
    settings: LearnerSettings,
    recordings: str,
    root: pathlib.Path,
    live: LiveBodies | None,
) -> list[Callable[[], FleetProcess]]:
    """What starts each crowd, as often as need be."""
    (task,) = config.tasks
    robot_ids, reset_s = tuple(config.robot_ids), config.timing.reset_s
    first_s = {robot_id: reset_s * number / len(robot_ids) for number, robot_id in enumerate(robot_ids)}
    if live is None:
        replayed = CrowdSettings(
            recordings, settings.store, task, robot_ids, tuple(first_s.values()), 0, 0.0, reset_s, config.seed
        )
        return [lambda: FleetProcess("crowd", "crowd", replayed, root)]
    worker = _worker_settings(config, settings, root)

    def start(number: int) -> FleetProcess:
        share = robot_ids[number :: live.num_processes]
        crowd = LiveCrowdSettings(
            worker, task, share, tuple(first_s[robot_id] for robot_id in share), reset_s,
            max(1, math.ceil(len(share) / config.rollout.execute_steps)), live.pace, live.num_threads, config.seed,
        )  # fmt: skip
        return FleetProcess(f"crowd-{number}", "live_crowd_process", crowd, root, SINGLE_THREADED)

    return [functools.partial(start, number) for number in range(min(live.num_processes, len(robot_ids)))]


def _worker_settings(config: SimulatedFleetConfig, settings: LearnerSettings, root: pathlib.Path) -> WorkerSettings:
    return WorkerSettings(
        bundle=settings.bundle,
        store=settings.store,
        scratch=str((root / "spool").absolute()),
        world=config.world,
        rollout=config.rollout,
        recording=config.recording,
        supervisor=config.supervisor,
        conditioning=create_algorithm(config.algorithm).conditioning(Phase.COLLECTING),
    )


def _report_of(values: Any) -> CrowdReport | LiveReport:
    return LiveReport.from_json(values) if "ticks" in values else CrowdReport(**values)


def _pace_of(crowds: Sequence[CrowdReport | LiveReport], live: LiveBodies | None) -> float:
    """Robot seconds per second; 1 unless they are free to differ."""
    if live is None or live.pace == "real":
        return 1.0
    factors = [crowd.ticks.real_time_factor for crowd in crowds if isinstance(crowd, LiveReport)]
    return sum(factors) / len(factors)


def _count_lost(
    settings: LearnerSettings,
    learner: LearnerReport,
    num_stored: int,
    crowds: Sequence[CrowdReport | LiveReport],
    num_restarts: int,
) -> int:
    """Accepted and not in the store (if no report went lost with a killed crowd); in the store and not known to intake."""
    waiting = sum(crowd.num_waiting for crowd in crowds if isinstance(crowd, LiveReport))
    accepted = sum(crowd.num_episodes for crowd in crowds)
    not_stored = 0 if num_restarts else max(0, accepted - waiting - num_stored)
    return not_stored + len(EpisodeStore(settings.store).list_paths()) - learner.num_settled
