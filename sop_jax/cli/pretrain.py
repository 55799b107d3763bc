"""`sop pretrain`: a base policy from nothing but a seed: demonstrations, behaviour cloning, a policy directory.

WORK keeps what a stopped one goes on from: the demonstrations (`store/`), the checkpoints, then the trained policy
(`policy/`) and its trials (`evaluation/`). OUTPUT appears when nothing is left to do.
"""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import shutil
import time
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import tyro

import envs
from configs.experiment import DemonstrationsConfig, PretrainConfig
from configs.files import to_json
from configs.registry import find_pretraining
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli import pretrain_value
from sop_jax.cli.arguments import UsageError, flag_value, parse
from sop_jax.cli.assembly import draws_seed, fill_local_tables, make_loader, with_seed
from sop_jax.cli.collection import collect
from sop_jax.cli.eval import describe, evaluate_with_progress
from sop_jax.cli.finished_policy import PROVENANCE, hand_over
from sop_jax.cli.locations import find_policy, store_url
from sop_jax.cli.machine import with_accelerators
from sop_jax.cli.output import note, print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.format import ParsedEpisode
from sop_jax.episodes.paths import robot_of_path
from sop_jax.episodes.retirement import retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.provenance import describe as describe_machine
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.checkpoints import claim_checkpoints
from sop_jax.learner.learner import Learner
from sop_jax.models.bundle import PolicyBundle, check_params, load_bundle, told_fingerprint
from sop_jax.models.normalization import NormStats, compute_norm_stats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.specs.records import EpisodeArrays

DEFAULT = "restock_compact"
_STEPS_PER_LOOK = 250
_MAX_LOOKS = 24
"""Learner steps between two looks at the progress bar, and how many looks there are at most: each costs a checkpoint, for
which a fast accelerator waits."""


@dataclasses.dataclass(frozen=True)
class PretrainArguments:
    """Makes a base policy. The demonstrations are a function of the config alone; they are collected into
    WORK/store and kept there, so that a second run starts from them. A stopped run goes on where it was. With
    --value-of POLICY it trains a value function for RECAP instead, on the episodes of a store: see sop pretrain --value-of
    POLICY --help."""

    experiment: Annotated[PretrainConfig, tyro.conf.arg(name="")]
    """The resolved experiment; every value can be changed on the command line."""

    output: pathlib.Path
    """Where the policy goes once it is trained and evaluated: a directory that doesn't exist yet."""

    config: str = DEFAULT
    """An experiment's name, or a config.json."""

    work: pathlib.Path = pathlib.Path("runs/pretrain")
    """Folder for demonstrations, checkpoints and metrics."""

    collect_hours: float = 0.0
    """Only collect demonstrations, so many robot-hours of each task, into WORK/store, and end."""

    start: str = ""
    """A policy to go on from, with its normalisation: a directory. Default: random weights."""

    skip_evaluation: bool = False
    """Don't evaluate the result."""

    json: bool = False
    """Print one JSON object as the last line."""

    @property
    def store(self) -> str:
        return store_url(self.work / "store")

    @property
    def checkpoints(self) -> pathlib.Path:
        return (self.work / "checkpoints").absolute()

    @property
    def trained(self) -> pathlib.Path:
        """Where the policy waits for its evaluation."""
        return self.work / "policy"

    @property
    def evaluation(self) -> pathlib.Path:
        return self.work / "evaluation"


def run(argv: Sequence[str]) -> int:
    if any(word == pretrain_value.FLAG or word.startswith(f"{pretrain_value.FLAG}=") for word in argv):
        return pretrain_value.run(argv)
    experiment = find_pretraining(flag_value(argv, "--config", DEFAULT))
    default = PretrainArguments(experiment, pathlib.Path(f"assets/policies/{experiment.name}"))
    arguments = parse(PretrainArguments, argv, "pretrain", default)
    config = arguments.experiment
    for world in config.worlds:
        if world.task not in envs.TASKS:
            raise UsageError(f"unknown task {world.task!r}: expected one of {', '.join(envs.TASKS)}")
    if arguments.collect_hours:
        return _collect_only(arguments)
    _check(arguments)
    command, started_s = shlex.join(["sop", "pretrain", *argv]), time.monotonic()
    with StopRequests() as stop:
        for world, demonstrations in _collections(config):
            collect(demonstrations, world, arguments.work / "store", arguments.work / "logs", stop)
        provenance = _train(arguments, command, started_s, stop)
        trained_s, results = time.monotonic(), []
        if not arguments.skip_evaluation:
            note("evaluating; if it is stopped, the same command goes on with it, and --skip-evaluation leaves it out")
            results = [_evaluate(arguments, world, stop) for world in config.worlds]
    elapsed_s = provenance["elapsed_s"] + time.monotonic() - trained_s
    evaluation = [dataclasses.asdict(result) for result in results]
    write_json(arguments.trained / PROVENANCE, {**provenance, "elapsed_s": elapsed_s, "evaluation": evaluation})
    fingerprint = told_fingerprint(arguments.trained)
    hand_over(arguments.trained, arguments.output)
    # Not before: until here, a stopped run goes on from them.
    shutil.rmtree(arguments.checkpoints, ignore_errors=True)
    shutil.rmtree(arguments.evaluation, ignore_errors=True)
    say(f"{arguments.output}: policy {fingerprint}, made in {elapsed_s / 60:.1f} minutes")
    if arguments.json:
        print_json(
            {"output": arguments.output, "fingerprint": fingerprint, "elapsed_s": elapsed_s, "evaluation": results}
        )
    return 0


def _evaluate(arguments: PretrainArguments, world: WorldConfig, stop: StopRequests) -> EvaluationResult:
    """Raises KeyboardInterrupt on stop; the trials that have ended count in the next call."""
    evaluation = arguments.experiment.evaluation
    result = evaluate_with_progress(
        f"{world.task}: {arguments.output}", Candidate(bundle=str(arguments.trained)), world,
        evaluation.num_trials, evaluation.seed, rollout=evaluation.rollout, num_workers=evaluation.num_workers,
        reset_s=evaluation.reset_s, folder=arguments.evaluation, should_stop=stop,
    )  # fmt: skip
    result = dataclasses.replace(result, policy=arguments.output.name)
    say(describe(result))
    return result


def _collect_only(arguments: PretrainArguments) -> int:
    """A data set of several tasks in one store."""
    if arguments.collect_hours < 0:
        raise UsageError(f"--collect-hours must be above 0, got {arguments.collect_hours:g}")
    if (arguments.work / "config.json").exists():
        raise UsageError(f"{arguments.work} holds a policy's demonstrations: choose another --work for a collection")
    counts: dict[str, int] = {}
    with StopRequests() as stop:
        for world in arguments.experiment.worlds:
            task = world.task
            demonstrations = dataclasses.replace(
                arguments.experiment.demonstrations.for_task(task), robot_hours=arguments.collect_hours
            )
            store, logs = arguments.work / "store", arguments.work / "logs"
            counts[task] = collect(demonstrations, world, store, logs, stop)
            say(f"{task}: {counts[task]} demonstrations, {arguments.collect_hours:g} robot-hours, in {store}")
    if arguments.json:
        print_json({"store": arguments.work / "store", "num_episodes": counts})
    return 0


def _check(arguments: PretrainArguments) -> None:
    """Refuses now what would fail after an hour."""
    config, saved = arguments.experiment, arguments.work / "config.json"
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise UsageError(f"{arguments.output} is not empty: choose another --output, or remove it first")
    if config.model not in PRESETS:
        raise ConfigError(f"unknown model {config.model!r}: expected one of {', '.join(PRESETS)}")
    if arguments.start:
        check_params(create_model(PRESETS[config.model]), _load_start(arguments).params, arguments.start)
    if saved.exists() and find_pretraining(str(saved)) != config:
        raise UsageError(
            f"{arguments.work} holds the work of another config: choose another --work, or remove it first"
        )
    wanted = {name for _, demonstrations in _collections(config) for name in demonstrations.collectors}
    robots = {robot_of_path(path) for path in EpisodeStore(arguments.store).list_paths()}
    if strangers := sorted(robots - wanted):
        raise UsageError(
            f"{arguments.work}/store holds episodes of {', '.join(strangers)}, which are no demonstrations of this config: "
            "choose another --work, or remove it first"
        )
    write_json(saved, to_json(config))


def _collections(config: PretrainConfig) -> list[tuple[WorldConfig, DemonstrationsConfig]]:
    """Every task's world and what is demonstrated in it."""
    return [
        (world, config.demonstrations.for_task(world.task) if config.tasks else config.demonstrations)
        for world in config.worlds
    ]


def _load_start(arguments: PretrainArguments) -> PolicyBundle:
    return load_bundle(find_policy(arguments.start))


def _train(arguments: PretrainArguments, command: str, started_s: float, stop: StopRequests) -> dict[str, Any]:
    """Clones the demonstrations into WORK/policy; returns its provenance so far, which lies there too, written last. What an
    earlier call has trained stays as it is. Raises KeyboardInterrupt on stop."""
    config, made = arguments.experiment, arguments.trained
    start = _load_start(arguments) if arguments.start else None
    owner = {"--start": "random weights"}
    if start is not None:
        owner = {"--start": start.fingerprint, "normalisation": start.norm.fingerprint}
    claim_checkpoints(arguments.checkpoints, owner)
    if (made / PROVENANCE).exists():
        provenance = json.loads((made / PROVENANCE).read_text(encoding="utf-8"))
        if provenance["start"] == owner:
            note(f"trained before: {made}")
            return provenance
    bundle = _clone(arguments, start, stop)
    shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(arguments.evaluation, ignore_errors=True)  # trials of another policy
    bundle.save(made)
    machine = with_accelerators(describe_machine(time.time()), jax.devices()[0].device_kind, jax.device_count())
    provenance = {
        "command": command,
        "machine": dataclasses.asdict(machine),
        "elapsed_s": time.monotonic() - started_s,
        "evaluation": [],
        "start": owner,
        "config": to_json(config),
    }
    write_json(made / PROVENANCE, provenance)
    return provenance


def _read_demonstrations(store: EpisodeStore) -> list[ParsedEpisode]:
    """All but those that are set aside or retired. Raises InvalidEpisodeError: one is torn, and nobody has looked yet."""
    unwanted = {*store.quarantined_paths(), *retired_paths(store)}
    return [store.read_without_images(path) for path in store.list_paths() if path not in unwanted]


def _clone(arguments: PretrainArguments, start: PolicyBundle | None, stop: StopRequests) -> PolicyBundle:
    """The policy that was learnt from the demonstrations. Raises KeyboardInterrupt on stop."""
    config = arguments.experiment
    store = EpisodeStore(arguments.store)
    model_config = PRESETS[config.model]
    model = create_model(model_config)
    if start is not None:
        params, norm = start.params, start.norm
    else:
        params = model.init_params(jax.random.key(config.seed))
        norm = compute_norm_stats(take_evenly(_read_demonstrations(store)), model.horizon)
    with contextlib.ExitStack() as stack:
        metrics = JsonlMetrics(arguments.work / "metrics" / "learner.jsonl", "learner")
        stack.callback(metrics.close)
        learner = _make_learner(arguments, config, model, params, norm, store, metrics, stack)
        num_steps = config.learning.learner.num_steps
        with WorkProgress(progress_console, "behaviour cloning", num_steps) as progress:
            steps_per_look = max(_STEPS_PER_LOOK, num_steps // _MAX_LOOKS)
            while learner.current_step < num_steps and not stop():
                done = learner.run(min(num_steps, learner.current_step + steps_per_look), stop)
                progress.update(learner.current_step, f"loss {done.last_loss:.4f}, {done.steps_per_s:.1f} steps/s")
        if stop():
            note(f"stopped at step {learner.current_step}; the same command goes on from there")
            raise KeyboardInterrupt
        return PolicyBundle(model_config, learner.policy_params(), norm)


def take_evenly(episodes: Sequence[ParsedEpisode]) -> list[EpisodeArrays]:
    """Of every task as many frames, to the nearest episode, as there are of the scarcest: a T-shirt has fifteen times the
    frames of an item to shelve, and would decide alone what counts as a large motion."""
    by_task: dict[str, list[EpisodeArrays]] = {}
    for episode in episodes:
        by_task.setdefault(episode.manifest.task, []).append(episode.arrays)
    least = min(sum(arrays.num_frames for arrays in found) for found in by_task.values())
    taken: list[EpisodeArrays] = []
    for found in by_task.values():
        num_frames = 0
        for arrays in found:
            if num_frames < least:
                taken.append(arrays)
                num_frames += arrays.num_frames
    return taken


def _make_learner(
    arguments: PretrainArguments,
    config: PretrainConfig,
    model: PolicyModel,
    params: Params,
    norm: NormStats,
    store: EpisodeStore,
    metrics: JsonlMetrics,
    stack: contextlib.ExitStack,
) -> Learner:
    """A learner on the work folder's demonstrations; `stack` closes it and its loader."""
    clock = WallClock()
    learning = with_seed(config.learning, config.seed)
    algorithm = create_algorithm(learning.algorithm)
    seed = draws_seed(config.seed, arguments.checkpoints)
    tables = fill_local_tables(config.replay, config.worlds, algorithm, model.horizon, store, seed, clock, metrics)
    loader = make_loader(learning, config.worlds, model, algorithm, tables, store, clock, metrics)
    stack.callback(loader.stop)
    learner = Learner(
        learning.learner, model, algorithm, params, norm, loader, None, metrics,
        clock, arguments.checkpoints,
    )  # fmt: skip
    stack.callback(learner.close)
    return learner
