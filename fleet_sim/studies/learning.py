"""What studies of fleets that learn have in common: a row of results, and how it is told."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from fleet_sim.studies.main_analysis import rate_of, trials_of
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.spending import Spending, spending_of
from sop_jax.evaluation.statistics import Interval
from sop_jax.evaluation.tables import interval, percent, points

ONLINE = "sop_hg_dagger"
"""The method that learns, if a study doesn't compare methods."""

SPENT = ("robot hours", "minutes people acted", "with resets", "learner steps")
"""Heads of what a row took."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One way of learning at one value of what the study varies. `success`: 95%, see `main_analysis.rate_of`."""

    label: str
    x: float
    num_seeds: int
    success: Interval
    spending: Spending


def row_of(label: str, x: float, cells: Collection[Mapping[str, Any]], methods: MainResultsConfig) -> Row:
    """Of the cells of all training seeds, at least one, and of the first task."""
    task = methods.tasks[0]
    success = rate_of([trials_of(cell["evaluation"], task) for cell in cells])
    return Row(label, x, len(cells), success, spending_of(cells, methods.fleet.reset_s))


def success_text(success: Interval) -> str:
    """As "90% [81, 95]"."""
    return f"{percent(success.value)} {interval(success.low, success.high)}"


def rise_text(difference: Interval) -> str:
    """As "+17 [+5, +29]", in points."""
    return f"{points(difference.value)} [{points(difference.low)}, {points(difference.high)}]"


def spent_cells(spent: Spending) -> list[str]:
    """Under `SPENT`."""
    shown = (
        (spent.robot_hours, "{:.2f}"), (spent.human_minutes, "{:.1f}"), (spent.people_minutes, "{:.1f}"),
        (spent.learner_steps, "{:,.0f}"),
    )  # fmt: skip
    return ["-" if value is None else form.format(value) for value, form in shown]
