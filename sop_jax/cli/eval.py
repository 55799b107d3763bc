"""`sop eval`: success rate with its interval, of a policy or of the scripted expert."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.episode import TrialResult
from sop_jax.actors.rollout import RolloutConfig, never
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.output import print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.weights_location import find_candidate
from sop_jax.evaluation.evaluate import Candidate, evaluate
from sop_jax.evaluation.results import RESET_S, EvaluationResult
from sop_jax.evaluation.seeds import trial_seeds
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.clock import WallClock


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Success rate on trials without help, with its 95% interval. Trials depend on the weights and the seed alone, and their
    seeds are used for nothing else."""

    task: str = "restock_shelf"
    """Which task."""

    expert: bool = False
    """Evaluate the scripted expert instead of weights."""

    weights: str = ""
    """A policy directory, a run (its latest publication) or a store (with --base)."""

    version: int | None = None
    """Which publication of a run or store; 0 is the base policy. Default: the latest."""

    base: str = ""
    """Directory of the base policy that a store's publications build on."""

    trials: int = 100
    """Number of trials."""

    seed: int = 0
    """Which trials: equal seeds give equal scenes and equal policy noise."""

    workers: int = 0
    """Processes; 0 = one per usable core. The result doesn't depend on it."""

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

    video: pathlib.Path | None = None
    """Folder for an mp4 of each of the first trials and a contact sheet of them; the trials are run again for it."""

    video_trials: int = 3
    """How many trials are filmed."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(EvalArguments, argv, "eval")
    if arguments.expert == bool(arguments.weights):
        raise UsageError("say whom to evaluate: either --expert or --weights W")
    if arguments.video is not None and not 1 <= arguments.video_trials <= arguments.trials:
        raise UsageError(f"--video-trials must be 1 .. {arguments.trials} (the number of trials)")
    candidate = (
        Candidate() if arguments.expert else find_candidate(arguments.weights, arguments.version, arguments.base)
    )
    world = WorldConfig(task=arguments.task, image_size=arguments.image_size)
    rollout = RolloutConfig(
        execute_steps=arguments.execute_steps,
        inference_delay_frames=arguments.inference_delay,
        chunking=ChunkingConfig(arguments.chunking, max_guidance_weight=arguments.guidance_weight),
    )
    result = evaluate_with_progress(
        f"{arguments.task}: {candidate.name}",
        candidate,
        world,
        arguments.trials,
        arguments.seed,
        rollout=rollout,
        num_workers=arguments.workers,
        reset_s=arguments.reset_s,
    )
    say(describe(result))
    if arguments.video is not None:
        seeds = trial_seeds(arguments.seed, arguments.trials)[: arguments.video_trials]
        sheet = film(candidate, world, rollout, seeds, arguments.video)
        say(f"videos: {arguments.video}, contact sheet: {sheet}")
    if arguments.json:
        print_json(result)
    return 0


def film(
    candidate: Candidate,
    world: WorldConfig,
    rollout: RolloutConfig,
    seeds: Sequence[int],
    folder: pathlib.Path,
    videos: bool = True,
) -> pathlib.Path:
    """Runs the trials of these seeds again before a camera team. Writes TASK-SEED.mp4 each; returns the contact sheet."""
    # Only here: it loads JAX and a video encoder into a process that otherwise only waits for its workers.
    from sop_jax.evaluation.video import film_trial, write_contact_sheet, write_video  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    takes = []
    for seed in seeds:
        takes.append(film_trial(candidate, world, rollout, WallClock(), seed))
        if videos:
            write_video(takes[-1], folder / f"{world.task}-{seed}.mp4")
    write_contact_sheet(takes, sheet := folder / f"{world.task}.jpg")
    return sheet


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
    should_stop: Callable[[], bool] = never,
) -> EvaluationResult:
    """Evaluates and shows on stderr how far it has come: trials done, success so far, time left."""
    num_done = num_successes = 0
    with WorkProgress(progress_console, what, num_trials) as progress:

        def on_trial(trial: TrialResult) -> None:
            nonlocal num_done, num_successes
            num_done += 1
            num_successes += trial.success
            progress.update(num_done, f"success {num_successes / num_done:.0%}")

        return evaluate(
            candidate,
            world,
            num_trials,
            seed,
            rollout=rollout,
            num_workers=num_workers,
            reset_s=reset_s,
            on_trial=on_trial,
            should_stop=should_stop,
        )


def describe(result: EvaluationResult) -> str:
    """One sentence."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in result.failures.items())
    return (
        f"{result.task}, {result.policy}: success {result.success:.0%} [{result.success_low:.0%}, {result.success_high:.0%}] "
        f"in {result.num_trials} trials, {result.successes_per_hour:.0f} successes/h, "
        f"mean episode {result.mean_duration_s:.1f} s" + (f"; failures: {kinds}" if kinds else "")
    )
