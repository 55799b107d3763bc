"""What a sweep shows, in plain words, from its numbers."""

import math
from collections.abc import Callable, Mapping, Sequence

from fleet_sim.studies.sweep_analysis import DynamicsRow, LearningRow, SweepAnalysis
from fleet_sim.studies.sweeps import Kind, SweepConfig

_NEAR_IDEAL = 0.95
_GAINED = 0.02
_FAR_APART = 0.2
"""Simulation and plan are told to differ from so much of the plan on."""
_LEAST = 5e-4
"""What is smaller is told as 0: a wait of so many seconds, say."""


def words_of(config: SweepConfig, analysis: SweepAnalysis) -> list[str]:
    """A sentence or two per series, then what the learning points say."""
    say: Mapping[Kind, Callable[[str, Sequence[DynamicsRow]], str]] = {
        "scaling": _scaling,
        "staleness": _staleness,
        "operators": _operators,
    }
    found = [say[config.kind](series, rows) for series in config.series if (rows := analysis.of_series(series))]
    return found + ([_learning(config, analysis.learning)] if analysis.learning else [])


def plain(value: float) -> str:
    """Three digits, and no exponents: `0.0415`, `6.29`, `1955`."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= _LEAST else "0"


def _scaling(series: str, rows: Sequence[DynamicsRow]) -> str:
    near = [row for row in rows if row.speed_up.mean >= _NEAR_IDEAL * row.num_robots]
    last = rows[-1]
    text = f"{series}: episodes in the replay grow in proportion (within {1 - _NEAR_IDEAL:.0%}) up to "
    text += f"{near[-1].num_robots} robots; " if near else "no number of robots; "
    age_s = last.weights_age_s.mean
    age = "no weights reached them in time" if math.isnan(age_s) else f"their weights are {plain(age_s)} s old"
    text += f"{last.num_robots} robots do the work of {plain(last.speed_up.mean)}, and {age}. "
    full = _saturated_at(rows)
    if full:
        names = ", ".join(f"{name} (from {number} robots)" for name, number in full.items())
        text += f"What can't follow: {names}."
    else:
        text += f"Nothing saturates; nearest to it is {last.first.name} at {last.first.load:.0%}."
    return text + _far_from_plan(rows)


def _far_from_plan(rows: Sequence[DynamicsRow]) -> str:
    """A sentence on what was simulated and is far from the plan, "" if nothing is. nan (it didn't happen) is not told."""
    told = [
        f"{name} at {row.x:g} ({plain(simulated)}, planned {plain(planned)})"
        for row in rows
        for name, simulated, planned in (
            ("weights' age in s", row.weights_age_s.mean, row.planned_age_s),
            ("episodes in the replay per hour", row.delivered_per_hour.mean, row.planned_per_hour),
        )
        if abs(simulated - planned) > _FAR_APART * planned
    ]
    if not told:
        return ""
    return (
        f" Simulation and plan differ by more than {_FAR_APART:.0%}: {', '.join(told)}. The simulated time may be too short "
        "for a steady state."
    )


def _saturated_at(rows: Sequence[DynamicsRow]) -> dict[str, int]:
    """Resource -> the fewest robots of the sweep at which it is full."""
    found: dict[str, int] = {}
    for row in rows:
        for name in row.saturated:
            found.setdefault(name, row.num_robots)
    return found


def _staleness(series: str, rows: Sequence[DynamicsRow]) -> str:
    first, last = rows[0], rows[-1]
    off = max(abs(row.weights_age_s.mean / row.planned_age_s - 1) for row in rows)
    text = (
        f"{series}: from a publication every {first.x:g} s to one every {last.x:g} s the acting weights age from "
        f"{plain(first.weights_age_s.mean)} to {plain(last.weights_age_s.mean)} s, and a failure is answered by a policy "
        f"that was trained on it after {plain(first.correction_latency_s)} to {plain(last.correction_latency_s)} s. "
    )
    full = [row for row in rows if row.first.load > 1 and row.first.name.startswith("publication")]
    if full:
        text += (
            f"A publication takes {plain(full[-1].fan_out_s.mean)} s to the robots, so up to one every {full[-1].x:g} s they "
            f"skip versions, and publishing more often gains little. "
        )
    return text + f"The plan is at most {off:.1%} off." + _far_from_plan(rows)


def _operators(series: str, rows: Sequence[DynamicsRow]) -> str:
    best = max(row.successes_per_robot_hour.mean for row in rows)
    enough = next(row for row in rows if row.successes_per_robot_hour.mean >= (1 - _GAINED) * best)
    fewest = rows[0]
    lost = "" if math.isnan(fewest.lost_share.mean) else f" and loses {fewest.lost_share.mean:.0%} of its episodes"
    return (
        f"{series}: {enough.x:g} people are enough for {enough.num_robots} robots ({enough.num_robots / enough.x:.3g} each; "
        f"successes per robot-hour within {_GAINED:.0%} of the most). With {fewest.x:g} the fleet succeeds "
        f"{fewest.successes_per_robot_hour.mean:.3g} times per robot-hour instead of {best:.3g}{lost}; a robot that asks "
        f"waits {plain(fewest.operator_wait_s.mean)} s."
    )


def _learning(config: SweepConfig, rows: Sequence[LearningRow]) -> str:
    told = "; ".join(
        f"{row.x:g}: {row.success.value:.0%} [{row.success.low:.0%}, {row.success.high:.0%}]"
        + ("" if row.to_target is None else f", 80% after {row.to_target}")
        for row in rows
    )
    what = {"scaling": "robots", "staleness": "seconds between publications", "operators": "people"}[config.kind]
    return f"With learning, final success by {what}: {told}."
