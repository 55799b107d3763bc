"""The main-results study as a table, a page and plain numbers."""

import dataclasses
import functools
import pathlib
from typing import Any

from matplotlib.axes import Axes

import envs
from fleet_sim.studies.failures import ways_in
from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.main_analysis import MainAnalysis, analyse, mean_success
from fleet_sim.studies.methods import MainResultsConfig, make_cells
from fleet_sim.studies.spending import Besides
from fleet_sim.studies.study import Making, Report, Table, Workshop
from sop_jax.evaluation.figures import BLUE, GREEN, GREY, INK, ORANGE, draw_svg, share_axis
from sop_jax.evaluation.pages import render_page
from sop_jax.evaluation.tables import interval, markdown_table, p_value, percent, points

_COLOURS = {"none": GREY, "demonstrations": GREEN, "rounds": ORANGE, "online": BLUE}


def table_md(config: MainResultsConfig, analysis: MainAnalysis) -> str:
    """The paper's table beside ours, then what was spent, the comparisons, what an hour brings, and failures task by task."""
    heads = ["method", *(f"`{task}`, success (paper)" for task in config.tasks)]
    rows = []
    for row in analysis.rows:
        cells = [f"{row.label}"]
        for figures in row.tasks.values():
            paper = f" ({percent(figures.paper)})" if figures.paper is not None else ""
            cells.append(
                f"{percent(figures.success.value)} {interval(figures.success.low, figures.success.high)}{paper}"
            )
        rows.append(cells)
    spent_heads = (
        "method",
        "seeds",
        "robot hours",
        "minutes people acted",
        "its twin's",
        "with resets",
        "minutes acted per success",
        "learner steps",
        "staleness",
        "online",
    )
    spent = [
        (
            row.label, str(row.num_seeds), _or_dash(row.spending.robot_hours, "{:.2f}"),
            _or_dash(row.spending.human_minutes, "{:.1f}"), _or_dash(row.twin_minutes, "{:.1f}"),
            _or_dash(row.spending.people_minutes, "{:.1f}"),
            _or_dash(row.spending.human_minutes_per_success, "{:.2f}"),
            _or_dash(row.spending.learner_steps, "{:.0f}"), _or_dash(row.spending.staleness_s, "{:.1f} s"),
            _or_dash(row.spending.online_share, "{:.0%}"),
        )
        for row in analysis.rows
    ]  # fmt: skip
    besides = "" if analysis.besides is None else f"{besides_text(analysis.besides)}\n\n"
    tables = (markdown_table(heads, rows), markdown_table(spent_heads, spent), besides + _contrasts_md(analysis))
    per_hour_rows = [(f"`{task}`", *cells) for task in config.tasks for cells in per_hour(analysis, task)]
    failed = [
        f"Failures at `{task}`, by kind and furthest stage reached:\n\n{markdown_table(*table)}"
        for task in config.tasks
        if (table := failure_table(analysis, task)) is not None
    ]
    return "\n".join((*tables, f"Per hour:\n\n{markdown_table(('task', *PER_HOUR), per_hour_rows)}", *failed))


PER_HOUR = (
    "method",
    "episodes/h",
    "paper",
    "successes/h, with resets",
    "the fleet's successes/h, with people and resets",
)
"""Heads of what an hour brings."""


def per_hour(analysis: MainAnalysis, task: str) -> list[tuple[str, ...]]:
    """A row per method, under `PER_HOUR`."""
    return [
        (
            row.label, f"{figures.episodes_per_h:.0f}", _or_dash(figures.paper_per_h, "{:.0f}"),
            f"{figures.successes_per_h:.0f}", _or_dash(figures.fleet_successes_per_h, "{:.0f}"),
        )
        for row in analysis.rows
        if (figures := row.tasks[task])
    ]  # fmt: skip


def failure_table(analysis: MainAnalysis, task: str) -> Table | None:
    """A column per method; all failures, then a row per kind and furthest stage. None: nothing failed."""
    found = {row.label: row.tasks[task] for row in analysis.rows}
    ways = ways_in([figures.failures for figures in found.values()], envs.stages_of(task))
    if not ways:
        return None
    numbers = [[figures.failures.get(stage, {}).get(kind, 0) for figures in found.values()] for stage, kind in ways]
    failed = zip(map(sum, zip(*numbers, strict=True)), found.values(), strict=True)
    rows = [("all", *(f"{number} of {figures.num_trials}" for number, figures in failed))]
    for (stage, kind), of_methods in zip(ways, numbers, strict=True):
        rows.append((f"{kind} at {stage}" if stage else kind, *(str(number or "-") for number in of_methods)))
    return ("failures", *found), rows


def besides_text(besides: Besides) -> str:
    """In a sentence or two."""
    base = f", and {besides.base_steps:,} learner steps on demonstrations for their base" if besides.base_steps else ""
    return (
        "RECAP's methods had more than the table says, made once for all their training seeds: "
        f"{besides.robot_hours:.2f} robot-hours in which the base policy worked unhelped ({besides.reset_minutes:.1f} "
        f"minutes of people for resets) and {besides.value_steps:,} training steps for the value function{base}. They may "
        "be compared with each other and with their base; beside the other methods their budget is larger."
    )


def as_json(analysis: MainAnalysis) -> dict[str, Any]:
    """Plain numbers."""
    return {
        "methods": [{**dataclasses.asdict(row), "mean_success": mean_success(row)} for row in analysis.rows],
        "contrasts": [dataclasses.asdict(contrast) for contrast in analysis.contrasts],
        "time_to_target": [
            {"method": method, "task": task, **dataclasses.asdict(found)}
            for (method, task), found in analysis.times.items()
        ],
        "besides": None if analysis.besides is None else dataclasses.asdict(analysis.besides),
        "forgotten": {method: [dataclasses.asdict(row) for row in rows] for method, rows in analysis.forgotten.items()},
    }


class MainResultsStudy:
    """Implements Study."""

    kind = "main-results"

    def __init__(self, config: MainResultsConfig):
        self.config, self.name = config, config.name

    def cells(self) -> list[Cell]:
        return make_cells(self.config)

    def runner(self, workshop: Workshop) -> RunCell:
        return workshop.methods(self.config).run_cell

    def report(self, results: Results) -> Report:
        analysis = analyse(self.config, results)
        return Report(
            as_json(analysis),
            table_md(self.config, analysis),
            (),
            functools.partial(render_study, self.config, analysis),
        )


def render_study(config: MainResultsConfig, analysis: MainAnalysis, making: Making) -> str:
    """The page as HTML; equal data give an equal page."""
    return render_page(
        "main_template.html",
        pathlib.Path(__file__).parent,
        config=config,
        analysis=analysis,
        command=making.command,
        provenance=making.provenance,
        elapsed_s=making.elapsed_s,
        unfinished=making.unfinished,
        besides="" if analysis.besides is None else besides_text(analysis.besides),
        success={task: success_by_method(analysis, task) for task in config.tasks},
        per_hour_heads=PER_HOUR,
        per_hour={task: per_hour(analysis, task) for task in config.tasks} if analysis.rows else {},
        failures={task: found for task in config.tasks if (found := failure_table(analysis, task)) is not None},
        curves={task: curves_of(analysis, task) for task in config.tasks} if analysis.curves else {},
    )


def success_by_method(analysis: MainAnalysis, task: str) -> str:
    """Success rates with their intervals, one row per method, the first on top; the paper's as a cross."""
    rows = list(reversed(analysis.rows))

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            figures, colour = row.tasks[task], _COLOURS[row.way]
            axes.plot([figures.success.low, figures.success.high], [place, place], color=colour, lw=7, alpha=0.28,
                      solid_capstyle="round")  # fmt: skip
            axes.plot(figures.success.value, place, "o", color=colour, ms=8)
            axes.annotate(f"{figures.success.value:.0%}", (figures.success.value, place), (0, 8),
                          textcoords="offset points", ha="center", color=colour, fontsize=10, fontweight="bold")  # fmt: skip
            if figures.paper is not None:
                axes.plot(figures.paper, place, "x", color=INK, ms=7, mew=1.4)
        labels = [row.label.replace(", then", ",\nthen") for row in rows]
        axes.set_yticks(range(len(rows)), labels, color=INK, fontsize=10)
        axes.set_ylim(-0.5, len(rows) - 0.35)
        axes.grid(axis="y", visible=False)
        share_axis(axes, "x")
        axes.set_xlabel("success rate, 95% interval; crosses: the paper's, on its robots")

    return draw_svg(f"methods_{task}", draw, width_in=8.6, height_in=0.75 + 0.52 * len(rows))


def curves_of(analysis: MainAnalysis, task: str) -> str:
    """Success of held-out evaluations against the fleet's time: a line per training seed."""
    colours = (BLUE, ORANGE, GREEN, "#8b5cf6", "#b83280", "#0e7490")

    def draw(axes: Axes) -> None:
        found = [(method, curves) for (method, of_task), curves in analysis.curves.items() if of_task == task]
        for number, (method, curves) in enumerate(found):
            for seed, curve in enumerate(curves):
                minutes, rates = zip(*((time_s / 60, rate) for time_s, rate in curve), strict=True)
                axes.plot(minutes, rates, "o-", color=colours[number % len(colours)], lw=1.5, ms=4,
                          label=None if seed else method)  # fmt: skip
        axes.axhline(0.8, color=GREY, lw=1, ls=(0, (3, 2)))
        share_axis(axes, "y")
        axes.set_xlabel("minutes of the fleet's time")
        axes.legend(loc="lower right", fontsize=8.5)

    return draw_svg(f"curves_{task}", draw)


def _contrasts_md(analysis: MainAnalysis) -> str:
    rows = [
        (
            f"`{contrast.task}`",
            f"{contrast.second} against {contrast.first}",
            str(contrast.num_seeds),
            f"{points(contrast.difference.value)} [{points(contrast.difference.low)}, {points(contrast.difference.high)}]",
            "-" if contrast.p_value is None else p_value(contrast.p_value),
        )
        for contrast in analysis.contrasts
    ]
    return markdown_table(("task", "what", "seeds", "difference, points", "McNemar's p"), rows)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
