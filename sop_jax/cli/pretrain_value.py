"""`sop pretrain --value-of POLICY`: a value function for RECAP, and how far it can be trusted."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import jax
import numpy as np
import tyro
from jaxtyping import Float32

from configs.files import to_json
from configs.registry import find_value_training
from configs.value_training import ValueTrainingConfig
from sop_jax.algorithms.recap.returns import JUDGED, returns, rewards
from sop_jax.algorithms.recap.value_function import NUM_QUANTILES, TaskReturns, ValueFunction
from sop_jax.algorithms.recap.value_regression import ReturnBatches, ReturnModel, ValueRegression
from sop_jax.cli.arguments import UsageError, flag_value, parse
from sop_jax.cli.assembly import draws_seed
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.machine import with_accelerators
from sop_jax.cli.output import note, print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.stopping import StopRequests
from sop_jax.cli.training_episodes import TrainingEpisodes, settle_episodes
from sop_jax.episodes.episode_images import StoredImages
from sop_jax.episodes.retirement import retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.calibration import POSITIVE_SHARE, Judged, TaskCalibration, calibrate, judge
from sop_jax.evaluation.calibration_report import charts, render
from sop_jax.evaluation.provenance import describe as describe_machine
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.stages import StageFinder
from sop_jax.learner.checkpoints import claim_checkpoints
from sop_jax.learner.learner import Learner
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.models.value.bundle import ValueBundle
from sop_jax.models.value.model import ValueConfig, ValueModel, graft_towers
from sop_jax.models.value.registry import create_value_model
from sop_jax.replay.episode_reader import EpisodeReader, Invalid, Unreadable
from sop_jax.replay.items import encode_segment, segments_of
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.loader import Loader
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.specs.identifiers import offline_table, online_table
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.specs.records import CameraSpec, EpisodeManifest, Source, is_same_rate

DEFAULT = "restock_value"
FLAG = "--value-of"
_STEPS_PER_LOOK = 250
_NUM_READERS = 4
_UNLIMITED = MixConfig(online_samples_per_insert=1e12, online_max_size=10**9, offline_max_size=10**9)
"""Nobody fills these tables while they are sampled, so nothing need be held back."""


@dataclasses.dataclass(frozen=True)
class PretrainValueArguments:
    """Trains a value function on an episode store (demonstrations, and a policy's own episodes with their failures), measures
    it on episodes that were held out, and finds each task's threshold. Writes OUTPUT/ with calibration.html in it; RECAP
    takes it as `--learning.algorithm.value-function OUTPUT`. A stopped training goes on where it was."""

    training: Annotated[ValueTrainingConfig, tyro.conf.arg(name="")]
    """The resolved training; every value can be changed on the command line."""

    value_of: str
    """Directory of the policy whose architecture, towers and normalisation the value function has."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    output: pathlib.Path
    """Where the value function goes: a directory that doesn't exist yet."""

    config: str = DEFAULT
    """A value training's name, or a config.json."""

    work: pathlib.Path = pathlib.Path("runs/pretrain-value")
    """Folder for checkpoints and metrics."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    default = PretrainValueArguments(
        find_value_training(flag_value(argv, "--config", DEFAULT)), "", "", pathlib.Path("values/mine")
    )
    arguments = parse(PretrainValueArguments, argv, "pretrain", default)
    if not arguments.store:
        raise UsageError(f"{FLAG} needs --store: the episodes to learn from")
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise UsageError(f"{arguments.output} is not empty: choose another --output, or remove it first")
    started = time.monotonic()
    store = EpisodeStore(as_store_url(arguments.store))
    policy = load_bundle(find_policy(arguments.value_of))
    regression = ValueRegression(arguments.training.held_out_share)
    found = _read_manifests(store, arguments.training.control_hz)
    claim_checkpoints(_checkpoints(arguments), _owner(arguments.training, store, policy))
    episodes = settle_episodes(_checkpoints(arguments), found)
    episodes = dataclasses.replace(episodes, manifests=_of_taught_tasks(episodes.manifests, regression))
    manifests = episodes.manifests
    with StopRequests() as stop:
        bundle = _train(arguments, store, policy, episodes, stop)
    tasks = {task: TaskReturns(episodes.longest[task]) for task in sorted({m.task for m in manifests.values()})}
    value_function = ValueFunction(bundle, arguments.training.returns, tasks)
    judged, left_out = _judge_all(value_function, store, manifests, regression)
    value_function = dataclasses.replace(value_function, tasks=_with_quantiles(tasks, judged))
    calibration = calibrate(judged, value_function)
    fingerprint = value_function.save(arguments.output)
    shutil.rmtree(_checkpoints(arguments), ignore_errors=True)  # not before: a training is long, and the rest may fail
    _write_report(arguments, argv, value_function, judged, left_out, calibration, time.monotonic() - started)
    for task in calibration:
        say(describe(task))
    say(f"{arguments.output}: value function {fingerprint}; see {arguments.output / 'calibration.html'}")
    if arguments.json:
        print_json(
            {
                "output": arguments.output,
                "fingerprint": fingerprint,
                "calibration": calibration,
                "num_left_out": len(left_out),
            }
        )
    return 0


def describe(task: TaskCalibration) -> str:
    """One sentence."""
    auc = "-" if task.auc is None else f"{task.auc:.2f}"
    return (
        f"{task.task}: mean error {task.mean_abs_error:.3f} ({task.mean_abs_error * task.frames_per_unit:.0f} frames; "
        f"{task.baseline_error:.3f} without looking), AUC {auc} on {task.num_episodes} held-out episodes "
        f"({task.num_successes} successes)"
    )


def _read_manifests(store: EpisodeStore, control_hz: float) -> dict[str, EpisodeManifest]:
    """Path -> manifest of the episodes at this rate (their length counts) whose end says how good they were. Raises
    UsageError if there are none."""
    unwanted = {*store.quarantined_paths(), *retired_paths(store)}
    found = {
        summary.path: summary.manifest
        for summary in store.summaries()
        if summary.manifest is not None and summary.manifest.outcome in JUDGED and summary.path not in unwanted
    }
    if not found:
        raise UsageError(f"{store.url} holds no episode that ended in success, failure or timeout")
    fitting = {path: m for path, m in found.items() if is_same_rate(m.control_hz, control_hz)}
    if not fitting:
        rates = sorted({m.control_hz for m in found.values()})
        raise UsageError(
            f"{store.url}: expected episodes at {control_hz:g} Hz (control_hz of the config), got only such at {rates} Hz"
        )
    if len(fitting) < len(found):
        note(f"{len(found) - len(fitting)} of {len(found)} episodes are passed over: they aren't at {control_hz:g} Hz")
    return fitting


def _of_taught_tasks(
    manifests: Mapping[str, EpisodeManifest], regression: ValueRegression
) -> dict[str, EpisodeManifest]:
    """Without the tasks of which every episode is held out: there is nothing to learn them from, and the loader would wait
    for them for ever. Raises UsageError if none is left."""
    taught = {m.task for m in manifests.values() if not regression.is_held_out(m.episode_id)}
    for task, num_episodes in sorted(Counter(m.task for m in manifests.values() if m.task not in taught).items()):
        note(
            f"{task} is left out: all its episodes ({num_episodes}) are held out. Record more, or lower --held-out-share"
        )
    if not taught:
        raise UsageError(
            f"nothing to learn from: all {len(manifests)} episodes are held out. Record more, or lower --held-out-share "
            f"({regression.held_out_share:g})"
        )
    return {path: manifest for path, manifest in manifests.items() if manifest.task in taught}


def _train(
    arguments: PretrainValueArguments,
    store: EpisodeStore,
    policy: PolicyBundle,
    episodes: TrainingEpisodes,
    stop: StopRequests,
) -> ValueBundle:
    """Raises KeyboardInterrupt on stop."""
    training = arguments.training
    config = ValueConfig(policy.config, training.num_bins, training.width)
    model = ReturnModel(create_value_model(config))
    with contextlib.ExitStack() as stack:
        metrics = JsonlMetrics(arguments.work / "metrics" / "learner.jsonl", "learner")
        stack.callback(metrics.close)
        tables_seed = draws_seed(training.seed, arguments.work / "checkpoints")
        batches = ReturnBatches(
            _make_loader(training, store, policy, model, episodes.manifests, metrics, tables_seed),
            _returns_of(episodes, training),
        )
        stack.callback(batches.stop)
        learner = Learner(
            dataclasses.replace(training.learner, seed=training.seed), model,
            ValueRegression(training.held_out_share), _first_params(training, model.value, policy), policy.norm, batches,
            None, metrics, WallClock(), _checkpoints(arguments),
        )  # fmt: skip
        stack.callback(learner.close)
        num_steps = training.learner.num_steps
        with WorkProgress(progress_console, "value function", num_steps) as progress:
            while learner.current_step < num_steps and not stop():
                done = learner.run(min(num_steps, learner.current_step + _STEPS_PER_LOOK), stop)
                progress.update(learner.current_step, f"loss {done.last_loss:.3f}, {done.steps_per_s:.1f} steps/s")
        if stop():
            note(f"stopped at step {learner.current_step}; the same command goes on from there")
            raise KeyboardInterrupt
        params = learner.policy_params()
    return ValueBundle(config, params, policy.norm)


def _checkpoints(arguments: PretrainValueArguments) -> pathlib.Path:
    return (arguments.work / "checkpoints").absolute()


def _owner(training: ValueTrainingConfig, store: EpisodeStore, policy: PolicyBundle) -> dict[str, str]:
    """What a checkpoint belongs to."""
    settings = {f"config.{name}": json.dumps(value) for name, value in to_json(training).items()}
    named = {FLAG: policy.fingerprint, "normalisation": policy.norm.fingerprint, "--store": store.url}
    return {**named, **settings}


def _first_params(training: ValueTrainingConfig, model: ValueModel, policy: PolicyBundle) -> dict:
    params = model.init_params(jax.random.key(training.seed))
    return graft_towers(model, params, policy.params) if training.from_policy else params


def _returns_of(episodes: TrainingEpisodes, training: ValueTrainingConfig) -> dict[str, Float32[np.ndarray, "T"]]:
    """Episode -> normalised returns of its frames."""
    cost = training.returns.failure_cost
    return {
        m.episode_id: returns(rewards(m.num_frames, m.outcome, episodes.longest[m.task], cost)).astype(np.float32)
        for m in episodes.manifests.values()
    }


def _make_loader(
    training: ValueTrainingConfig,
    store: EpisodeStore,
    policy: PolicyBundle,
    model: ReturnModel,
    manifests: Mapping[str, EpisodeManifest],
    metrics: JsonlMetrics,
    tables_seed: int,
) -> Loader:
    """Every judged frame of a task that isn't held out equally likely, whether demonstrated or not. Prompts are the value
    function's own, as it will be asked with them: the policy's may promise a state that isn't there."""
    clock, tasks = WallClock(), sorted({m.task for m in manifests.values()})
    regression = ValueRegression(training.held_out_share)
    tables = LocalTables(mix_tables(tasks, _UNLIMITED), tables_seed, clock)
    read = {path: m for path, m in manifests.items() if not regression.is_held_out(m.episode_id)}
    cameras = _commonest_cameras(read.values())
    fitting = {path: m for path, m in read.items() if {c.name: c for c in m.cameras} == cameras}
    if len(fitting) < len(read):
        note(
            f"{len(read) - len(fitting)} of {len(read)} episodes teach nothing: their cameras aren't {[*cameras.values()]}"
        )
    num_frames = _fill_tables(tables, store, fitting, regression, training.loader.picker.segment_length)
    of_task = {task: num_frames[task, Source.ONLINE] + num_frames[task, Source.OFFLINE] for task in tasks}
    if missing := [task for task, number in of_task.items() if not number]:
        raise UsageError(
            f"no episode of {', '.join(missing)} can be learnt from: those that aren't held out are unreadable or of other "
            "cameras than most, see above"
        )
    shares = {task: num_frames[task, Source.ONLINE] / of_task[task] for task in tasks}
    sampler = SamplerConfig(mode="fixed", fixed_online_shares=shares)
    spec = BatchSpec(
        cameras=tuple(cameras[name] for name in policy.model.cameras if name in cameras),
        state_dim=policy.model.config.state_dim,
        action_dim=policy.model.action_dim,
        horizon=1,
        control_hz=training.control_hz,
    )
    return Loader(
        dataclasses.replace(training.loader, seed=training.seed), spec, model.tokenize, tables, store,
        AdaptiveSampler(sampler, tasks), regression, clock, metrics,
    )  # fmt: skip


def _commonest_cameras(manifests: Iterable[EpisodeManifest]) -> dict[str, CameraSpec]:
    """By name: those of most episodes. A batch has pictures of one size."""
    ((cameras, _),) = Counter(frozenset(m.cameras) for m in manifests).most_common(1)
    return {camera.name: camera for camera in cameras}


def _fill_tables(
    tables: LocalTables,
    store: EpisodeStore,
    manifests: Mapping[str, EpisodeManifest],
    regression: ValueRegression,
    segment_length: int,
) -> Counter[tuple[str, Source]]:
    """Puts episodes into the tables, once they are verified; returns how many frames with images that was, by task and
    source: what can be drawn.

    No `Intake` does it: that takes in what robots have uploaded since `manifests` were read, whose returns nobody knows, and
    sets aside, in a store that others learn from, what has no place here.
    """
    num_frames = Counter[tuple[str, Source]]()
    reader = EpisodeReader(store, None, decode_all_images=False, num_readers=_NUM_READERS)
    for path, episode in reader.read(list(manifests)):
        if isinstance(episode, Invalid | Unreadable):
            note(f"{path} is left out: {episode.reason}")
            continue
        manifest = episode.manifest
        labels = regression.label_frames(manifest, episode.arrays, 1)
        segments = segments_of(manifest, episode.index, episode.arrays, labels, segment_length)
        name = online_table if manifest.source is Source.ONLINE else offline_table
        tables.insert(name(manifest.task), [encode_segment(segment) for segment in segments])
        num_frames[manifest.task, manifest.source] += len(episode.arrays.image_frames)
    return num_frames


def _judge_all(
    value_function: ValueFunction,
    store: EpisodeStore,
    manifests: Mapping[str, EpisodeManifest],
    regression: ValueRegression,
) -> tuple[list[Judged], dict[str, str]]:
    """What the value function thinks of every episode; held-out ones also get their stages from a replay. And path -> reason
    of those that can't be judged: gone or damaged, or of another robot."""
    paths, finder = list(manifests), StageFinder()
    judged: list[Judged] = []
    left_out: dict[str, str] = {}
    with WorkProgress(progress_console, "judging episodes", len(paths)) as progress:
        for number, path in enumerate(paths):
            try:
                judged.append(_judge_one(value_function, store, path, regression, finder))
            except (SopError, ValueError, OSError) as error:
                left_out[path] = str(error)
                note(f"{path} is not judged: {error}")
            progress.update(number + 1)
    finder.close()
    return judged, left_out


def _judge_one(
    value_function: ValueFunction, store: EpisodeStore, path: str, regression: ValueRegression, finder: StageFinder
) -> Judged:
    """Raises SopError, ValueError or OSError if it can't be judged."""
    parsed = store.read_without_images(path)
    held_out = regression.is_held_out(parsed.manifest.episode_id)
    stages = finder.find(parsed.manifest, parsed.arrays) if held_out else None
    images = StoredImages(store, parsed.manifest, parsed.index)
    return judge(value_function, parsed.manifest, parsed.arrays, images, held_out, stages)


def _with_quantiles(tasks: Mapping[str, TaskReturns], judged: Sequence[Judged]) -> dict[str, TaskReturns]:
    """Each task with the quantiles of its held-out frames' advantages.

    Of episodes that it learnt from, a value function half remembers the ends and sees little advantage either way; those
    that will be labelled are as new to it as held-out ones. A task without held-out episodes takes what it has. Raises
    ConfigError if it has none.
    """
    shares, found = np.linspace(0, 1, NUM_QUANTILES), {}
    for name, task in tasks.items():
        own = [j for j in judged if j.manifest.task == name and len(j.advantage)]
        if not own:
            raise ConfigError(
                f"{name}: none of its episodes could be judged, see above, so it has no threshold. Mend the store, and run "
                "the same command again: it goes on from the trained parameters"
            )
        advantages = np.concatenate([j.advantage for j in ([j for j in own if j.held_out] or own)])
        found[name] = dataclasses.replace(task, advantage_quantiles=tuple(np.quantile(advantages, shares).tolist()))
    return found


def _write_report(
    arguments: PretrainValueArguments,
    argv: Sequence[str],
    value_function: ValueFunction,
    judged: Sequence[Judged],
    left_out: Mapping[str, str],
    calibration: Sequence[TaskCalibration],
    elapsed_s: float,
) -> None:
    """calibration.json, calibration.html and one SVG per picture, beside the value function."""
    output, command = arguments.output, " ".join(["sop pretrain", *argv])
    thresholds = {name: task.threshold(POSITIVE_SHARE) for name, task in value_function.tasks.items()}
    machine = with_accelerators(describe_machine(time.time()), jax.devices()[0].device_kind, jax.device_count())
    unjudged = f" ({len(left_out)} more could not be judged)" if left_out else ""
    about = f"{command}: {len(judged)} episodes{unjudged}, {elapsed_s:.0f} s on {machine.hardware}, {machine.created}"
    title = f"Calibration of the value function of {arguments.value_of}"
    (output / "calibration.html").write_text(render(title, calibration, judged, thresholds, about), encoding="utf-8")
    for task in calibration:
        held = [j for j in judged if j.held_out and j.manifest.task == task.task]
        for chart in charts(task, held, thresholds[task.task]):
            name = f"calibration-{task.task}-{chart.title.lower().replace(' ', '-')}.svg"
            (output / name).write_text(chart.svg, encoding="utf-8")
    write_json(
        output / "calibration.json",
        {
            "command": command,
            "machine": dataclasses.asdict(machine),
            "elapsed_s": elapsed_s,
            "thresholds": thresholds,
            "config": to_json(arguments.training),
            "tasks": [dataclasses.asdict(task) for task in calibration],
            "left_out": dict(left_out),
        },
    )
