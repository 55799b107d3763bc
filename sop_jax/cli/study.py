"""`sop study`: a grid of experiments with simulated fleets, and one report."""

import dataclasses
import functools
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import tyro

from configs.files import to_json
from configs.studies import MAIN_RESULTS, MainResultsPreset
from fleet_sim.crew import Engine
from fleet_sim.studies.grid import Grid, GridProgress
from fleet_sim.studies.main_analysis import analyse
from fleet_sim.studies.main_report import as_json, render_study, table_md
from fleet_sim.studies.main_results import MainResults, Places
from fleet_sim.studies.methods import make_cells
from sop_jax.cli import study_sweep
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.collection import collect
from sop_jax.cli.locations import find_policy
from sop_jax.cli.output import jsonable, note, print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.stopping import StopRequests
from sop_jax.evaluation.pages import write_page
from sop_jax.evaluation.provenance import describe
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import SopError


class StudyFailedError(SopError):
    """A step of a study that runs as a process of its own did not succeed."""


@dataclasses.dataclass(frozen=True)
class StudyArguments:
    """Runs a study, or goes on with one that was stopped: each cell of the grid is kept as it ends. Writes results.json,
    table.md and report.html into the folder."""

    study: Annotated[Literal["main-results", "scaling", "staleness", "operators"], tyro.conf.Positional]
    """main-results: pre-trained, more demonstrations, offline and online HG-DAgger and RECAP, at equal budgets. scaling: 1 to
    1000 robots, what saturates first. staleness: publications every 5 s to every hour. operators: people for 50 robots."""

    preset: Literal["ci", "shelf", "box", "pair", "small", "ablations", "paper", "dynamics"] = "ci"
    """main-results: ci (one task, minutes), shelf and box (one task), pair (two), small (three tasks, two training seeds,
    hours on two cores), ablations (of the sampler), paper (the paper's size, for a machine with an accelerator). The
    others: ci (seconds), dynamics (minutes, nothing learns), small (with fleets that learn, hours on two cores)."""

    folder: str = ""
    """Folder of the study; default: runs/study-<study>-<preset>."""

    workers: int = 0
    """Workers that play episodes; 0 = one per core of the machine, or of the cluster. The results don't depend on it."""

    engine: Literal["local", "ray"] = "local"
    """Where the fleets' episodes are played: local (processes of this machine), ray (a Ray cluster; its machines reach the
    study's folder and the base policy under the same paths). The results don't depend on it."""

    ray_address: str = ""
    """Of the Ray cluster; default: $RAY_ADDRESS, or a new cluster on this machine."""

    report_only: bool = False
    """Run nothing: report what is done so far."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(StudyArguments, argv, "study")
    folder = pathlib.Path(arguments.folder or f"runs/study-{arguments.study}-{arguments.preset}")
    run_cells, report = _study_of(arguments, folder)
    if not arguments.report_only:
        with StopRequests() as stop:
            try:
                run_cells(folder, arguments.workers, Engine(arguments.engine, arguments.ray_address), stop)
            except KeyboardInterrupt:
                note(f"stopped; go on with the same command: sop study {shlex.join(argv)}")
                return 130
    summary = report(folder, shlex.join(["sop", "study", *argv]))
    say(f"report: {folder / 'report.html'}")
    if arguments.json:
        print_json(summary)
    return 0


def _study_of(
    arguments: StudyArguments, folder: pathlib.Path
) -> tuple[Callable[[pathlib.Path, int, Engine, StopRequests], None], Callable[[pathlib.Path, str], dict[str, object]]]:
    """What runs the study's cells, and what reports on them. Raises UsageError, StudyMismatchError."""
    if arguments.study != "main-results":
        sweep = study_sweep.find_sweep(arguments.study, arguments.preset)
        grid = study_sweep.make_grid(sweep, folder)
        return functools.partial(study_sweep.run_cells, grid, sweep), functools.partial(study_sweep.report, grid, sweep)
    if arguments.preset not in MAIN_RESULTS:
        raise UsageError(
            f"study main-results has no preset {arguments.preset!r}; expected one of {', '.join(MAIN_RESULTS)}"
        )
    preset = MAIN_RESULTS[arguments.preset]
    grid = Grid(folder, {"study": arguments.study, "preset": to_json(preset)}, make_cells(preset.study))
    return functools.partial(_run_cells, grid, preset), functools.partial(_report, grid, preset)


def _run_cells(
    grid: Grid, preset: MainResultsPreset, folder: pathlib.Path, num_workers: int, engine: Engine, stop: StopRequests
) -> None:
    demonstrations = folder / "demonstrations"
    for task in preset.study.tasks:
        collect(
            preset.demonstrations_of(task), preset.demonstrated_of(task), demonstrations / "store",
            demonstrations / "logs", stop,
        )  # fmt: skip
    policy = find_policy(preset.study.policy)
    places = Places(policy, demonstrations / "store", folder / "value", num_workers, engine)

    def train_value_function(store: pathlib.Path, output: pathlib.Path) -> None:
        steps = str(preset.study.value_steps)
        command = [
            sys.executable, "-m", "sop_jax.cli.main", "pretrain", "--value-of", str(policy), "--store", str(store),
            "--output", str(output), "--work", str(store.parent / "value"), "--learner.num-steps", steps,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StudyFailedError(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")

    with WorkProgress(progress_console, "cells", len(grid.cells)) as progress:
        present = GridProgress("", 0, len(grid.cells), None)

        def on_cell(told: GridProgress) -> None:
            nonlocal present
            present = told
            left = "" if told.left_s is None else f", about {told.left_s / 60:.0f} minutes left"
            progress.note(f"cell {told.num_done + 1} of {told.num_cells}: {told.cell}{left}")

        def on_progress(text: str) -> None:
            progress.update(present.num_done, f"{present.cell}: {text}")

        study = MainResults(preset.study, places, train_value_function, on_progress, stop)
        grid.run(study.run_cell, on_cell, stop)


def _report(grid: Grid, preset: MainResultsPreset, folder: pathlib.Path, command: str) -> dict[str, object]:
    """Writes what is known so far; returns the numbers."""
    results = grid.results()
    analysis = analyse(preset.study, results)
    summary = {
        "study": "main-results",
        "preset": preset.study.name,
        "num_cells": len(grid.cells),
        "num_cells_done": len(results),
        "elapsed_s": grid.elapsed_s(),
        **as_json(analysis),
    }
    write_json(folder / "results.json", jsonable(summary))
    table = table_md(preset.study, analysis)
    (folder / "table.md").write_text(table, encoding="utf-8")
    provenance = describe(WallClock().now_ns() / 1e9)
    unfinished = grid.unfinished()
    page = render_study(preset.study, analysis, command, provenance, grid.elapsed_s(), unfinished)
    write_page(page, folder / "report.html")
    say(table)
    if unfinished:
        note(unfinished)
    return summary
