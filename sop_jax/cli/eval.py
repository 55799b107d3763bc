"""`sop eval`: success rates with their intervals, of a policy or of the scripted expert."""

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.episode import TrialResult
from sop_jax.actors.rollout import RolloutConfig, never
from sop_jax.cli.arguments import parse, refuse_unused
from sop_jax.cli.eval_compare import compare_evaluations
from sop_jax.cli.eval_output import describe, film, film_failures, write_output
from sop_jax.cli.output import print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.weights_location import find_candidate
from sop_jax.evaluation.evaluate import SIDE_BY_SIDE, Candidate, Evaluated, evaluate_worlds
from sop_jax.evaluation.results import RESET_S, EvaluationResult
from sop_jax.evaluation.suites import find_suite, tasks_suite
from sop_jax.evaluation.world import WorldConfig


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Success rate on trials without help, with its 95% interval. Trials depend on the weights and the seed alone, and their
    seeds are used for nothing else."""

    task: str = "restock_shelf"
    """Which task."""

    tasks: tuple[str, ...] = ()
    """Several tasks, instead of one."""

    suite: Literal["", "main", "restocking", "retention"] = ""
    """A named set of tasks. retention: what is not trained now, and restocking with goods that nobody trains on."""

    trained: tuple[str, ...] = ()
    """The tasks that are being trained: --suite retention leaves them out."""

    expert: bool = False
    """Evaluate the scripted expert instead of weights."""

    weights: str = ""
    """A policy directory, a run (its latest publication) or a store (with --base)."""

    version: int | None = None
    """Which publication of a run or store; 0 is the base policy. Default: the latest."""

    base: str = ""
    """Directory of the base policy that a store's publications build on."""

    condition: str | None = None
    """What the policy is told after its instruction, on a line of its own, as RECAP's "Advantage: positive"; '' = nothing.
    Default: what the run or the publication says; a policy directory says nothing, nor does a run's version 0."""

    beta: float | None = None
    """Scale of classifier-free guidance towards the condition; 1 = the condition alone. Default: 1 with --condition, else
    what the run or the publication says."""

    trials: int = 100
    """Number of trials per task."""

    seed: int = 0
    """Which trials: equal seeds give equal scenes and equal policy noise."""

    selection: bool = False
    """Use the seeds that are kept for choosing a policy or a setting, so that those of the evaluation stay unseen."""

    output: pathlib.Path | None = None
    """Folder for the trials as they end, results.json, table.md and report.html. The same command goes on where it was
    stopped."""

    workers: int = 0
    """Processes; 0 = one per usable core. The result doesn't depend on it."""

    side_by_side: int = SIDE_BY_SIDE
    """Trials that a process runs at once, their inferences in one batch. Another number can change chunks' last bits."""

    execute_steps: int = 8
    """Ticks from the start of one inference to the start of the next."""

    inference_delay: int = 0
    """Ticks from an observation to its chunk of actions; the robot goes on with the last chunk meanwhile."""

    chunking: Literal["none", "guided", "trained"] = "none"
    """Whether a chunk continues the one under way (real-time chunking): guided suits any policy."""

    guidance_weight: float = 5.0
    """How strongly guided chunking pulls towards the chunk under way, at most."""

    reset_s: float = RESET_S
    """Time to set up the scene again after each episode [robot seconds], for successes per hour."""

    image_size: int = 64
    """Height and width of the cameras' images [pixels]."""

    shuffle_instructions: bool = False
    """Tell the robot anything that could be asked for in the scene, and judge it by what was asked for: success falls to
    chance where it hangs on the words."""

    video: pathlib.Path | None = None
    """Folder for an mp4 of each of the first trials and a contact sheet of them; the trials are run again for it."""

    video_trials: int = 3
    """How many trials of each task are filmed."""

    video_failures: int = 0
    """How many of each task's failed trials are filmed, the first ones, into OUTPUT/failures."""

    compare: tuple[pathlib.Path, pathlib.Path] | None = None
    """Two --output folders of evaluations of the same trials: prints second minus first for each task, with its interval and
    p value, and evaluates nothing. With --suite retention: what was forgotten from the first to the second."""

    json: bool = False
    """Print one JSON object as the last line."""

    def __post_init__(self) -> None:
        if self.compare is not None:
            return
        if self.expert == bool(self.weights):
            raise ValueError("say whom to evaluate: either --expert or --weights W")
        if self.video is not None and not 1 <= self.video_trials <= self.trials:
            raise ValueError(f"--video-trials must be 1 .. {self.trials} (the number of trials)")
        if self.video_failures and self.output is None:
            raise ValueError("--video-failures needs a folder: name it with --output")
        if self.tasks and self.suite:
            raise ValueError("say where to evaluate: either --tasks or --suite")
        if self.side_by_side < 1 or self.video_failures < 0:
            raise ValueError("--side-by-side must be at least 1, and --video-failures at least 0")
        if self.workers < 0:
            raise ValueError(f"--workers must be at least 0 (one per core), got {self.workers}")
        if self.expert and (self.version is not None or self.base):
            raise ValueError("--version and --base belong to --weights: the expert has none")
        if self.expert and (self.condition is not None or self.beta is not None):
            raise ValueError("--condition and --beta belong to --weights: the expert is told nothing")
        if self.beta is not None and not (math.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"--beta must be finite and at least 0, got {self.beta:g}")
        if self.version is not None and self.version < 0:
            raise ValueError(f"--version must be at least 0 (the base policy), got {self.version}")
        if self.trained and self.suite != "retention":
            raise ValueError("--trained belongs to --suite retention, which leaves these tasks out")
        if self.reset_s < 0:
            raise ValueError(f"--reset-s must be at least 0, got {self.reset_s:g}")

    @property
    def worlds(self) -> dict[str, WorldConfig]:
        """By label. Raises ConfigError: a task is unknown."""
        if self.suite:
            worlds = find_suite(self.suite, trained=self.trained, image_size=self.image_size)
        else:
            worlds = tasks_suite(self.tasks or (self.task,), self.image_size)
        return {
            label: dataclasses.replace(world, shuffle_instructions=self.shuffle_instructions)
            for label, world in worlds.items()
        }

    @property
    def rollout(self) -> RolloutConfig:
        return RolloutConfig(
            execute_steps=self.execute_steps,
            inference_delay_frames=self.inference_delay,
            chunking=ChunkingConfig(self.chunking, max_guidance_weight=self.guidance_weight),
        )


def run(argv: Sequence[str]) -> int:
    arguments = parse(EvalArguments, argv, "eval")
    if arguments.compare is not None:
        return _compare(arguments, arguments.compare)
    worlds = arguments.worlds
    candidate = _candidate(arguments)
    if not candidate.is_expert:
        say(f"{candidate.name} is told {candidate.conditioning.describe()}")
    found = evaluate_worlds_with_progress(
        candidate,
        worlds,
        arguments.trials,
        arguments.seed,
        rollout=arguments.rollout,
        side_by_side=arguments.side_by_side,
        num_workers=arguments.workers,
        reset_s=arguments.reset_s,
        for_selection=arguments.selection,
        folder=arguments.output,
    )
    for evaluated in found.values():
        say(describe(evaluated.result, evaluated.label))
    if arguments.video is not None:
        _film_first(arguments, candidate, found, arguments.video)
    if arguments.output is not None:
        sheets = film_failures(
            candidate, found, arguments.rollout, arguments.side_by_side, arguments.video_failures, arguments.output
        )
        command = shlex.join(["sop", "eval", *argv])
        say(f"report: {write_output(arguments.output, found, sheets, command, arguments.selection)}")
    if arguments.json:
        results = {label: evaluated.result for label, evaluated in found.items()}
        single = not arguments.tasks and not arguments.suite
        print_json(results[arguments.task] if single else {"results": results, "output": arguments.output})
    return 0


def _compare(arguments: EvalArguments, folders: tuple[pathlib.Path, pathlib.Path]) -> int:
    forgot = arguments.suite == "retention"
    kept = {"compare", "json"} | ({"suite"} if forgot else set())
    unused = [field.name for field in dataclasses.fields(arguments) if field.name not in kept]
    refuse_unused(arguments, unused, "with --compare, which evaluates nothing")
    return compare_evaluations(folders, forgot, arguments.json)


def _candidate(arguments: EvalArguments) -> Candidate:
    if arguments.expert:
        return Candidate()
    return find_candidate(arguments.weights, arguments.version, arguments.base, arguments.condition, arguments.beta)


def evaluate_with_progress(
    what: str,
    candidate: Candidate,
    world: WorldConfig,
    num_trials: int,
    seed: int,
    *,
    rollout: RolloutConfig,
    num_workers: int,
    reset_s: float,
    folder: pathlib.Path | None = None,
    should_stop: Callable[[], bool] = never,
) -> EvaluationResult:
    """Evaluates in one world and shows on stderr how far it has come: trials done, success so far, time left."""
    found = evaluate_worlds_with_progress(
        candidate,
        {world.task: world},
        num_trials,
        seed,
        what=what,
        rollout=rollout,
        num_workers=num_workers,
        reset_s=reset_s,
        folder=folder,
        should_stop=should_stop,
    )
    return found[world.task].result


def evaluate_worlds_with_progress(
    candidate: Candidate,
    worlds: Mapping[str, WorldConfig],
    num_trials: int,
    seed: int,
    *,
    what: str = "",
    **options: Any,
) -> dict[str, Evaluated]:
    """As `evaluate_worlds`, whose `options` it takes; shows on stderr how far it has come."""
    done: dict[str, list[bool]] = {label: [] for label in worlds}
    with WorkProgress(progress_console, what or candidate.name, num_trials * len(worlds)) as progress:

        def on_trial(label: str, trial: TrialResult) -> None:
            done[label].append(trial.success)
            where = f"{label}: " if len(worlds) > 1 else ""
            success = sum(done[label]) / len(done[label])
            progress.update(sum(map(len, done.values())), f"{where}success {success:.0%}")

        return evaluate_worlds(candidate, worlds, num_trials, seed, on_trial=on_trial, **options)


def _film_first(
    arguments: EvalArguments, candidate: Candidate, found: Mapping[str, Evaluated], folder: pathlib.Path
) -> None:
    for label, evaluated in found.items():
        seeds = [trial.seed for trial in evaluated.trials[: arguments.video_trials]]
        sheet = film(
            candidate,
            evaluated.world,
            arguments.rollout,
            seeds,
            folder,
            name=label,
            side_by_side=arguments.side_by_side,
        )
        say(f"videos: {folder}, contact sheet: {sheet}")
