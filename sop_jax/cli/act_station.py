"""`sop act --station FILE`: the robot that a file describes, real, emulated or simulated. Imports nothing that trains."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

from configs.station import StationConfig, read_station
from sop_jax.actors.actor import ActorConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.cli.acting import Upkeep, run_actor, tell_report
from sop_jax.cli.arguments import parse
from sop_jax.cli.locations import find_policy
from sop_jax.cli.operator_options import OperatorOptions, open_console, with_operator
from sop_jax.cli.output import note
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.station_robot import make_staffed
from sop_jax.cli.stopping import StopRequests
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.clock import WallClock
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import LOOPBACK


@dataclasses.dataclass(frozen=True, kw_only=True)
class StationArguments(OperatorOptions):
    """The robot that a station's file describes. It acts with the newest published policy, a person may take over (a real
    robot needs one: --operator or --join-operator), and every episode goes to the store."""

    station: pathlib.Path
    """The file: JSON, the fields of configs/station.py."""

    robot_id: str
    """Name of the robot, unique in the fleet: a-z, 0-9, '_' and '-'."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    episodes: int | None = None
    """How many episodes to run; default: until stopped."""

    seed: int = 0
    """Of the scenes and of the policy's noise, together with the robot's name."""

    spool: pathlib.Path | None = None
    """Folder for episodes on their way to the store; default: runs/spool/<robot-id>."""

    ledger: pathlib.Path | None = None
    """File in which the robot keeps account of what its spool accepted, for `sop doctor --drill --store`; default: none."""

    spool_gb: float = 16.0
    """Disk for episodes on their way to the store [GB]. When it is full, the oldest autonomous ones are given up first."""

    metrics: pathlib.Path | None = None
    """Folder for the robot's metrics (JSON lines); default: none are written."""

    metrics_port: int | None = None
    """Serve the metrics for Prometheus at this port; 0 = any free port. Needs the package prometheus-client. Default: not at
    all."""

    metrics_host: str = LOOPBACK
    """Network interface of that port; the default can be reached from this machine only."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(StationArguments, argv, "act")
    config = read_station(arguments.station)
    with contextlib.ExitStack() as stack:
        metrics = open_metrics(
            stack, arguments.robot_id, arguments.metrics, arguments.metrics_port, arguments.metrics_host
        )
        return _act(arguments, config, metrics, stack)


def _act(arguments: StationArguments, config: StationConfig, metrics: Metrics, stack: contextlib.ExitStack) -> int:
    clock = WallClock()
    bundle = load_bundle(find_policy(config.policy))
    policy = PolicyRunner.from_bundle(bundle, config.rollout.chunking, config.conditioning)
    stop = stack.enter_context(StopRequests())
    console = None
    if arguments.has_operator:
        opened = open_console(arguments, arguments.robot_id, clock, lambda: policy.version, metrics)
        console = stack.enter_context(opened)
    staffed = make_staffed(config, arguments.robot_id, console, clock, metrics, stop)
    stack.enter_context(contextlib.closing(staffed.robot))
    if config.is_dry_run:
        note(
            f"{arguments.robot_id}: DRY RUN, nothing is sent to the robot; episodes end as aborted (dry_run) and are never "
            f'trained on. "dry_run": false in {arguments.station} ends that'
        )
    actor_config = ActorConfig(
        robot_id=arguments.robot_id,
        task=staffed.robot.task,
        seed=arguments.seed,
        num_episodes=arguments.episodes,
        supervised=staffed.supervisor is not None,
        world=staffed.world,
        rollout=with_operator(config.rollout) if console is not None else config.rollout,
        recording=config.recording,
    )
    upkeep = Upkeep(
        arguments.store, arguments.spool, arguments.spool_gb, config.weights_poll_s, config.drain_s, arguments.ledger
    )
    report, uploaded = run_actor(actor_config, upkeep, staffed.robot, policy, staffed.supervisor, clock, metrics, stop)
    tell_report(arguments.robot_id, report, uploaded, arguments.json)
    return 0
