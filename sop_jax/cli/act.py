"""`sop act`: one robot in a process of its own, with the store as the only thing it needs."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import envs
from configs.experiment import DemoConfig
from configs.registry import find_learning
from sop_jax.actors.actor import ActorConfig
from sop_jax.actors.operator.attended_robot import AttendedRobot
from sop_jax.actors.operator.steering import Steering
from sop_jax.actors.operator.supervisor import OperatorSupervisor
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.acting import Upkeep, run_actor, tell_report
from sop_jax.cli.arguments import UsageError, parse, refuse_unused
from sop_jax.cli.collector import demonstrate
from sop_jax.cli.locations import find_policy
from sop_jax.cli.operator_options import OperatorOptions, open_console, with_operator
from sop_jax.cli.output import print_json, say
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.stopping import StopRequests
from sop_jax.evaluation.world import make_robot
from sop_jax.models.bundle import load_bundle
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.robots.simulated_pictures import SimulatedPictures
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.interfaces import Metrics, Robot, Supervisor
from sop_jax.specs.metrics import LOOPBACK


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActArguments(OperatorOptions):
    """One simulated robot. It acts with the newest published policy, lets the scripted supervisor (or a person: --operator)
    take over, and uploads every episode to the store. Ctrl-C ends the present episode and uploads what was recorded.

    `sop act --station FILE` runs the robot that a file describes, a real one say: `sop act --station FILE --help`."""

    robot_id: str
    """Name of the robot, unique in the fleet: a-z, 0-9, '_' and '-'."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    task: str = ""
    """Which task; default: the config's."""

    config: str = "restock_demo"
    """An experiment's name, or a run's config.json: world, rates, supervisor, recording."""

    policy: str = ""
    """Directory of the base policy; default: the config's."""

    expert: bool = False
    """The scripted expert acts alone, as fast as the machine allows: demonstrations for the offline buffer."""

    unsupervised: bool = False
    """Nobody takes over."""

    fast: bool = False
    """Don't pace the robot at its control rate."""

    episodes: int | None = None
    """How many episodes to run; default: until stopped. Needed with --expert."""

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
    """Serve the metrics for Prometheus at this port; 0 = any free port. Default: not at all."""

    metrics_host: str = LOOPBACK
    """Network interface of that port; the default can be reached from this machine only."""

    json: bool = False
    """Print one JSON object as the last line."""


_ACTING = ("policy", "spool", "spool_gb", "ledger", "metrics", "metrics_port", "metrics_host")


def run(argv: Sequence[str]) -> int:
    arguments = parse(ActArguments, argv, "act")
    config = find_learning(arguments.config)
    tasks = [world.task for world in config.worlds]
    if not arguments.task and len(tasks) > 1:
        raise UsageError(f"{arguments.config} has several tasks; say which with --task: {', '.join(tasks)}")
    task = arguments.task or tasks[0]
    config = dataclasses.replace(config, world=config.world.for_task(task), tasks=())
    if arguments.has_operator and (arguments.expert or arguments.unsupervised or arguments.fast):
        raise UsageError(
            "a person (--operator, --join-operator) needs a paced robot that may be taken over: leave out "
            "--expert, --unsupervised and --fast"
        )
    if arguments.expert:
        return _demonstrate(arguments, config)
    with contextlib.ExitStack() as stack:
        metrics = open_metrics(
            stack, arguments.robot_id, arguments.metrics, arguments.metrics_port, arguments.metrics_host
        )
        return _act(arguments, config, metrics)


def _demonstrate(arguments: ActArguments, config: DemoConfig) -> int:
    if arguments.episodes is None:
        raise UsageError("--expert needs --episodes N")
    refuse_unused(arguments, _ACTING, "with --expert, whose demonstrations go straight into the store")
    report = demonstrate(
        config.world,
        config.demonstrations.collection,
        arguments.robot_id,
        arguments.episodes,
        arguments.seed,
        arguments.store,
    )
    num_kept = len(report.episode_ids)
    say(f"{arguments.robot_id}: {num_kept} demonstrations of {report.num_tried} tried, {report.num_frames} frames")
    if arguments.json:
        print_json(report)
    return 0


def _act(arguments: ActArguments, config: DemoConfig, metrics: Metrics) -> int:
    clock = WallClock()
    bundle = load_bundle(find_policy(arguments.policy or config.policy))
    conditioning = create_algorithm(config.learning.algorithm).conditioning(Phase.COLLECTING)
    policy = PolicyRunner.from_bundle(bundle, config.fleet.rollout.chunking, conditioning)
    upkeep = Upkeep(
        arguments.store, arguments.spool, arguments.spool_gb, config.fleet.weights_poll_s, config.fleet.drain_s,
        arguments.ledger,
    )  # fmt: skip
    simulated = make_robot(config.world, clock, arguments.robot_id)
    with contextlib.ExitStack() as stack:
        robot, supervisor = _people(arguments, config, simulated, clock, policy, metrics, stack)
        stack.enter_context(contextlib.closing(robot))
        stop = stack.enter_context(StopRequests())
        actor_config = _actor_config(arguments, config, simulated)
        report, uploaded = run_actor(actor_config, upkeep, robot, policy, supervisor, clock, metrics, stop)
    tell_report(arguments.robot_id, report, uploaded, arguments.json)
    return 0


def _people(
    arguments: ActArguments,
    config: DemoConfig,
    robot: SimulatedRobot,
    clock: Clock,
    policy: PolicyRunner,
    metrics: Metrics,
    stack: contextlib.ExitStack,
) -> tuple[Robot, Supervisor | None]:
    """Who may take over, and the robot as they see it."""
    environment = robot.environment
    gate = envs.make_gate(environment)
    if arguments.has_operator:
        console = stack.enter_context(
            open_console(arguments, arguments.robot_id, clock, lambda: policy.version, metrics)
        )
        attended = AttendedRobot(robot, console, photographer=SimulatedPictures(environment))
        return attended, OperatorSupervisor(console, attended, Steering(robot.spec), gate)
    if arguments.unsupervised:
        return robot, None
    expert = envs.make_expert(environment)
    return robot, ScriptedSupervisor(environment, expert, gate, config.fleet.supervisor)


def _actor_config(arguments: ActArguments, config: DemoConfig, robot: SimulatedRobot) -> ActorConfig:
    rollout = dataclasses.replace(config.fleet.rollout, realtime=config.fleet.rollout.realtime and not arguments.fast)
    return ActorConfig(
        robot_id=arguments.robot_id,
        task=config.world.task,
        seed=arguments.seed,
        num_episodes=arguments.episodes,
        supervised=not arguments.unsupervised,
        world=robot.world,
        rollout=with_operator(rollout) if arguments.has_operator else rollout,
        recording=config.fleet.recording,
    )
