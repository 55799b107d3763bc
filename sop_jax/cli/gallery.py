"""`sop gallery`: a page with pictures of every task, made from real rollouts of the scripted experts."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import envs
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.eval import evaluate_with_progress, film
from sop_jax.cli.output import print_json, say
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.provenance import describe as describe_machine
from sop_jax.evaluation.results import RESET_S, EvaluationResult
from sop_jax.evaluation.seeds import trial_seeds
from sop_jax.evaluation.world import WorldConfig


@dataclasses.dataclass(frozen=True)
class GalleryArguments:
    """Runs every task's scripted expert, films a few trials, and writes OUTPUT.md with a table and contact sheets."""

    output: pathlib.Path = pathlib.Path("docs/gallery.md")
    """The page. Pictures go into a folder of the same name beside it."""

    tasks: tuple[str, ...] = envs.TASKS
    """Which tasks."""

    trials: int = 20
    """Trials per task, for the table."""

    filmed: int = 3
    """How many of them are shown."""

    seed: int = 0
    """Which trials."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One task in the gallery. `sheet` is relative to the page."""

    result: EvaluationResult
    sheet: pathlib.PurePath


def run(argv: Sequence[str]) -> int:
    arguments = parse(GalleryArguments, argv, "gallery")
    if unknown := sorted(set(arguments.tasks) - set(envs.TASKS)):
        raise UsageError(f"unknown tasks {', '.join(unknown)}: expected some of {', '.join(envs.TASKS)}")
    if not 1 <= arguments.filmed <= arguments.trials:
        raise UsageError(f"--filmed must be 1 .. {arguments.trials} (the number of trials)")
    if arguments.output.suffix != ".md":
        raise UsageError(f"--output must be a page ending in .md, got {arguments.output}")
    exhibits = [_exhibit(task, arguments) for task in arguments.tasks]
    arguments.output.write_text(page(exhibits, arguments), encoding="utf-8")
    say(f"gallery: {arguments.output}")
    if arguments.json:
        print_json({"output": arguments.output, "results": [exhibit.result for exhibit in exhibits]})
    return 0


def page(exhibits: Sequence[Exhibit], arguments: GalleryArguments) -> str:
    """The page as Markdown."""
    date = describe_machine(time.time()).created[:10]
    lines = [
        "# Gallery: the worlds, by their scripted experts",
        "",
        f"Made by `sop gallery --trials {arguments.trials} --seed {arguments.seed}` on {date}. Each row is one trial: the "
        "scene from outside, and beside it what the head, left hand and right hand cameras see.",
        "",
        "| task | expert's success (95% interval) | mean episode | failures |",
        "|---|---|---|---|",
    ]
    for exhibit in exhibits:
        result = exhibit.result
        failures = ", ".join(f"{kind} {count}" for kind, count in result.failures.items()) or "-"
        interval = f"[{100 * result.success_low:.0f}, {100 * result.success_high:.0f}]"
        share = f"{result.num_successes} of {result.num_trials} {interval}"
        lines.append(f"| [`{result.task}`](#{result.task}) | {share} | {result.mean_duration_s:.1f} s | {failures} |")
    for exhibit in exhibits:
        task = exhibit.result.task
        lines += ["", f"## {task}", "", f"![{task}: trials from start to end]({exhibit.sheet.as_posix()})"]
    return "\n".join([*lines, ""])


def _exhibit(task: str, arguments: GalleryArguments) -> Exhibit:
    world, rollout, expert = WorldConfig(task=task), RolloutConfig(), Candidate()
    result = evaluate_with_progress(
        f"{task}: expert",
        expert,
        world,
        arguments.trials,
        arguments.seed,
        rollout=rollout,
        num_workers=0,
        reset_s=RESET_S,
    )
    folder = arguments.output.with_suffix("")
    seeds = trial_seeds(arguments.seed, arguments.filmed)
    sheet = film(expert, world, rollout, seeds, folder, videos=False)
    return Exhibit(result, sheet.relative_to(arguments.output.parent))
