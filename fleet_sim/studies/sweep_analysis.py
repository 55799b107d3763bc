"""What a sweep's cells say together: a row per point, with the least and the most of its seeds.

Legend: `N` robots.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet_sim.planning import ResourceLoad, predict
from fleet_sim.studies.grid import Results
from fleet_sim.studies.main_analysis import curves_in, rate_of, trials_of
from fleet_sim.studies.spending import Spending, spending_of
from fleet_sim.studies.sweeps import DynamicsPoint, LearningPoint, SweepConfig
from sop_jax.evaluation.statistics import Interval
from sop_jax.evaluation.time_to_target import TimeToTarget, time_to_target

_PER_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Range:
    """Mean, least and most over seeds; nan where nothing happened."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class DynamicsRow:
    """A point of the sweep.

    delivered_per_hour: episodes that reached the replay. speed_up: of these, over what the plan says of one robot in the
        series' smallest fleet; ideal is N. learner_share: of a batch, drawn online as far as the replay's limit allows.
        draws_per_frame: how often a new frame is drawn. loads: of the resources, the most loaded first.
    lost_share: episodes lost because nobody came. successes_per_operator_minute: see `DynamicsResult`.
        return_on_effort: the same times people over robots, Fleet-DAgger's metric.
    planned_*, correction_latency_s, loads: the plan's.
    """

    series: str
    x: float
    num_robots: int
    num_seeds: int
    delivered_per_hour: Range
    speed_up: Range
    moving_share: Range
    upload_s: Range
    fan_out_s: Range
    weights_age_s: Range
    versions_behind: Range
    operator_wait_s: Range
    operator_load: Range
    lost_share: Range
    successes_per_robot_hour: Range
    successes_per_operator_minute: Range
    return_on_effort: Range
    learner_share: Range
    draws_per_frame: Range
    planned_age_s: float
    planned_per_hour: float
    correction_latency_s: float
    loads: tuple[ResourceLoad, ...]

    @property
    def first(self) -> ResourceLoad:
        return self.loads[0]

    @property
    def saturated(self) -> list[str]:
        """Resources that can't follow, the most loaded first."""
        return [load.name for load in self.loads if load.load > 1]


@dataclasses.dataclass(frozen=True)
class LearningRow:
    """A fleet that learnt. `success`: 95%, see `main_analysis.rate_of`. `to_target`: time to 80%.

    speed_up: how many times sooner than with the smallest value that the sweep is to have (one robot, of scaling); None where
        either run didn't get there, and as long as that one has no finished cell.
    curve: (time in s, success at that time, with an interval of the same kind).
    """

    x: float
    num_robots: int
    num_seeds: int
    success: Interval
    to_target: TimeToTarget | None
    speed_up: float | None
    curve: tuple[tuple[float, Interval], ...]
    spending: Spending


@dataclasses.dataclass(frozen=True)
class SweepAnalysis:
    """Everything that the report shows; points without a finished cell are left out."""

    rows: tuple[DynamicsRow, ...]
    learning: tuple[LearningRow, ...]

    def of_series(self, series: str) -> list[DynamicsRow]:
        return sorted((row for row in self.rows if row.series == series), key=lambda row: row.x)


def analyse_sweep(config: SweepConfig, results: Results) -> SweepAnalysis:
    """Of the cells that are done."""
    rows = []
    for point in config.points:
        smallest = min((other for other in config.points if other.series == point.series), key=_size)
        if cells := _results_of(point.name, config.num_seeds, results):
            rows.append(_row(point, cells, smallest))
    learning = [
        _learning_row(point, cells)
        for point in config.learning
        if (cells := _results_of(point.name, point.study.training_seeds, results))
    ]
    smallest_x = min((point.x for point in config.learning), default=math.nan)
    first = next((row for row in learning if row.x == smallest_x), None)
    learning = [dataclasses.replace(row, speed_up=_speed_up(row, first)) for row in learning]
    return SweepAnalysis(tuple(rows), tuple(learning))


def _results_of(name: str, num_seeds: int, results: Results) -> list[Mapping[str, Any]]:
    names = (f"{name}-s{seed}" for seed in range(num_seeds))
    return [results[cell] for cell in names if cell in results]


def _row(point: DynamicsPoint, cells: Sequence[Mapping[str, Any]], smallest: DynamicsPoint) -> DynamicsRow:
    plan, deployment = predict(point.deployment), point.deployment
    delivered = [cell["simulated"]["figures"]["delivered_per_hour"] for cell in cells]
    per_robot = predict(smallest.deployment).figures.delivered_per_hour / smallest.deployment.robots.num_robots
    shares, draws = zip(*(_learning_side(point, value) for value in delivered), strict=True)

    def figure(name: str) -> Range:
        return _range([cell["simulated"]["figures"][name] for cell in cells])

    def whole(value: Callable[[Mapping[str, Any]], float]) -> Range:
        return _range([value(cell["simulated"]) for cell in cells])

    def per_minute(found: Mapping[str, Any]) -> float:
        return _over(found["num_successes"], found["help_minutes"])

    people_per_robot = deployment.operators.num_operators / deployment.robots.num_robots
    return DynamicsRow(
        series=point.series,
        x=point.x,
        num_robots=deployment.robots.num_robots,
        num_seeds=len(cells),
        delivered_per_hour=_range(delivered),
        speed_up=_range([value / per_robot for value in delivered]),
        **{
            name: figure(name)
            for name in (
                "moving_share", "upload_s", "fan_out_s", "weights_age_s", "versions_behind", "operator_wait_s",
                "operator_load",
            )
        },
        lost_share=whole(lambda found: _over(found["num_lost"], found["num_episodes"])),
        successes_per_robot_hour=whole(lambda found: _over(found["num_successes"], found["robot_s"] / _PER_HOUR)),
        successes_per_operator_minute=whole(per_minute),
        return_on_effort=whole(lambda found: people_per_robot * per_minute(found)),
        learner_share=_range(shares),
        draws_per_frame=_range(draws),
        planned_age_s=plan.figures.weights_age_s,
        planned_per_hour=plan.figures.delivered_per_hour,
        correction_latency_s=plan.correction_latency_s,
        loads=plan.loads,
    )  # fmt: skip


def _learning_side(point: DynamicsPoint, delivered_per_hour: float) -> tuple[float, float]:
    """Learner share and draws per new frame, by `planning`'s formula, of what was delivered."""
    robots, training = point.deployment.robots, point.deployment.training
    examples = training.batch_size * training.learner_steps_per_s
    new_frames = delivered_per_hour / _PER_HOUR * robots.episode_s * robots.kept_hz
    drawn = min(training.online_share * examples, training.samples_per_frame * new_frames)
    return drawn / examples, _over(drawn, new_frames)


def _learning_row(point: LearningPoint, cells: Sequence[Mapping[str, Any]]) -> LearningRow:
    task = point.study.tasks[0]
    curves = curves_in(cells, task)
    return LearningRow(
        x=point.x,
        num_robots=point.study.fleet.num_robots,
        num_seeds=len(cells),
        success=rate_of([trials_of(cell["evaluation"], task) for cell in cells]),
        to_target=time_to_target(curves) if curves else None,
        speed_up=None,
        curve=_curve(cells, task),
        spending=spending_of(cells, point.study.fleet.reset_s),
    )


def _curve(cells: Sequence[Mapping[str, Any]], task: str) -> tuple[tuple[float, Interval], ...]:
    """Success at each time, over all training seeds."""
    moments = zip(*(cell.get("curve", ()) for cell in cells), strict=True)
    return tuple(
        (points[0]["time_s"], rate_of([trials_of(point["evaluation"], task) for point in points])) for points in moments
    )


def _speed_up(row: LearningRow, first: LearningRow | None) -> float | None:
    times = [None if one is None or one.to_target is None else one.to_target.time_s for one in (first, row)]
    return None if times[0] is None or times[1] is None else times[0] / times[1]


def _size(point: DynamicsPoint) -> int:
    return point.deployment.robots.num_robots


def _range(values: Sequence[float]) -> Range:
    known = [value for value in values if not math.isnan(value)]
    return Range(statistics.fmean(known), min(known), max(known)) if known else Range(math.nan, math.nan, math.nan)


def _over(value: float, by: float) -> float:
    return value / by if by else math.nan
