"""A sweep as a table, pictures, plain words and a page."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.learning import SPENT, spent_cells
from fleet_sim.studies.pictures import Scale, lines
from fleet_sim.studies.study import Chapter, Report, Table, Workshop, plain_report
from fleet_sim.studies.sweep_analysis import DynamicsRow, Range, SweepAnalysis, analyse_sweep
from fleet_sim.studies.sweep_words import plain, words_of
from fleet_sim.studies.sweeps import Kind, Sweep, SweepConfig, make_sweep_cells
from sop_jax.evaluation.figures import GREY, ROBOT_COLOURS, draw_svg, share_axis
from sop_jax.evaluation.tables import interval, percent

TITLES: Mapping[Kind, str] = {
    "scaling": "From one robot to a thousand",
    "staleness": "How old the acting weights are, and what that is worth",
    "operators": "How many people a fleet needs",
}

_X_NAMES: Mapping[Kind, str] = {
    "scaling": "robots",
    "staleness": "s between publications",
    "operators": "people",
}

PAPER_TABLE_1: Mapping[int, tuple[float, float]] = {1: (0.805, 173.6), 2: (0.887, 126.5), 4: (0.925, 71.7)}
"""Robots -> success after 180 minutes, minutes to 80% (arXiv 2601.03044, Table I: grocery restocking, real robots)."""

Column = tuple[str, Callable[[DynamicsRow], str]]


def _shown(value: Range, form: Callable[[float], str] = plain) -> str:
    if math.isnan(value.mean):
        return "-"
    mean, low, high = (form(bound) for bound in (value.mean, value.low, value.high))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _shares(value: Range) -> str:
    return _shown(value, "{:.0%}".format)


def _load(row: DynamicsRow) -> str:
    return f"{row.first.name} {row.first.load:.0%}"


_COLUMNS: Mapping[Kind, Sequence[Column]] = {
    "scaling": (
        ("in the replay per hour", lambda row: _shown(row.delivered_per_hour)),
        ("speed-up", lambda row: _shown(row.speed_up)),
        ("of ideal", lambda row: f"{row.speed_up.mean / row.num_robots:.0%}"),
        ("moving", lambda row: _shares(row.moving_share)),
        ("weights' age, s", lambda row: _shown(row.weights_age_s)),
        ("planned", lambda row: plain(row.planned_age_s)),
        ("versions behind", lambda row: _shown(row.versions_behind)),
        ("online in a batch", lambda row: _shares(row.learner_share)),
        ("draws per frame", lambda row: _shown(row.draws_per_frame)),
        ("most loaded", _load),
    ),
    "staleness": (
        ("weights' age, s", lambda row: _shown(row.weights_age_s)),
        ("planned", lambda row: plain(row.planned_age_s)),
        ("versions behind", lambda row: _shown(row.versions_behind)),
        ("a publication's way, s", lambda row: _shown(row.fan_out_s)),
        ("correction latency, s", lambda row: plain(row.correction_latency_s)),
        ("most loaded", _load),
    ),
    "operators": (
        ("robots each", lambda row: f"{row.num_robots / row.x:.3g}"),
        ("people busy", lambda row: _shares(row.operator_load)),
        ("wait, s", lambda row: _shown(row.operator_wait_s)),
        ("episodes lost", lambda row: _shown(row.lost_share, "{:.1%}".format)),
        ("successes per robot-hour", lambda row: _shown(row.successes_per_robot_hour)),
        ("per minute of people", lambda row: _shown(row.successes_per_operator_minute)),
        ("that x people / robots", lambda row: _shown(row.return_on_effort)),
    ),
}


class SweepStudy:
    """Implements Study."""

    def __init__(self, config: SweepConfig):
        self.config = config
        self.kind, self.name = config.kind, config.name

    def cells(self) -> list[Cell]:
        return make_sweep_cells(self.config)

    def runner(self, workshop: Workshop) -> RunCell:
        return Sweep(self.config, workshop.methods).run_cell

    def report(self, results: Results) -> Report:
        return report_sweep(self.config, analyse_sweep(self.config, results))


def report_sweep(config: SweepConfig, analysis: SweepAnalysis) -> Report:
    """Tables of the dynamics by series, and one of what learnt."""
    heads = [_X_NAMES[config.kind], *(head for head, _ in _COLUMNS[config.kind])]
    tables: dict[str, Table] = {
        series: (
            heads,
            [[f"{row.x:g}", *(show(row) for _, show in _COLUMNS[config.kind])] for row in analysis.of_series(series)],
        )
        for series in config.series
    }
    tables["With learning"] = _learning_cells(config, analysis)
    seeds = f"{config.num_seeds} seed{'s' if config.num_seeds > 1 else ''}"
    lead = (
        f"A deployment on virtual time, with drawn episodes: {config.duration_s / 60:.1f} min of it (small fleets for "
        f"longer), of which the first {config.warm_up_s / 60:.1f} min are not measured; {seeds}, brackets and bands are "
        "their least and most."
    )
    chapter = Chapter(
        TITLES[config.kind], config.name, lead, words_of(config, analysis), pictures_of(config, analysis), tables
    )
    return plain_report(chapter, sweep_json(analysis))


def sweep_json(analysis: SweepAnalysis) -> dict[str, Any]:
    """Plain numbers."""
    return {
        "dynamics": [dataclasses.asdict(row) for row in analysis.rows],
        "learning": [dataclasses.asdict(row) for row in analysis.learning],
    }


def pictures_of(config: SweepConfig, analysis: SweepAnalysis) -> dict[str, str]:
    """Heading -> SVG."""
    pictures = _dynamics_pictures(config, analysis)
    if curves := {
        f"{_X_NAMES[config.kind]}: {row.x:g}": [(time_s / 60, rate) for time_s, rate in row.curve]
        for row in analysis.learning
        if row.curve
    }:
        scale = Scale("minutes of the fleet's time", "success")
        pictures["Success while they learn"] = lines(f"{config.kind}_learning", curves, scale)
    return pictures


def _dynamics_pictures(config: SweepConfig, analysis: SweepAnalysis) -> dict[str, str]:
    if config.kind == "scaling":
        return {
            "Speed-up against ideal": _lines(config, analysis, "speed_up", "times one robot's episodes", ideal=True),
            "Age of the acting weights": _lines(config, analysis, "weights_age_s", "seconds"),
            "Share of a batch drawn online": _lines(config, analysis, "learner_share", "", shares=True),
            "Robots at work": _lines(config, analysis, "moving_share", "", shares=True),
        }
    if config.kind == "staleness":
        return {
            "Age of the acting weights": _lines(config, analysis, "weights_age_s", "seconds"),
            "Versions behind": _lines(config, analysis, "versions_behind", "versions"),
        }
    return {
        "Successes per robot-hour": _lines(config, analysis, "successes_per_robot_hour", "successes per hour"),
        "Return on human effort": _lines(config, analysis, "successes_per_operator_minute", "successes per minute"),
        "Waiting for a person": _lines(config, analysis, "operator_wait_s", "seconds"),
        "Episodes lost": _lines(config, analysis, "lost_share", "", shares=True),
    }


def _lines(
    config: SweepConfig, analysis: SweepAnalysis, figure: str, label: str, ideal: bool = False, shares: bool = False
) -> str:
    """A figure against the swept one, a line per series, seeds' least and most as a band; a dotted line is the ideal."""

    def draw(axes: Axes) -> None:
        if not analysis.rows:  # nothing is done yet
            return
        for number, series in enumerate(config.series):
            rows = [row for row in analysis.of_series(series) if not math.isnan(getattr(row, figure).mean)]
            if not rows:
                continue
            colour, xs = ROBOT_COLOURS[number % len(ROBOT_COLOURS)], [row.x for row in rows]
            values = [getattr(row, figure) for row in rows]
            axes.fill_between(xs, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.16, lw=0)
            axes.plot(xs, [v.mean for v in values], "o-", color=colour, lw=1.6, ms=4, label=series)
        xs = sorted({row.x for row in analysis.rows})
        axes.set_xscale("log")
        if ideal:
            axes.plot(xs, xs, color=GREY, lw=1.2, ls=(0, (2, 2)), label="ideal")
        if ideal or (figure.endswith("_s") and config.kind != "operators"):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: plain(value)))
        elif not shares:
            axes.set_ylim(bottom=0)
        if shares:
            share_axis(axes, "y")
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.minorticks_off()
        axes.set_xlabel(_X_NAMES[config.kind])
        axes.set_ylabel(label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=8.5)

    return draw_svg(f"{config.kind}_{figure}", draw, height_in=3.2)


def _learning_cells(config: SweepConfig, analysis: SweepAnalysis) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what learnt; of scaling, the paper's Table I beside it."""
    heads = [_X_NAMES[config.kind], "seeds", "success", "time to 80%", "staleness", "online", *SPENT]
    rows = [
        [
            f"{row.x:g}",
            str(row.num_seeds),
            f"{percent(row.success.value)} {interval(row.success.low, row.success.high)}",
            "-" if row.to_target is None else str(row.to_target),
            "-" if row.spending.staleness_s is None else f"{row.spending.staleness_s:.3g} s",
            "-" if row.spending.online_share is None else percent(row.spending.online_share),
            *spent_cells(row.spending),
        ]
        for row in analysis.learning
    ]
    if config.kind == "scaling":
        heads += ["speed-up", "paper: success after 180 min", "paper: time to 80%", "paper: speed-up"]
        for row, cells in zip(analysis.learning, rows, strict=True):
            cells.append("-" if row.speed_up is None else f"{row.speed_up:.2f}")
            if round(row.x) in PAPER_TABLE_1:
                success, minutes = PAPER_TABLE_1[round(row.x)]
                cells += [f"{success:.1%}", f"{minutes} min", f"{PAPER_TABLE_1[1][1] / minutes:.2f}"]
            else:
                cells += ["-"] * 3
    return heads, rows
