"""`sop fleet --clock virtual|wall`: a fleet with a learner, on simulated or on real time."""

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Sequence
from typing import Literal

from fleet_sim.config import Operation, SimulatedFleetConfig, Stage, TimingConfig, operated
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.journal import Journal
from fleet_sim.quantities import parse_seconds
from fleet_sim.replayed import Recordings
from fleet_sim.tally import DynamicsResult
from fleet_sim.wall_fleet import LiveBodies, run_wall
from fleet_sim.wall_learner import LearnerSettings, fleet_config
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import UsageError, parse, refuse_unused
from sop_jax.cli.deployment_options import PlanArguments, deployment_of
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.world import WorldConfig
from sop_jax.models.bundle import load_bundle


@dataclasses.dataclass(frozen=True)
class FleetArguments:
    """Robots and a learner that trains on their episodes and publishes. virtual: SimPy and tables in this process. wall:
    processes, the store and a real Reverb server, at the rate of real time. Ctrl-C ends a fleet on wall time early: its
    robots hand on what they recorded, and the figures so far are shown."""

    clock: Literal["virtual", "wall"]
    """Whose time it is."""

    recordings: str
    """Store of recorded episodes, a folder or a URL: the learner warms up on its demonstrations, and robots without bodies
    live its episodes again."""

    folder: pathlib.Path
    """Folder of the run, new: its store, logs and scratch."""

    bodies: Literal["recordings", "worlds"] = "recordings"
    """What the robots are: recordings that are lived again (no physics, next to no cost), or worlds in which the published
    policy acts and a scripted supervisor takes over."""

    pace: Literal["real", "free"] = "real"
    """Of worlds on wall time: real holds the robots' 30 Hz, and says how late ticks were; free runs them as fast or as slowly
    as this machine can, and a robot's time is its number of ticks."""

    processes: int = 1
    """Over how many processes worlds are shared out on wall time; the robots of one share a thread and a policy."""

    threads: int = 0
    """Threads of each process for the worlds' physics and images; 0 = one per usable core."""

    individuals: Literal["identical", "workshop", "field"] = "identical"
    """How much worlds' robots and workplaces differ."""

    policy: str = "assets/policies/restock_compact"
    """Directory of the base policy."""

    task: str = "restock_shelf"
    """Which of the recorded tasks."""

    robots: int = 4
    """How many robots."""

    duration_s: float = 60.0
    """How long they work [s]."""

    reset_s: float = 10.0
    """From an episode's end to the robot's next one [s]."""

    steps_per_s: float = 1.0
    """The learner's speed; a machine that can't follow says so."""

    batch: int = 64
    """Examples per learner step."""

    publish_every: int = 25
    """Learner steps between publications."""

    deployment: str = ""
    """On virtual time, what the fleet works in: options of `sop fleet plan` without their dashes, such as "link=20Mbps
    operators=1 rule=shortest_help patience=2min". Robots, rests and the learner's figures are those given here. Default:
    nothing is in the way of data, and people are always there."""

    seed: int = 0
    """Of what robots do and of the order of data."""

    json: bool = False
    """Print one JSON object as the last line."""


_WARM_STEPS = 2
_WORLDS_ON_WALL_TIME = ("pace", "processes", "threads")


def run_fleet(argv: Sequence[str]) -> int:
    arguments = parse(FleetArguments, argv, "fleet")
    if (arguments.folder / "store").exists():
        raise UsageError(f"{arguments.folder} holds a store: choose a new folder")
    if arguments.bodies == "recordings":
        refuse_unused(arguments, (*_WORLDS_ON_WALL_TIME, "individuals"), "without --bodies worlds")
    if arguments.clock == "virtual":
        refuse_unused(arguments, _WORLDS_ON_WALL_TIME, "on virtual time")
    if arguments.deployment and arguments.clock == "wall":
        raise UsageError("--deployment is simulated: add --clock virtual")
    if arguments.robots < 1 or not 0 < arguments.duration_s < math.inf:
        raise UsageError(
            f"--robots must be at least 1 and --duration-s above 0 and finite, got {arguments.robots} and "
            f"{arguments.duration_s}"
        )
    live = None
    if arguments.bodies == "worlds":
        live = LiveBodies(arguments.processes, arguments.pace, arguments.threads)
    recorded, store = as_store_url(arguments.recordings), as_store_url(str(arguments.folder / "store"))
    settings = LearnerSettings(
        str(find_policy(arguments.policy)), store, "", {arguments.task: arguments.robots}, arguments.steps_per_s,
        arguments.batch, arguments.publish_every, _WARM_STEPS, arguments.seed,
    )  # fmt: skip
    timing = TimingConfig(learner_steps_per_s=arguments.steps_per_s, reset_s=arguments.reset_s)
    config = fleet_config(settings, timing)
    config = dataclasses.replace(config, world=WorldConfig(arguments.task, individuals=arguments.individuals))
    if arguments.deployment:
        config = operated(config, _operation(arguments))
    _lend_demonstration(recorded, store, arguments.task)
    if arguments.clock == "virtual":
        summary = _run_virtual(config, settings, recorded, arguments)
    else:
        summary = _run_wall(config, settings, recorded, live, arguments)
    for name, value in summary.items():
        say(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if arguments.json:
        print_json({"clock": arguments.clock, **summary})
    return 0


def summary_of(journal: Journal) -> dict[str, object]:
    """What both clocks tell."""
    return {
        "episodes": len(journal.episodes),
        "robot_hours": journal.robot_hours,
        "learner_steps": journal.learner_steps,
        "publications": len(journal.publications),
        "median_staleness_s": journal.median_staleness_s,
        "online_share": journal.online_share,
    }


def _operation(arguments: FleetArguments) -> Operation:
    """Raises UsageError, ConfigError."""
    given = PlanArguments(
        robots=arguments.robots,
        reset=f"{arguments.reset_s:g}s",
        steps_per_s=arguments.steps_per_s,
        batch=arguments.batch,
        publish_every=arguments.publish_every,
    )
    words = [f"--{word}" for word in shlex.split(arguments.deployment)]
    options = parse(PlanArguments, words, "fleet plan", default=given)
    for name in ("robots", "reset", "steps_per_s", "batch", "publish_every", "simulate", "seed", "json"):
        if getattr(options, name) != getattr(given, name):
            raise UsageError(f"--deployment can't say --{name.replace('_', '-')}: it is this command's own option")
    if arguments.bodies == "recordings":
        people = ("operators", "rule", "patience", "reaction")
        refuse_unused(options, people, "in --deployment with --bodies recordings, which ask for nobody")
    return Operation(deployment_of(options), options.rule, parse_seconds("--patience", options.patience))


def _summary_of_deployment(result: DynamicsResult | None) -> dict[str, object]:
    """What links and people did; nothing without a deployment."""
    if result is None:
        return {}
    return {
        **dataclasses.asdict(result.figures),
        "lost_while_waiting": result.num_lost,
        "on_their_way": result.backlog,
    }


def _run_wall(
    config: SimulatedFleetConfig,
    settings: LearnerSettings,
    recorded: str,
    live: LiveBodies | None,
    arguments: FleetArguments,
) -> dict[str, object]:
    note("starting the replay server, the learner and the robots ...")
    with StopRequests() as should_stop:
        result = run_wall(
            config, settings, recorded, arguments.folder, arguments.duration_s, live, should_stop
        )  # fmt: skip
    return {
        **summary_of(result.journal),
        "lost": result.num_lost,
        "in_tables": result.learner.num_inserted,
        "restarts": result.num_restarts,
        "learner_late_s": result.learner.max_late_s,
        "crowds": [dataclasses.asdict(crowd) for crowd in result.crowds],
    }


def _run_virtual(
    config: SimulatedFleetConfig, settings: LearnerSettings, recorded: str, arguments: FleetArguments
) -> dict[str, object]:
    policy = pathlib.Path(settings.bundle)
    recordings = None
    if arguments.bodies == "recordings":
        recordings = Recordings.of_store(EpisodeStore(recorded), arguments.task)
    fleet = SimulatedFleet(
        config, load_bundle(policy), policy, create_algorithm(config.algorithm), arguments.folder, 1, recordings=recordings
    )  # fmt: skip
    try:
        fleet.run(Stage(0.0, then_steps=settings.warm_steps))
        fleet.run(Stage(arguments.duration_s, learner_steps=round(arguments.duration_s * arguments.steps_per_s) + 1))
        return summary_of(fleet.journal()) | _summary_of_deployment(fleet.dynamics())
    finally:
        fleet.close()


def _lend_demonstration(recorded: str, store: str, task: str) -> None:
    """The learner warms up on the recorded demonstrations. Raises UsageError if there are none."""
    source, target = EpisodeStore(recorded), EpisodeStore(store)
    found = [episode for path in source.list_paths() if (episode := source.read(path)).manifest.task == task]
    demonstrations = [episode for episode in found if episode.manifest.source == "offline"]
    if not demonstrations:
        raise UsageError(
            f"{recorded} holds no demonstration of {task}; make some: sop act --expert --episodes N --store ..."
        )
    for episode in demonstrations:
        target.put(episode)
