"""`sop fleet --clock virtual|wall`: a fleet of replayed robots with a learner, on simulated or on real time."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from fleet_sim.config import SimulatedFleetConfig, Stage, TimingConfig
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.journal import Journal
from fleet_sim.replayed import Recordings
from fleet_sim.wall_fleet import run_wall
from fleet_sim.wall_learner import LearnerSettings, fleet_config
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import note, print_json, say
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.bundle import load_bundle


@dataclasses.dataclass(frozen=True)
class FleetArguments:
    """Robots that live recorded episodes again (no physics), and a learner that trains on them and publishes. virtual: SimPy
    and tables in this process. wall: processes, the store and a real Reverb server, at the rate of real time."""

    clock: Literal["virtual", "wall"]
    """Whose time it is."""

    recordings: str
    """Store whose episodes the robots live again: a folder, or a URL."""

    folder: pathlib.Path
    """Folder of the run, new: its store, logs and scratch."""

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

    seed: int = 0
    """Of what robots do and of the order of data."""

    json: bool = False
    """Print one JSON object as the last line."""


_WARM_STEPS = 2


def run_fleet(argv: Sequence[str]) -> int:
    arguments = parse(FleetArguments, argv, "fleet")
    if (arguments.folder / "store").exists():
        raise UsageError(f"{arguments.folder} holds a store: choose a new folder")
    if arguments.robots < 1 or arguments.duration_s <= 0:
        raise UsageError(f"--robots must be at least 1 and --duration-s above 0, got {arguments}")
    recorded, store = as_store_url(arguments.recordings), as_store_url(str(arguments.folder / "store"))
    settings = LearnerSettings(
        str(find_policy(arguments.policy)), store, "", {arguments.task: arguments.robots}, arguments.steps_per_s,
        arguments.batch, arguments.publish_every, _WARM_STEPS, arguments.seed,
    )  # fmt: skip
    timing = TimingConfig(learner_steps_per_s=arguments.steps_per_s, reset_s=arguments.reset_s)
    config = fleet_config(settings, timing)
    _lend_demonstration(recorded, store, arguments.task)
    if arguments.clock == "virtual":
        journal, lateness = _run_virtual(config, settings, recorded, arguments), {}
    else:
        note("starting the replay server and the learner ...")
        result = run_wall(config, settings, recorded, arguments.folder, arguments.duration_s)
        journal = result.journal
        lateness = {"learner_late_s": result.learner.max_late_s, "crowd": dataclasses.asdict(result.crowd)}
    summary = {**summary_of(journal), **lateness}
    for name, value in summary.items():
        say(f"{name}: {value}")
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


def _run_virtual(
    config: SimulatedFleetConfig, settings: LearnerSettings, recorded: str, arguments: FleetArguments
) -> Journal:
    policy = pathlib.Path(settings.bundle)
    recordings = Recordings.of_store(EpisodeStore(recorded), arguments.task)
    fleet = SimulatedFleet(
        config, load_bundle(policy), policy, create_algorithm(config.algorithm), arguments.folder, 1, recordings=recordings
    )  # fmt: skip
    try:
        fleet.run(Stage(0.0, then_steps=settings.warm_steps))
        fleet.run(Stage(arguments.duration_s, learner_steps=round(arguments.duration_s * arguments.steps_per_s) + 1))
        return fleet.journal()
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
