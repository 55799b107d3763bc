"""`sop study`: a grid of experiments with simulated fleets, and one report."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from configs import restock_pretrain, value_training
from configs.files import to_json
from configs.learning_studies import LEARNING_STUDIES
from configs.studies import MAIN_RESULTS
from configs.sweeps import SWEEPS
from fleet_sim.crew import Engine
from fleet_sim.studies.grid import Cell, CellsFailedError, Grid, GridProgress, Results
from fleet_sim.studies.kept_cells import holds_study
from fleet_sim.studies.main_report import MainResultsStudy
from fleet_sim.studies.methods import METHODS
from fleet_sim.studies.study import Study
from fleet_sim.studies.sweep_report import SweepStudy
from sop_jax.cli.arguments import UsageError, parse, refuse_unused
from sop_jax.cli.locations import find_policy
from sop_jax.cli.output import note, print_json, progress_console
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.stopping import StopRequests
from sop_jax.cli.study_report import StudyReport
from sop_jax.cli.study_workshop import Collection, make_workshop
from sop_jax.models.bundle import told_fingerprint
from sop_jax.specs.clock import WallClock

_BRIEF = "dynamics"
"""Cells of this kind take seconds: no line for each."""


@dataclasses.dataclass(frozen=True)
class StudyArguments:
    """Runs a study, or goes on with one that was stopped: each cell of the grid is kept as it ends. Writes results.json,
    table.md and report.html into the folder, of what is done so far too: after cells, and when it is stopped. A cell that
    fails takes with it those that need it only; the exit code is 2 then."""

    study: Annotated[
        Literal[
            "main-results", "scaling", "staleness", "operators", "bases", "demonstrations", "forgetting", "endurance"
        ],
        tyro.conf.Positional,
    ]
    """main-results: pre-trained, more demonstrations, offline and online HG-DAgger and RECAP, at equal budgets. scaling: 1 to
    1000 robots, what saturates first. staleness: publications every 5 s to every hour. operators: people for 50 robots.
    bases: the same online run from base policies of 1/8, 1/2 and all demonstrations. demonstrations: robot time spent on more
    demonstrations against the same time online. forgetting: what a policy loses elsewhere while it learns, by how the learner
    mixes. endurance: one long run with retention; whether success declines, and whether memory and disk grow."""

    preset: Literal["ci", "shelf", "box", "pair", "small", "long", "ablations", "paper", "dynamics", "paced"] = "ci"
    """main-results: ci (one task, minutes), shelf and box (one task), pair (two), small (three tasks, two training seeds,
    hours on two cores), long (the same for three times as long), ablations (of the sampler), paper (the paper's size, for a
    machine with an accelerator).
    scaling, staleness, operators: ci (seconds), dynamics (minutes, nothing learns), small (with fleets that learn, hours on
    two cores). bases, demonstrations, forgetting: ci (minutes), small (an hour or two on two cores). endurance: ci (a quarter
    of an hour of two robots), small (four hours: an hour or two), paper (36 hours of four), paced (the same 36 hours, with
    scenes that take 30 s to set and a fifth of the learner steps, so that two cores keep up with it)."""

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

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"--workers must be at least 0 (one per core), got {self.workers}")


def run(argv: Sequence[str]) -> int:
    arguments = parse(StudyArguments, argv, "study")
    if arguments.engine == "local":
        refuse_unused(arguments, ("ray_address",), "without --engine ray")
    folder = pathlib.Path(arguments.folder or f"runs/study-{arguments.study}-{arguments.preset}")
    chosen = find_study(arguments.study, arguments.preset)
    if arguments.report_only and not holds_study(folder):
        raise UsageError(
            f"--report-only: no study was begun in {folder} (it holds neither study.json nor cells); name its --folder, or "
            "leave --report-only out and begin it there"
        )
    grid = Grid(folder, chosen.identity, chosen.study.cells())
    report, failed = StudyReport(grid, chosen.study, folder, WallClock()), None
    if not arguments.report_only:
        with StopRequests() as stop:
            try:
                _run_cells(grid, chosen, report, arguments, stop)
            except CellsFailedError as error:
                failed = error
            except KeyboardInterrupt:
                report.write_so_far()
                note(f"stopped; go on with the same command: sop study {shlex.join(argv)} (so far: {report.page})")
                return 130
    summary = report.write()
    report.tell()
    if arguments.json:
        print_json(summary)
    if failed is not None:
        raise failed
    return 0


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A study, the demonstrations that it needs, its preset, the policy that it starts from (None: it makes its own, or
    nothing learns), and the configs of the trainings that it runs besides."""

    study: Study
    collections: tuple[Collection, ...]
    preset: Any
    policy: str | None
    trainings: tuple[Any, ...] = ()

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its folder is known by: cells of other policies or trainings can't be compared. Raises UsageError: there is
        no policy."""
        policy = None if self.policy is None else told_fingerprint(find_policy(self.policy))
        trainings = [to_json(training) for training in self.trainings]
        return {"study": self.study.kind, "preset": to_json(self.preset), "policy": policy, "trainings": trainings}


def find_study(kind: str, name: str) -> Chosen:
    """Raises UsageError, which names the presets that there are."""
    presets: Mapping[str, Any] = {"main-results": MAIN_RESULTS, **SWEEPS, **LEARNING_STUDIES}[kind]
    if name not in presets:
        raise UsageError(f"study {kind} has no preset {name!r}; expected one of {', '.join(presets)}")
    preset = presets[name]
    if kind == "main-results":
        needed = tuple((preset.demonstrations_of(task), preset.demonstrated_of(task)) for task in preset.study.tasks)
        learns_values = any(METHODS[name].algorithm == "recap" for name in preset.study.methods)
        trainings = (value_training.CONFIG,) if learns_values else ()
        return Chosen(MainResultsStudy(preset.study), needed, preset, preset.study.policy, trainings)
    if kind in SWEEPS:
        learning = [point.study for point in preset.study.learning[:1]]
        needed = tuple((preset.demonstrations, study.fleet.world_of(study.tasks[0])) for study in learning)
        return Chosen(SweepStudy(preset.study), needed, preset, learning[0].policy if learning else None)
    methods = preset.study.methods
    world = preset.demonstrated or methods.fleet.world_of(methods.tasks[0])
    if kind == "bases":
        return Chosen(preset.study, ((preset.demonstrations, world),), preset, None, (restock_pretrain.CONFIG,))
    return Chosen(preset.study, ((preset.demonstrations, world),), preset, methods.policy)


def _run_cells(grid: Grid, chosen: Chosen, report: StudyReport, arguments: StudyArguments, stop: StopRequests) -> None:
    """Runs what isn't done, and reports as it goes. Raises KeyboardInterrupt, CellsFailedError."""
    kinds = {cell.name: cell.kind for cell in grid.cells}
    with WorkProgress(progress_console, "cells", len(grid.cells)) as progress:
        present = GridProgress("", 0, len(grid.cells), None)

        def on_cell(told: GridProgress) -> None:
            nonlocal present
            present = told
            left = "" if told.left_s is None else f", about {told.left_s / 60:.0f} minutes left"
            line = f"cell {told.num_done + 1} of {told.num_cells}: {told.cell}{left}"
            if kinds[told.cell] == _BRIEF:
                progress.update(told.num_done, line)
            else:
                progress.note(line)

        def on_progress(text: str) -> None:
            progress.update(present.num_done, f"{present.cell}: {text}")

        def run_cell(cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
            # why here: what asks for demonstrations collects them, for a cell that runs, in a folder that nobody else fills
            return chosen.study.runner(workshop)(cell, work, results)

        engine = Engine(arguments.engine, arguments.ray_address)
        workshop = make_workshop(report.folder, chosen.collections, arguments.workers, engine, on_progress, stop)
        grid.run(run_cell, on_cell, stop, progress.note, report.write_now_and_then)
