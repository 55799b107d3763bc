"""The long run as words, pictures and tables."""

import dataclasses
import math

from fleet_sim.studies.endurance_analysis import FIGURES, FLAT, HOUR_S, Endurance, Held
from fleet_sim.studies.learning import rise_text, success_text
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.pictures import Scale, exactly, lines
from fleet_sim.studies.study import Chapter, Report, Table, plain_report
from sop_jax.evaluation.statistics import Interval
from sop_jax.evaluation.tables import points

_MB = 1e6
_UNMEASURED = "not measured"
_NO_INTERVAL = "(too few looks for an interval)"
_TOLD = {
    "flat": f"Flat over the second half, surely within {FLAT:.0%} of the mean",
    "grows": "It grows",
    "shrinks": "It shrinks",
    "not told": "Neither can be told of",
}


def report_endurance(name: str, lead: str, methods: MainResultsConfig, found: Endurance) -> Report:
    """Everything that is known so far."""
    unit, per_unit = ("hours", HOUR_S) if methods.duration_s >= 2 * HOUR_S else ("minutes", 60.0)
    curve = [(time_s / per_unit, rate) for time_s, rate in found.curve]
    scale = Scale(f"{unit} of the fleet's time", "success rate, 95% interval")
    pictures = {"Success while the fleet worked on": lines("endurance_success", {"success": curve}, scale)}
    for figure, told in FIGURES.items():
        by = _MB if figure.endswith("bytes") else 1.0
        if found.looks and figure not in found.unmeasured:
            line = [(look.time_s / per_unit, exactly(getattr(look, figure) / by)) for look in found.looks]
            y = "MB" if by > 1 else ""
            pictures[told.capitalize()] = lines(f"endurance_{figure}", {told: line}, Scale(scale.x, y, is_share=False))
    tables: dict[str, Table] = {
        "Success": (
            (unit, "success on selection trials"),
            [[f"{x:.3g}", success_text(rate)] for x, rate in curve],
        ),
        "Held over the second half": (
            ("what", "mean", "least", "most", "per virtual hour", "change over the half", "verdict"),
            [_held_cells(held) for held in found.held]
            + [[FIGURES[name], *["-"] * 5, _UNMEASURED] for name in found.unmeasured],
        ),
    }
    chapter = Chapter("The long run", name, lead, words_of_endurance(found), pictures, tables)
    verdicts = {held.name: held.verdict for held in found.held} | dict.fromkeys(found.unmeasured, _UNMEASURED)
    numbers = {**dataclasses.asdict(found), "verdicts": verdicts}
    return plain_report(chapter, numbers)


def words_of_endurance(found: Endurance) -> list[str]:
    """Whether success declines, and what grows."""
    words = []
    if found.fleet is not None:
        fleet = found.fleet
        words.append(
            f"{fleet['robot_hours']:.2f} robot-hours, {fleet['human_s'] / 60:.1f} minutes of people at the controls, "
            f"{fleet['learner_steps']:,} learner steps, {fleet['num_publications']:,} publications."
        )
    if found.change is not None:
        words.append(_verdict(found.change))
    for verdict, told in _TOLD.items():
        names = [held for held in found.held if held.verdict == verdict]
        if names:
            words.append(f"{told}: " + ", ".join(_named(held) for held in names) + ".")
    if found.unmeasured:
        names = ", ".join(FIGURES[name] for name in found.unmeasured)
        words.append(f"Not measured: {names} (the processes aren't children of the simulation's, as on a Ray cluster).")
    return words


def _verdict(change: Interval) -> str:
    told = f"Over the second half the line through success goes {rise_text(change)} points: "
    if change.high < 0:
        return told + "it declines."
    if change.low > 0:
        return told + "it still rises."
    return told + f"a decline can't be told from none, and one of up to {points(change.low)} can't be ruled out."


def _named(held: Held) -> str:
    if held.verdict == "flat":
        return FIGURES[held.name]
    return f"{FIGURES[held.name]} ({_slope(held)} per virtual hour, {_change(held)} over the half)"


def _held_cells(held: Held) -> list[str]:
    values = [_shown(held.name, value) for value in (held.mean, held.low, held.high)]
    return [FIGURES[held.name], *values, _slope(held), _change(held), held.verdict]


def _slope(held: Held) -> str:
    value, low, high = (
        _shown(held.name, bound, "+") for bound in (held.per_hour.value, held.per_hour.low, held.per_hour.high)
    )
    return f"{value} {_NO_INTERVAL}" if math.isinf(held.per_hour.high) else f"{value} [{low}, {high}]"


def _change(held: Held) -> str:
    value, low, high = held.change.value, held.change.low, held.change.high
    return f"{value:+.1%} {_NO_INTERVAL}" if math.isinf(high) else f"{value:+.1%} [{low:+.1%}, {high:+.1%}]"


def _shown(name: str, value: float, sign: str = "") -> str:
    if name.endswith("bytes"):
        return f"{value / _MB:{sign}.1f} MB"
    return f"{value:{sign}.3g}" if abs(value) < 1000 else f"{value:{sign},.0f}"
