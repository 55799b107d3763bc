"""What an evaluation leaves behind: sentences, films, and the files of its output folder."""

import pathlib
from collections.abc import Mapping, Sequence

from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli.output import jsonable, note
from sop_jax.evaluation.evaluate import SIDE_BY_SIDE, Candidate, Evaluated
from sop_jax.evaluation.evaluation_report import EvaluationReport, render_evaluation
from sop_jax.evaluation.pages import write_page
from sop_jax.evaluation.provenance import describe as describe_machine
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.tables import results_table
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.clock import WallClock

_PAGE_COLUMNS = 5
"""Pictures in a row of a contact sheet that can be read on a page."""


def describe(result: EvaluationResult, label: str = "") -> str:
    """One sentence. `label` says where; without one, the task."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in result.failures.items())
    told = f", told {result.conditioning.describe()}" if result.condition else ""
    return (
        f"{label or result.task}, {result.policy}{told}: success {result.success:.0%} "
        f"[{result.success_low:.0%}, {result.success_high:.0%}] "
        f"in {result.num_trials} trials, {result.successes_per_hour:.0f} successes/h, "
        f"mean episode {result.mean_duration_s:.1f} s" + (f"; failures: {kinds}" if kinds else "")
    )


def film(
    candidate: Candidate,
    world: WorldConfig,
    rollout: RolloutConfig,
    seeds: Sequence[int],
    folder: pathlib.Path,
    videos: bool = True,
    *,
    name: str = "",
    side_by_side: int = SIDE_BY_SIDE,
    columns: int = 8,
) -> pathlib.Path:
    """Runs the trials of these seeds again before a camera team. Writes NAME-SEED.mp4 each; returns the contact sheet."""
    # Only here: it loads JAX and a video encoder into a process that otherwise only waits for its workers.
    import jax  # noqa: PLC0415

    from sop_jax.evaluation.video import film_trials, write_contact_sheet, write_video  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    name = name or world.task
    rows = []
    # Where the workers are, whatever else this machine has: an accelerator's last bits are other trials.
    with jax.default_device(jax.devices("cpu")[0]):
        for take in film_trials(candidate, world, rollout, WallClock(), seeds, side_by_side):
            if videos:
                write_video(take, folder / f"{name}-{take.result.seed}.mp4")
            rows.append(take.thinned(columns))
    write_contact_sheet(rows, sheet := folder / f"{name}.jpg", columns)
    return sheet


def film_failures(
    candidate: Candidate,
    found: Mapping[str, Evaluated],
    rollout: RolloutConfig,
    side_by_side: int,
    num_filmed: int,
    output: pathlib.Path,
) -> dict[str, pathlib.Path]:
    """Films the first failed trials of each world into `output`/failures; returns the contact sheets by label."""
    sheets = {}
    for label, evaluated in found.items():
        seeds = [trial.seed for trial in evaluated.trials if not trial.success][:num_filmed]
        if seeds:
            note(f"{label}: filming {len(seeds)} failed trials ...")
            folder = output / "failures"
            sheets[label] = film(
                candidate,
                evaluated.world,
                rollout,
                seeds,
                folder,
                name=label,
                side_by_side=side_by_side,
                columns=_PAGE_COLUMNS,
            )
    return sheets


def write_output(
    folder: pathlib.Path,
    found: Mapping[str, Evaluated],
    sheets: Mapping[str, pathlib.Path],
    command: str,
    for_selection: bool,
) -> pathlib.Path:
    """Writes results.json, table.md and report.html; returns the report."""
    results = {label: evaluated.result for label, evaluated in found.items()}
    provenance = describe_machine(WallClock().now_ns() / 1e9)
    write_json(
        folder / "results.json",
        jsonable(
            {
                "results": results,
                "worlds": {label: evaluated.world for label, evaluated in found.items()},
                "for_selection": for_selection,
                "command": command,
                "provenance": provenance,
            }
        ),
    )
    (folder / "table.md").write_text(results_table(results), encoding="utf-8")
    seeds = "the seeds are those for choosing a policy" if for_selection else "nobody has practised on these seeds"
    first = next(iter(results.values()))
    title = f"Evaluation of {first.policy}"
    page = render_evaluation(EvaluationReport(title, command, seeds, results, sheets, provenance))
    write_page(page, folder / "report.html")
    return folder / "report.html"
