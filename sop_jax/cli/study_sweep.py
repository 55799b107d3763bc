"""`sop study scaling | staleness | operators`: one figure of a deployment swept, on virtual time."""

import pathlib
import sys
from collections.abc import Callable

from configs.files import to_json
from configs.sweeps import SWEEPS, SweepPreset
from fleet_sim.crew import Engine
from fleet_sim.studies.grid import Grid, GridProgress
from fleet_sim.studies.main_results import MainResults, Places
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.sweep_analysis import analyse_sweep
from fleet_sim.studies.sweep_report import render_sweep, sweep_json, sweep_table
from fleet_sim.studies.sweep_words import words_of
from fleet_sim.studies.sweeps import Sweep, make_sweep_cells
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.collection import collect
from sop_jax.cli.locations import find_policy
from sop_jax.cli.output import jsonable, note, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.evaluation.pages import write_page
from sop_jax.evaluation.provenance import describe
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.specs.clock import WallClock


def find_sweep(study: str, preset: str) -> SweepPreset:
    """Raises UsageError, which names the presets that there are."""
    presets = SWEEPS[study]
    if preset not in presets:
        raise UsageError(f"study {study} has no preset {preset!r}; expected one of {', '.join(presets)}")
    return presets[preset]


def make_grid(preset: SweepPreset, folder: pathlib.Path) -> Grid:
    identity = {"study": preset.study.kind, "preset": to_json(preset)}
    return Grid(folder, identity, make_sweep_cells(preset.study))


def run_cells(
    grid: Grid,
    preset: SweepPreset,
    folder: pathlib.Path,
    num_workers: int,
    engine: Engine,
    should_stop: Callable[[], bool],
) -> None:
    """Runs what isn't done. Raises KeyboardInterrupt."""
    with WorkProgress(progress_console, "cells", len(grid.cells)) as progress:
        present = GridProgress("", 0, len(grid.cells), None)

        def on_cell(told: GridProgress) -> None:
            nonlocal present
            present = told
            progress.update(told.num_done, told.cell)

        def on_progress(text: str) -> None:
            progress.update(present.num_done, f"{present.cell}: {text}")

        def make_learning(study: MainResultsConfig) -> MainResults:
            demonstrations = folder / "demonstrations"
            collect(
                preset.demonstrations, study.fleet.world_of(study.tasks[0]), demonstrations / "store",
                demonstrations / "logs", should_stop,
            )  # fmt: skip
            policy = find_policy(study.policy)
            places = Places(policy, demonstrations / "store", folder / "value", num_workers, engine)
            return MainResults(study, places, _no_value_function, on_progress, should_stop)

        grid.run(Sweep(preset.study, make_learning).run_cell, on_cell, should_stop)


def report(grid: Grid, preset: SweepPreset, folder: pathlib.Path, command: str) -> dict[str, object]:
    """Writes what is known so far; returns the numbers."""
    results = grid.results()
    analysis = analyse_sweep(preset.study, results)
    words = words_of(preset.study, analysis)
    summary = {
        "study": preset.study.kind,
        "preset": preset.study.name,
        "num_cells": len(grid.cells),
        "num_cells_done": len(results),
        "elapsed_s": grid.elapsed_s(),
        "words": words,
        **sweep_json(analysis),
    }
    write_json(folder / "results.json", jsonable(summary))
    table = sweep_table(preset.study, analysis)
    (folder / "table.md").write_text(table, encoding="utf-8")
    provenance = describe(WallClock().now_ns() / 1e9)
    unfinished = grid.unfinished()
    page = render_sweep(preset.study, analysis, command, provenance, grid.elapsed_s(), unfinished)
    write_page(page, folder / "report.html")
    say(table)
    for sentence in words:
        say(sentence)
    if unfinished:
        note(unfinished)
    return summary


def _no_value_function(store: pathlib.Path, output: pathlib.Path) -> None:
    del store, output
    raise UsageError(f"{sys.argv[0]}: a sweep's learning points don't use RECAP")
