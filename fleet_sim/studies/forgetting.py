"""What a policy that knows other things forgets while it learns one online, by how the learner mixes old and new data.

Retention is looked at while the fleet works: at evenly spaced times, on the trials on which the base policy was seen.

Legend: `S` training seeds, `n` trials, worlds side by side.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.learning import SPENT, Row, rise_text, row_of, spent_cells, success_text
from fleet_sim.studies.main_analysis import (
    BASE,
    EVERY_SEED,
    Contrast,
    cells_by_seed,
    contrast_of,
    rate_of,
    trials_of,
)
from fleet_sim.studies.methods import METHODS, MainResultsConfig, cell_name, make_cells
from fleet_sim.studies.pictures import Scale, exactly, lines
from fleet_sim.studies.study import Chapter, Report, Table, Workshop, plain_report
from sop_jax.evaluation.paired import hierarchical_difference, success_table
from sop_jax.evaluation.retention import forgetting
from sop_jax.evaluation.statistics import Interval
from sop_jax.evaluation.tables import percent
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError

ALL = "all"
"""All worlds together."""


@dataclasses.dataclass(frozen=True)
class ForgettingStudy:
    """Implements Study. methods: the base policy and online methods of one task; its curve's points are the times. worlds:
    those that aren't trained and are looked at, by label: of the retention suite, or what the base policy was made in."""

    name: str
    methods: MainResultsConfig
    worlds: Mapping[str, WorldConfig]

    def __post_init__(self) -> None:
        trained = [self.methods.fleet.world_of(task) for task in self.methods.tasks]
        if not self.worlds or ALL in self.worlds or any(world in trained for world in self.worlds.values()):
            raise ConfigError(
                f"ForgettingStudy {self.name}: expected worlds that aren't trained, by labels other than {ALL!r}, got "
                f"{dict(self.worlds)}"
            )
        if BASE not in self.methods.methods or min(self.methods.curve_points, self.methods.retention_trials) < 1:
            raise ConfigError(
                f"ForgettingStudy {self.name}: needs the method {BASE!r}, curve_points and retention_trials, got "
                f"{self.methods}"
            )

    @property
    def kind(self) -> str:
        return "forgetting"

    def cells(self) -> list[Cell]:
        return make_cells(self.methods)

    def runner(self, workshop: Workshop) -> RunCell:
        def run_cell(cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
            return workshop.methods(self.methods, retained=self.worlds).run_cell(cell, work, results)

        return run_cell

    def report(self, results: Results) -> Report:
        found = analyse_forgetting(self, results)
        kept = {
            ways.row.label: [
                (0.0, exactly(ways.before[ALL])),
                *((t / 60, lost[ALL].kept) for t, lost in ways.times.items()),
            ]
            for ways in found
        }
        learnt = {ways.row.label: [(t / 60, rate) for t, rate in ways.curve.items()] for ways in found}
        scale = Scale("minutes of the fleet's time", "success rate")
        heads = (
            "method",
            f"{self.methods.tasks[0]} after",
            "rise, points",
            *SPENT,
        )
        rows = [
            [
                ways.row.label,
                success_text(ways.row.success),
                rise_text(ways.gain.difference),
                *spent_cells(ways.row.spending),
            ]
            for ways in found
        ]
        tables: dict[str, Table] = {"What was learnt": (heads, rows)}
        for ways in found:
            tables[f"Forgotten: {ways.row.label}"] = _lost_table(ways)
        chapter = Chapter(
            "What is forgotten while one thing is learnt", self.name, self._lead(), words_of_forgetting(self, found),
            {
                "Kept, all worlds together": lines("forgetting_kept", kept, scale),
                f"Learnt meanwhile: {self.methods.tasks[0]}": lines("forgetting_learnt", learnt, scale),
            },
            tables,
        )  # fmt: skip
        return plain_report(chapter, {"methods": [dataclasses.asdict(ways) for ways in found]})

    def _lead(self) -> str:
        study = self.methods
        return (
            f"{study.fleet.num_robots} robots learn {study.tasks[0]} online for {study.duration_s / 60:.1f} min of their "
            f"time, from {pathlib.PurePath(study.policy).name}. {study.retention_trials} trials in each of "
            f"{len(self.worlds)} world(s) that are not trained, paired with the base policy's; {study.num_trials} of the "
            f"task, on reserved seeds; its curve on {study.curve_trials} selection trials. Training seeds: "
            f"{study.training_seeds}."
        )


@dataclasses.dataclass(frozen=True)
class Lost:
    """Success now, and the base policy's less this, paired by trial, with 95% intervals."""

    kept: Interval
    forgotten: Interval


@dataclasses.dataclass(frozen=True)
class Ways:
    """One way to mix. before: world -> the base policy's success. times: seconds -> world -> what was lost by then; worlds
    include "all". curve: seconds -> success at the task (selection trials). gain: of the task, over the base policy."""

    row: Row
    gain: Contrast
    before: Mapping[str, float]
    times: Mapping[float, Mapping[str, Lost]]
    curve: Mapping[float, Interval]


def analyse_forgetting(study: ForgettingStudy, results: Results) -> list[Ways]:
    """Of the methods that have a finished cell; nothing before the base policy has been seen."""
    task, base, found = study.methods.tasks[0], results.get(cell_name(BASE, 0)), []
    for name in METHODS:
        by_seed = cells_by_seed(results, study.methods.training_seeds, functools.partial(cell_name, name))
        if base is None or name == BASE:
            continue
        label, cells = METHODS[name].label, list(by_seed.values())
        gain = contrast_of({EVERY_SEED: base}, by_seed, task, METHODS[BASE].label, label)
        if gain is None:
            continue
        times: dict[float, dict[str, Lost]] = {}
        curve = {}
        for place, point in enumerate(cells[0]["curve"]):
            points = [cell["curve"][place] for cell in cells]
            times[point["time_s"]] = _lost(base["retention"], [one["retention"] for one in points])
            curve[point["time_s"]] = rate_of([trials_of(one["evaluation"], task) for one in points])
        found.append(
            Ways(
                row_of(label, 0, cells, study.methods),
                gain,
                _rates(base["retention"]),
                times,
                curve,
            )
        )
    return found


def words_of_forgetting(study: ForgettingStudy, found: Sequence[Ways]) -> list[str]:
    """What each way to mix keeps."""
    words = []
    for ways in found:
        last = list(ways.times.values())[-1]
        lost = last[ALL].forgotten
        worst = max(study.worlds, key=lambda world: last[world].forgotten.value)
        verdict = (
            "more than chance explains"
            if lost.low > 0
            else "less than none: it got better at them"
            if lost.high < 0
            else "which can't be told from nothing"
        )
        words.append(
            f"{ways.row.label}: {study.methods.tasks[0]} {rise_text(ways.gain.difference)} points; of what the base policy "
            f"could elsewhere ({percent(ways.before[ALL])}) {rise_text(lost)} points were forgotten, {verdict}"
            + (f"; most in {worst} ({rise_text(last[worst].forgotten)})." if len(study.worlds) > 1 else ".")
        )
    return words


def _rates(retention: Mapping[str, Any]) -> dict[str, float]:
    trials = {world: [trial.success for trial in trials_of(retention, world)] for world in retention}
    together = [success for found in trials.values() for success in found]
    return {**{world: float(np.mean(found)) for world, found in trials.items()}, ALL: float(np.mean(together))}


def _lost(before: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> dict[str, Lost]:
    """World -> what the training seeds lost; `after` has one evaluation per seed."""
    pooled = {
        **{world: _table([before], [world]) for world in before},
        ALL: _table([before], list(before)),
    }
    if len(after) == 1:
        rows = forgetting(*({world: trials_of(one, world) for world in before} for one in (before, after[0])))
        forgotten = {row.label: row.forgotten for row in rows}
    else:
        forgotten = {
            world: hierarchical_difference(
                _table(after, list(before) if world == ALL else [world]), np.repeat(table, len(after), axis=0)
            )
            for world, table in pooled.items()
        }
    kept = {world: rate_of([trials_of(one, world) for one in after]) for world in before}
    return {
        world: Lost(kept[world] if world in kept else exactly(_mean_kept(after, before)), lost)
        for world, lost in forgotten.items()
    }


def _mean_kept(after: Sequence[Mapping[str, Any]], before: Mapping[str, Any]) -> float:
    return float(_table(after, list(before)).mean())


def _table(retentions: Sequence[Mapping[str, Any]], worlds: Sequence[str]) -> np.ndarray:
    """Bool [S, n]: a row per evaluation, the worlds' trials side by side."""
    return np.concatenate(
        [success_table([trials_of(found, world) for found in retentions]) for world in worlds], axis=1
    )


def _lost_table(ways: Ways) -> Table:
    """Worlds by times."""
    heads = ["world", "base policy", *(f"after {time_s / 60:.1f} min" for time_s in ways.times)]
    rows = [
        [
            world,
            percent(before),
            *(
                f"{percent(lost[world].kept.value)}, lost {rise_text(lost[world].forgotten)}"
                for lost in ways.times.values()
            ),
        ]
        for world, before in ways.before.items()
    ]
    return heads, rows
