"""`sop learn`: the learner in a process of its own: sample, update, publish."""

import contextlib
import dataclasses
import pathlib
import signal
from collections.abc import Sequence

import jax

from configs.experiment import DemoConfig
from configs.registry import find_learning
from configs.restock_pretrain import DEMONSTRATIONS_ONLY
from sop_jax.algorithms.algorithm import Algorithm, Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import parse
from sop_jax.cli.assembly import draws_seed, fill_local_tables, make_loader, wait_to_begin, with_seed
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.replay_access import open_tables
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.learner.checkpoints import claim_checkpoints
from sop_jax.learner.hosts import join_hosts
from sop_jax.learner.learner import Learner, LearnerSummary
from sop_jax.learner.lost_checkpoints import refuse_to_start_over
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.sampling.beginning import MAX_WAIT_S, Beginning
from sop_jax.specs.clock import WallClock
from sop_jax.specs.interfaces import Metrics, ReplayTables
from sop_jax.specs.metrics import LOOPBACK, NoMetrics
from sop_jax.weights.publisher import Publisher

LOCAL = "local"
PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a learner that was told to go before its last step: whoever started it should start it again."""


@dataclasses.dataclass(frozen=True)
class LearnArguments:
    """Learns from the replay tables and publishes to the store. Takes up its last checkpoint if there is one. Ctrl-C makes a
    checkpoint and ends; so does SIGTERM (a preempted machine), with exit code 143. On several hosts, run the same command on
    each, with one checkpoint folder that all can reach; a signal to any of them stops all."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://). Frames are read from it."""

    replay: str
    """Address of the replay server, HOST:PORT; or "local": tables in this process, filled once with what the store holds."""

    replay_tls: pathlib.Path | None = None
    """Folder with the certificate to show there (role learner, from launch/tls/ca.sh): ca.crt, tls.crt, tls.key; default:
    $SOP_REPLAY_TLS, or no TLS."""

    config: str = "restock_demo"
    """An experiment's name, or a run's config.json: task, algorithm, learning."""

    policy: str = ""
    """Directory of the base policy; default: the config's."""

    publish_to: str = ""
    """Store root for the publications; default: the same store."""

    demonstrations_only: bool = False
    """Never ask for online data: the control against which online learning is measured."""

    steps: int | None = None
    """Learner steps in all, across restarts; default: the config's."""

    checkpoints: pathlib.Path | None = None
    """Folder for checkpoints; default: none are made, so that a restart once something was published needs --start-over."""

    start_over: bool = False
    """Without a checkpoint, begin at the base policy also where the store holds what was learnt from it: robots swap to
    what is published from there. Where there is a checkpoint, training goes on from it all the same."""

    metrics: pathlib.Path | None = None
    """Folder for the learner's metrics (JSON lines); default: none are written."""

    metrics_port: int | None = None
    """Serve the metrics for Prometheus at this port; 0 = any free port. Default: not at all."""

    metrics_host: str = LOOPBACK
    """Network interface of that port; the default can be reached from this machine only."""

    coordinator: str = ""
    """With several hosts: address of the first, HOST:PORT, or "auto" where JAX finds it (TPU pods, Slurm)."""

    num_processes: int | None = None
    """With a coordinator: number of hosts (of processes: one per host)."""

    process_id: int | None = None
    """With a coordinator: which of them this is, from 0."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(LearnArguments, argv, "learn")
    config = _resolve(arguments)
    if arguments.coordinator:
        join_hosts(arguments.coordinator, arguments.num_processes, arguments.process_id)
    is_first = jax.process_index() == 0
    bundle = load_bundle(find_policy(arguments.policy or config.policy))
    algorithm = create_algorithm(config.learning.algorithm)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequests())
        metrics: Metrics = NoMetrics()
        if is_first:
            metrics = open_metrics(stack, "learner", arguments.metrics, arguments.metrics_port, arguments.metrics_host)
        summary = _learn(arguments, config, bundle, algorithm, metrics, stop)
    say(
        f"{summary.num_steps} steps ({summary.steps_per_s:.1f}/s, waited {summary.wait_share:.0%} of the time), now at step "
        f"{summary.step}, last version {summary.last_version}"
    )
    if arguments.json:
        print_json({**dataclasses.asdict(summary), "steps_per_s": summary.steps_per_s})
    is_preempted = stop.signal is signal.SIGTERM and summary.step < config.learning.learner.num_steps
    return PREEMPTED if is_preempted else 0


def _resolve(arguments: LearnArguments) -> DemoConfig:
    """The experiment with the command line's changes."""
    config = find_learning(arguments.config)
    learning = with_seed(config.learning, config.seed)
    if arguments.steps is not None:
        learning = dataclasses.replace(
            learning, learner=dataclasses.replace(learning.learner, num_steps=arguments.steps)
        )
    if arguments.demonstrations_only:
        learning = dataclasses.replace(learning, sampler=DEMONSTRATIONS_ONLY, min_online_items=0)
    return dataclasses.replace(config, learning=learning)


def _learn(
    arguments: LearnArguments,
    config: DemoConfig,
    bundle: PolicyBundle,
    algorithm: Algorithm,
    metrics: Metrics,
    stop: StopRequests,
) -> LearnerSummary:
    clock, model, learning = WallClock(), bundle.model, config.learning
    store = EpisodeStore(as_store_url(arguments.store))
    fingerprint, norm_fingerprint = bundle.fingerprint, bundle.norm.fingerprint
    publish_to = as_store_url(arguments.publish_to or arguments.store)
    refuse_to_start_over(arguments.checkpoints, publish_to, fingerprint, norm_fingerprint, arguments.start_over)
    if arguments.checkpoints is not None:
        owner = {"base policy": fingerprint, "normalisation": norm_fingerprint}
        claim_checkpoints(arguments.checkpoints, owner, writes=jax.process_index() == 0)
    told = algorithm.conditioning(Phase.EVALUATING)
    publisher = Publisher(publish_to, fingerprint, norm_fingerprint, clock, metrics=metrics, conditioning=told)
    tables: ReplayTables
    if arguments.replay == LOCAL:
        seed = draws_seed(config.seed, arguments.checkpoints)
        tables = fill_local_tables(
            config.replay, config.worlds, algorithm, model.horizon, store, seed, clock, NoMetrics()
        )
    else:
        tables = open_tables(arguments.replay, arguments.replay_tls)
    loader = make_loader(learning, config.worlds, model, algorithm, tables, store, clock, metrics)
    learner = Learner(
        learning.learner, model, algorithm, bundle.params, bundle.norm, loader, publisher, metrics, clock,
        arguments.checkpoints.absolute() if arguments.checkpoints is not None else None,
    )  # fmt: skip
    try:
        # Nobody adds to tables in this process: what they lack now they will lack for ever.
        min_items = 0 if arguments.replay == LOCAL else learning.min_online_items
        beginning = Beginning(algorithm, [world.task for world in config.worlds], min_items, clock)
        note(f"learner ready at step {learner.current_step}{_told_wait(beginning)}")
        wait_to_begin(tables, beginning, clock, metrics, stop)
        summary = learner.run(should_stop=stop)
        if summary.step % learning.learner.publish_every and summary.num_steps:
            learner.publish()  # so that the last steps reach the robots too
    finally:
        loader.stop()
        learner.close()
        tables.close()
    return dataclasses.replace(summary, last_version=learner.last_version)


def _told_wait(beginning: Beginning) -> str:
    if not beginning.num_items:
        return ""
    return f", waiting for {beginning.num_items} online items of any task, {MAX_WAIT_S / 60:.0f} minutes at most"
