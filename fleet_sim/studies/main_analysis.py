"""What the cells of the main-results study say together: rates with intervals, comparisons, times to target, forgetting.

Legend: `S` training seeds, `n` trials.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_sim.studies.grid import Results
from fleet_sim.studies.methods import METHODS, MainResultsConfig, cell_name
from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.paired import (
    compare,
    hierarchical_difference,
    hierarchical_rate,
    success_table,
)
from sop_jax.evaluation.retention import Forgetting, forgetting
from sop_jax.evaluation.statistics import Interval, wilson_interval
from sop_jax.evaluation.time_to_target import CurvePoint, TimeToTarget, time_to_target
from sop_jax.specs.records import Outcome

BASE = "pretrained"


@dataclasses.dataclass(frozen=True)
class TaskFigures:
    """A method on a task, over all its training seeds. `success` has a 95% interval, see `rate_of`.
    `failures`: kind -> number, over all seeds."""

    success: Interval
    episodes_per_h: float
    successes_per_h: float
    failures: Mapping[str, int]
    paper: float | None


@dataclasses.dataclass(frozen=True)
class Spending:
    """What a method took, mean over training seeds; None where nothing was spent.

    human_minutes: people acted. people_minutes: they acted, or set a scene up again (`reset_s` after every episode); watching
        isn't counted.
    """

    robot_hours: float | None
    human_minutes: float | None
    people_minutes: float | None
    learner_steps: float | None
    human_minutes_per_success: float | None
    staleness_s: float | None
    online_share: float | None


@dataclasses.dataclass(frozen=True)
class MethodFigures:
    """A row of the main table."""

    name: str
    label: str
    num_seeds: int
    tasks: Mapping[str, TaskFigures]
    spending: Spending


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two methods on one task, second minus first, with a 95% interval; `p_value` (McNemar, exact) with one seed only."""

    task: str
    first: str
    second: str
    difference: Interval
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class MainAnalysis:
    """Everything that the report shows. `times`: (method's label, task) -> time to 80%. `curves`: the same keys -> per
    training seed, [(seconds, success)]. `forgotten`: method's label -> rows."""

    rows: tuple[MethodFigures, ...]
    contrasts: tuple[Contrast, ...]
    times: Mapping[tuple[str, str], TimeToTarget]
    curves: Mapping[tuple[str, str], Sequence[Sequence[tuple[float, float]]]]
    forgotten: Mapping[str, tuple[Forgetting, ...]]


def analyse(config: MainResultsConfig, results: Results) -> MainAnalysis:
    """Of the cells that are done; methods without a finished cell are left out."""
    runs = {name: found for name in METHODS if (found := _cells_of(config, results, name))}
    rows = tuple(_figures(config, name, cells) for name, cells in runs.items())
    pairs = [(METHODS[name].twin, METHODS[name].label, name) for name in runs if METHODS[name].way == "rounds"]
    contrasts = [
        contrast_of(runs[name], runs[twin], task, label, METHODS[twin].label)
        for twin, label, name in pairs
        if twin in runs
        for task in config.tasks
    ]
    if BASE in runs:
        online = [name for name in runs if METHODS[name].way == "online"]
        contrasts += [
            contrast_of(runs[BASE], runs[name], task, METHODS[BASE].label, METHODS[name].label)
            for name in online
            for task in config.tasks
        ]
    curves = {
        (name, task): found
        for name, cells in runs.items()
        for task in config.tasks
        if (found := curves_in(cells, task))
    }
    return MainAnalysis(
        rows=rows,
        contrasts=tuple(contrasts),
        times={(METHODS[name].label, task): time_to_target(found) for (name, task), found in curves.items()},
        curves={
            (METHODS[name].label, task): [[(point.time_s, point.rate) for point in curve] for curve in found]
            for (name, task), found in curves.items()
        },
        forgotten={METHODS[name].label: rows for name, cells in runs.items() if (rows := _forgotten(runs, cells))},
    )


def trials_of(evaluation: Mapping[str, Any], label: str) -> list[TrialResult]:
    """The trials in one world, as a cell keeps them."""
    return [TrialResult(**{**trial, "outcome": Outcome(trial["outcome"])}) for trial in evaluation[label]["trials"]]


def _cells_of(config: MainResultsConfig, results: Results, name: str) -> list[Mapping[str, Any]]:
    names = [cell_name(name, seed) for seed in range(config.training_seeds)]
    return [results[found] for found in names if found in results]


def _figures(config: MainResultsConfig, name: str, cells: Sequence[Mapping[str, Any]]) -> MethodFigures:
    method = METHODS[name]
    kinds: dict[str, float] = dict(zip(("restock", "laundry", "box"), method.paper or (), strict=False))
    tasks = {}
    for task in config.tasks:
        found = [cell["evaluation"][task]["result"] for cell in cells]
        failures: dict[str, int] = {}
        for result in found:
            for kind, count in result["failures"].items():
                failures[kind] = failures.get(kind, 0) + count
        tasks[task] = TaskFigures(
            success=rate_of([trials_of(cell["evaluation"], task) for cell in cells]),
            episodes_per_h=statistics.fmean(result["throughput_per_hour"] for result in found),
            successes_per_h=statistics.fmean(result["successes_per_hour"] for result in found),
            failures=dict(sorted(failures.items(), key=lambda kind: (-kind[1], kind[0]))),
            paper=kinds.get(task.partition("_")[0]),
        )
    return MethodFigures(name, method.label, len(cells), tasks, spending_of(cells, config.fleet.reset_s))


def rate_of(runs: Sequence[Sequence[TrialResult]]) -> Interval:
    """A success rate over training seeds: Wilson's interval with one of them, else `hierarchical_rate`'s."""
    if len(runs) == 1:
        return wilson_interval(sum(trial.success for trial in runs[0]), len(runs[0]))
    return hierarchical_rate(success_table(runs))


def spending_of(cells: Sequence[Mapping[str, Any]], reset_s: float) -> Spending:
    """Means over a method's cells, one per training seed; `reset_s` of a person's time after every episode."""
    fleets = [cell["fleet"] for cell in cells if "fleet" in cell]
    if not fleets:
        return Spending(None, None, None, None, None, None, None)
    human = [fleet["human_s"] / 60 for fleet in fleets]
    resets = [reset_s / 60 * sum(task["num_episodes"] for task in fleet["tasks"].values()) for fleet in fleets]
    successes = [sum(task["num_successes"] for task in fleet["tasks"].values()) for fleet in fleets]
    ages = [fleet["median_staleness_s"] for fleet in fleets if fleet["median_staleness_s"] is not None]
    return Spending(
        robot_hours=statistics.fmean(fleet["robot_hours"] for fleet in fleets),
        human_minutes=statistics.fmean(human),
        people_minutes=statistics.fmean(human) + statistics.fmean(resets),
        learner_steps=statistics.fmean(fleet["learner_steps"] for fleet in fleets),
        human_minutes_per_success=sum(human) / sum(successes) if sum(successes) else None,
        staleness_s=statistics.fmean(ages) if ages else None,
        online_share=statistics.fmean(fleet["online_share"] for fleet in fleets),
    )


def contrast_of(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    task: str,
    first_label: str,
    second_label: str,
) -> Contrast:
    """Two methods' cells, one per training seed, on the same trials."""
    one, two = ([trials_of(cell["evaluation"], task) for cell in cells] for cells in (first, second))
    if len(one) == len(two) == 1:
        pair = compare(one[0], two[0])
        return Contrast(task, first_label, second_label, pair.difference, pair.p_value)
    paired = len(one) == len(two)
    difference = hierarchical_difference(success_table(one), success_table(two), paired_seeds=paired)
    return Contrast(task, first_label, second_label, difference, None)


def curves_in(cells: Sequence[Mapping[str, Any]], task: str) -> list[list[CurvePoint]]:
    """A curve per training seed."""
    return [
        [
            CurvePoint(point["time_s"], tuple(trial.success for trial in trials_of(point["evaluation"], task)))
            for point in cell["curve"]
        ]
        for cell in cells
        if cell.get("curve")
    ]


def _forgotten(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], cells: Sequence[Mapping[str, Any]]
) -> tuple[Forgetting, ...]:
    """Of the first training seed that is done: what is lost is measured world by world, on paired trials."""
    before = runs[BASE][0].get("retention") if BASE in runs else None
    after = cells[0].get("retention")
    if before is None or after is None or cells is runs[BASE]:
        return ()
    return forgetting(*({label: trials_of(found, label) for label in found} for found in (before, after)))


def mean_success(row: MethodFigures) -> float:
    """Over tasks, each counting alike."""
    return float(np.mean([task.success.value for task in row.tasks.values()]))
