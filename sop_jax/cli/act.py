"""`sop act`: one robot in a process of its own, with the store as the only thing it needs."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import envs
from configs.experiment import DemoConfig
from configs.registry import find_demo
from sop_jax.actors.actor import Actor, ActorConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.actors.weights_feed import BackgroundFeed, InlineFeed
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.collector import demonstrate
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.run_directory import as_store_url, find_policy
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.stopping import StopRequests
from sop_jax.drill.ledger import Ledger
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.world import make_robot
from sop_jax.models.bundle import load_bundle
from sop_jax.monitoring.prometheus import LOOPBACK
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import Episode
from sop_jax.weights.follower import Follower


@dataclasses.dataclass(frozen=True)
class ActArguments:
    """One simulated robot. It acts with the newest published policy, lets the scripted supervisor take over, and uploads
    every episode to the store. Ctrl-C ends the present episode and uploads what was recorded."""

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


def run(argv: Sequence[str]) -> int:
    arguments = parse(ActArguments, argv, "act")
    config = find_demo(arguments.config)
    tasks = [world.task for world in config.worlds]
    if not arguments.task and len(tasks) > 1:
        raise UsageError(f"{arguments.config} has several tasks; say which with --task: {', '.join(tasks)}")
    task = arguments.task or tasks[0]
    config = dataclasses.replace(config, world=dataclasses.replace(config.world, task=task), tasks=())
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
    robot = make_robot(config.world, clock, arguments.robot_id)
    store = EpisodeStore(as_store_url(arguments.store))
    bundle = load_bundle(find_policy(arguments.policy or config.policy))
    conditioning = create_algorithm(config.learning.algorithm).conditioning(Phase.COLLECTING)
    policy = PolicyRunner.from_bundle(bundle, config.fleet.rollout.chunking, conditioning)
    follower = Follower(as_store_url(arguments.store), policy.weights_base, policy.norm_stats)
    feed = BackgroundFeed(
        InlineFeed(follower, policy.trained_template, metrics), clock, policy.version, config.fleet.weights_poll_s
    )
    room = SpoolConfig(max_bytes=round(arguments.spool_gb * 1e9))
    spool = Spool(arguments.spool or pathlib.Path("runs/spool") / arguments.robot_id, store, clock, metrics, room)
    ledger = None if arguments.ledger is None else Ledger(arguments.ledger, spool)
    try:
        # After a restart the robot goes on with new scenes instead of repeating those it has seen.
        first_episode = len(store.list_paths(arguments.robot_id)) + spool.num_pending + spool.num_given_up
        actor = Actor(
            _actor_config(arguments, config, robot, first_episode),
            robot,
            policy,
            ledger or spool,
            clock,
            supervisor=None if arguments.unsupervised else _make_supervisor(robot, config),
            feed=feed,
            metrics=metrics,
            on_episode=lambda episode: _tell(episode, clock),
        )
        with StopRequests(on_request=actor.stop):
            report = actor.run()
            uploaded = spool.drain(config.fleet.drain_s)
    finally:
        feed.close()
        if ledger is not None:
            ledger.close()
        spool.close()
        robot.close()
    if report.num_given_up:
        note(
            f"{report.num_given_up} episodes found no room in the spool and are lost: "
            "give it more (--spool-gb), or a faster link"
        )
    if not uploaded:
        note(f"{spool.num_pending} episodes still wait in the spool; the next start uploads them")
    say(
        f"{arguments.robot_id}: {report.num_episodes} episodes, {report.num_successes} successes, {report.num_swaps} swaps"
    )
    if arguments.json:
        print_json({**dataclasses.asdict(report), "all_uploaded": uploaded})
    return 0


def _actor_config(
    arguments: ActArguments, config: DemoConfig, robot: SimulatedRobot, first_episode: int
) -> ActorConfig:
    rollout = dataclasses.replace(config.fleet.rollout, realtime=config.fleet.rollout.realtime and not arguments.fast)
    return ActorConfig(
        robot_id=arguments.robot_id,
        task=config.world.task,
        seed=arguments.seed,
        first_episode=first_episode,
        num_episodes=arguments.episodes,
        supervised=not arguments.unsupervised,
        world=robot.world,
        rollout=rollout,
        recording=config.fleet.recording,
    )


def _make_supervisor(robot: SimulatedRobot, config: DemoConfig) -> ScriptedSupervisor:
    environment = robot.environment
    return ScriptedSupervisor(
        environment, envs.make_expert(environment), envs.make_gate(environment), config.fleet.supervisor
    )


def _tell(episode: Episode, clock: Clock) -> None:
    manifest = episode.manifest
    helped = f", {manifest.num_interventions} takeovers" if manifest.takeovers else ""
    note(
        f"{clock.now_ns() / 1e9:.1f} {manifest.episode_id} version {manifest.policy_version}: {manifest.outcome.value}"
        f"{' (' + manifest.failure_kind + ')' if manifest.failure_kind else ''}, {manifest.num_frames} frames{helped}"
    )
