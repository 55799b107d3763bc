"""What the cells of the main-results study say together: rates with intervals, comparisons, times to target, forgetting.

A study that isn't finished has more training seeds of some methods than of others: cells are kept by seed, and what is
compared is of the seeds that both have.

Legend: `S` training seeds, `n` trials.
"""

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

import envs
from fleet_sim.studies.failures import Failures, count_failures
from fleet_sim.studies.grid import Results
from fleet_sim.studies.methods import METHODS, RECAP_BASE_CELL, MainResultsConfig, Method, cell_name
from fleet_sim.studies.spending import Besides, Spending, besides_of, fleet_completions_per_h, spending_of
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
EVERY_SEED = -1
"""The training seed of what isn't trained anew for each of them, and stands beside all: a base policy."""

Cells = Mapping[int, Mapping[str, Any]]
"""Finished cells of one method, by training seed."""


@dataclasses.dataclass(frozen=True)
class TaskFigures:
    """A method on a task, over all its training seeds. `success` has a 95% interval, see `rate_of`. `failures`: of
    `num_trials`, all seeds together.

    episodes_per_h: the paper's throughput: trials ended, successful or not, per hour of policy execution.
    successes_per_h: of trials, with resets. fleet_successes_per_h: what the fleet completed while it learnt, see
        `fleet_completions_per_h`; None where no fleet worked with a policy.
    paper, paper_per_h: the paper's success rate and throughput.
    """

    success: Interval
    episodes_per_h: float
    successes_per_h: float
    fleet_successes_per_h: float | None
    num_trials: int
    failures: Failures
    paper: float | None
    paper_per_h: float | None


@dataclasses.dataclass(frozen=True)
class MethodFigures:
    """A row of the main table. twin_minutes: for how long people acted in the runs whose time this method might spend, mean
    over the same training seeds."""

    name: str
    label: str
    way: Literal["none", "demonstrations", "online", "rounds"]
    num_seeds: int
    tasks: Mapping[str, TaskFigures]
    spending: Spending
    twin_minutes: float | None


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two methods on one task, second minus first, with a 95% interval; `p_value` (McNemar, exact) with one seed only.
    `num_seeds`: training seeds that both have."""

    task: str
    first: str
    second: str
    num_seeds: int
    difference: Interval
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class MainAnalysis:
    """Everything that the report shows. `times`: (method's label, task) -> time to 80%. `curves`: the same keys -> per
    training seed, [(seconds, success)]. `forgotten`: method's label -> rows. `besides`: what RECAP's methods had on top."""

    rows: tuple[MethodFigures, ...]
    contrasts: tuple[Contrast, ...]
    times: Mapping[tuple[str, str], TimeToTarget]
    curves: Mapping[tuple[str, str], Sequence[Sequence[tuple[float, float]]]]
    forgotten: Mapping[str, tuple[Forgetting, ...]]
    besides: Besides | None


def analyse(config: MainResultsConfig, results: Results) -> MainAnalysis:
    """Of the cells that are done; methods without a finished cell are left out."""
    runs = _runs_of(config, results)
    labels = {name: _label_of(name) for name in runs}
    contrasts = [
        contrast_of(runs[first], runs[second], task, labels[first], labels[second])
        for first, second in compared(runs)
        for task in config.tasks
    ]
    curves = {
        (labels[name], task): found
        for name, cells in runs.items()
        for task in config.tasks
        if (found := curves_in(cells.values(), task))
    }
    return MainAnalysis(
        rows=tuple(_figures(config, name, runs) for name in runs),
        contrasts=tuple(contrast for contrast in contrasts if contrast is not None),
        times={key: time_to_target(found) for key, found in curves.items()},
        curves={
            key: [[(point.time_s, point.rate) for point in curve] for curve in found] for key, found in curves.items()
        },
        forgotten={labels[name]: rows for name in runs if (rows := _forgotten(runs, name))},
        besides=besides_of(config, results),
    )


def trials_of(evaluation: Mapping[str, Any], label: str) -> list[TrialResult]:
    """The trials in one world, as a cell keeps them."""
    return [TrialResult(**{**trial, "outcome": Outcome(trial["outcome"])}) for trial in evaluation[label]["trials"]]


def cells_by_seed(results: Results, num_seeds: int, name_of: Callable[[int], str]) -> dict[int, Mapping[str, Any]]:
    """The finished ones of the cells that have this name for a training seed."""
    return {seed: results[name_of(seed)] for seed in range(num_seeds) if name_of(seed) in results}


def compared(names: Iterable[str]) -> list[tuple[str, str]]:
    """Which of these methods stand against which, (first, second): what spends as much as an online twin, what differs from
    another by one thing, and everybody's gain over what they began with."""
    found = list(names)
    pairs = [(name, METHODS[name].twin) for name in found if name in METHODS]
    pairs += [(METHODS[name].against, name) for name in found if name in METHODS]
    recap = [name for name in found if name in METHODS and METHODS[name].algorithm == "recap"]
    gains = [name for name in found if name in (RECAP_BASE_CELL, *recap) or METHODS[name].way == "online"]
    pairs += [(BASE, name) for name in gains]
    pairs += [(RECAP_BASE_CELL, name) for name in recap]
    return [pair for pair in pairs if set(pair) <= set(found)]


def _runs_of(config: MainResultsConfig, results: Results) -> dict[str, Cells]:
    """Rows' names -> cells, base policies first."""
    runs: dict[str, Cells] = {}
    for name, method in METHODS.items():
        cells = cells_by_seed(results, config.training_seeds, functools.partial(cell_name, name))
        if cells:
            runs[name] = {EVERY_SEED: cells[0]} if method.way == "none" else cells
        if name == BASE and "evaluation" in results.get(RECAP_BASE_CELL, {}):
            runs[RECAP_BASE_CELL] = {EVERY_SEED: results[RECAP_BASE_CELL]}
    return runs


def _label_of(name: str) -> str:
    return METHODS[name].label if name in METHODS else "RECAP's base"


def _figures(config: MainResultsConfig, name: str, runs: Mapping[str, Cells]) -> MethodFigures:
    method, cells, label = METHODS.get(name), list(runs[name].values()), _label_of(name)
    if name == RECAP_BASE_CELL:
        label += f": {METHODS[BASE].label}, then {cells[0]['fleet']['learner_steps']:,} steps with the prompt"
    reset_s = config.fleet.reset_s
    return MethodFigures(
        name=name,
        label=label,
        way=method.way if method is not None else "demonstrations",
        num_seeds=len(cells),
        tasks={task: _task_figures(cells, task, method, reset_s) for task in config.tasks},
        spending=spending_of(cells, reset_s),
        twin_minutes=_twin_minutes(runs, name),
    )


def _task_figures(cells: Sequence[Mapping[str, Any]], task: str, method: Method | None, reset_s: float) -> TaskFigures:
    found = [cell["evaluation"][task]["result"] for cell in cells]
    runs = [trials_of(cell["evaluation"], task) for cell in cells]
    works = method is not None and method.way in ("online", "rounds")
    return TaskFigures(
        success=rate_of(runs),
        episodes_per_h=statistics.fmean(result["throughput_per_hour"] for result in found),
        successes_per_h=statistics.fmean(result["successes_per_hour"] for result in found),
        fleet_successes_per_h=fleet_completions_per_h(cells, task, reset_s) if works else None,
        num_trials=sum(map(len, runs)),
        failures=count_failures(itertools.chain.from_iterable(runs), envs.stages_of(task)),
        paper=_of_task(task, method and method.paper),
        paper_per_h=_of_task(task, method and method.paper_per_h),
    )


def _of_task(task: str, papers: Sequence[float | None] | None) -> float | None:
    """The paper's figure for tasks of this kind."""
    by_kind: dict[str, float | None] = dict(zip(("restock", "laundry", "box"), papers or (), strict=False))
    return by_kind.get(task.partition("_")[0])


def _twin_minutes(runs: Mapping[str, Cells], name: str) -> float | None:
    twin = runs.get(METHODS[name].twin, {}) if name in METHODS else {}
    minutes = [twin[seed]["fleet"]["human_s"] / 60 for seed in runs[name] if seed in twin]
    return statistics.fmean(minutes) if minutes else None


def rate_of(runs: Sequence[Sequence[TrialResult]]) -> Interval:
    """A success rate over training seeds: Wilson's interval with one of them, else `hierarchical_rate`'s."""
    if len(runs) == 1:
        return wilson_interval(sum(trial.success for trial in runs[0]), len(runs[0]))
    return hierarchical_rate(success_table(runs))


def contrast_of(first: Cells, second: Cells, task: str, first_label: str, second_label: str) -> Contrast | None:
    """Two methods on the same trials, of the training seeds that both have; None: there is none."""
    both_trained = EVERY_SEED not in first and EVERY_SEED not in second
    seeds = sorted(first.keys() & second.keys()) if both_trained else None
    one, two = (
        [trials_of(cells[seed]["evaluation"], task) for seed in (cells if seeds is None else seeds)]
        for cells in (first, second)
    )
    if not one or not two:
        return None
    num_seeds = max(len(one), len(two))
    if num_seeds == 1:
        pair = compare(one[0], two[0])
        return Contrast(task, first_label, second_label, 1, pair.difference, pair.p_value)
    difference = hierarchical_difference(success_table(one), success_table(two), paired_seeds=both_trained)
    return Contrast(task, first_label, second_label, num_seeds, difference, None)


def curves_in(cells: Iterable[Mapping[str, Any]], task: str) -> list[list[CurvePoint]]:
    """A curve per training seed."""
    return [
        [
            CurvePoint(point["time_s"], tuple(trial.success for trial in trials_of(point["evaluation"], task)))
            for point in cell["curve"]
        ]
        for cell in cells
        if cell.get("curve")
    ]


def _forgotten(runs: Mapping[str, Cells], name: str) -> tuple[Forgetting, ...]:
    """Of the first training seed that is done: what is lost is measured world by world, on paired trials."""
    before = runs[BASE][EVERY_SEED].get("retention") if BASE in runs else None
    after = next(iter(runs[name].values())).get("retention")
    if before is None or after is None or name == BASE:
        return ()
    return forgetting(*({label: trials_of(found, label) for label in found} for found in (before, after)))


def mean_success(row: MethodFigures) -> float:
    """Over tasks, each counting alike."""
    return float(np.mean([task.success.value for task in row.tasks.values()]))
