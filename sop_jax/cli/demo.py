"""`sop demo`: the whole loop on one machine, from a base policy to a report.

Phases, each of which leaves a file in `runs/<name>/phases/` so that a stopped run goes on where it was:

    preflight -> demonstrations -> before (evaluation) -> loop (replay, learner, robots) -> after (evaluation)
              -> control (only with --control) -> summary and report
"""

import dataclasses
import datetime
import pathlib
import shlex
from collections.abc import Sequence
from typing import Annotated

import tyro

from configs.experiment import DemoConfig
from configs.registry import find_demo
from sop_jax.algorithms.registry import check_ready, create_algorithm, default_config
from sop_jax.cli.arguments import UsageError, flag_value, parse, refuse_unused
from sop_jax.cli.demo_phases import DemoPhases
from sop_jax.cli.demo_results import finish
from sop_jax.cli.locations import find_policy
from sop_jax.cli.machine import describe_machine
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.run_directory import RunDirectory, RunStart
from sop_jax.cli.stopping import StopRequests
from sop_jax.specs.clock import WallClock

DEFAULT = "restock_demo"


@dataclasses.dataclass(frozen=True)
class DemoArguments:
    """A fleet of simulated robots gets better at its job while it works, on this machine: a replay server, a learner and the
    robots as separate processes. Ends with a table and runs/<name>/report.html. Ctrl-C stops every process and leaves a
    run that --resume takes up."""

    experiment: Annotated[DemoConfig, tyro.conf.arg(name="")]
    """The resolved experiment; every value can be changed on the command line."""

    config: str = DEFAULT
    """An experiment's name (restock_demo, restock_demo_pi05, restock_tiny), or a config.json."""

    algorithm: str = ""
    """Learn by this algorithm (behaviour_cloning, hg_dagger, recap), with its defaults; default: the config's. Its values
    can be changed too: --learning.algorithm.*."""

    run: str = ""
    """Folder of the run; default: runs/<name>-<time>."""

    resume: str = ""
    """Folder of a stopped run: go on with it, with its own config."""

    control: bool = False
    """Also run the control: as many learner steps on demonstrations alone, from the same base."""

    skip_doctor: bool = False
    """Don't check first what this machine lacks."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    resume = flag_value(argv, "--resume", "")
    config_name = flag_value(argv, "--config", DEFAULT)
    experiment = find_demo(str(_resumed(resume).config) if resume else config_name)
    if algorithm := flag_value(argv, "--algorithm", ""):
        learning = dataclasses.replace(experiment.learning, algorithm=default_config(algorithm))
        experiment = dataclasses.replace(experiment, learning=learning)
    default = DemoArguments(experiment)
    arguments = parse(DemoArguments, argv, "demo", default)
    config = arguments.experiment
    if len(config.worlds) > 1:
        raise UsageError(f"a demo shows one task, {config.name} has {len(config.worlds)}: see sop study")
    find_policy(config.policy)
    check_ready(create_algorithm(config.learning.algorithm), [world.task for world in config.worlds])
    command = shlex.join(["sop", "demo", *argv])
    directory = _resumed(resume) if resume else _new_run(arguments, command)
    if resume:
        refuse_unused(
            arguments, ("run", "config"), "with --resume, which goes on in its own folder with its own config"
        )
        if config != default.experiment or algorithm:
            raise UsageError(
                f"a resumed run keeps its config: leave out the changes, or start a new run instead of {resume}"
            )
    with StopRequests() as stop:
        phases = DemoPhases(config, directory, WallClock(), stop)
        try:
            phases.run_all(control=arguments.control, preflight=not arguments.skip_doctor)
        except KeyboardInterrupt:
            note(f"stopped; go on with: sop demo --resume {directory.root}")
            return 130
    summary = finish(config, directory, command)
    say(f"report: {directory.report}")
    if arguments.json:
        print_json(summary)
    return 0


def _new_run(arguments: DemoArguments, command: str) -> RunDirectory:
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    directory = RunDirectory(pathlib.Path(arguments.run or f"runs/{arguments.experiment.name}-{time}"))
    directory.create(arguments.experiment)
    directory.write_start(RunStart(command, describe_machine(WallClock().now_ns() / 1e9)))
    return directory


def _resumed(resume: str) -> RunDirectory:
    directory = RunDirectory(pathlib.Path(resume))
    if not directory.config.exists():
        raise UsageError(f"{resume} is no run: it has no config.json")
    return directory
