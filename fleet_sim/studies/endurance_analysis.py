"""What the long run says: whether success declines over its second half, and what grows.

Legend: `P` points in time, `n` trials that all points share.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fleet_sim.resources import Resources
from fleet_sim.studies.grid import Results
from fleet_sim.studies.main_analysis import rate_of, trials_of
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.trend import series_slope, success_slope
from sop_jax.evaluation.paired import count_pairs, success_table, tango_interval
from sop_jax.evaluation.statistics import Interval

HOUR_S = 3600.0
FLAT = 0.05
"""A resource is called flat if its line surely changes by less than this share of its mean over the second half."""

FIGURES: Mapping[str, str] = {
    "memory_bytes": "memory of simulation and learner",
    "workers_bytes": "memory of the workers",
    "num_files": "open file descriptors",
    "disk_bytes": "bytes on disk",
    "num_objects": "files on disk",
    "num_items": "items in the tables",
    "num_publications": "publications kept",
}
"""Fields of `Resources`, and what they are called."""

_NEVER_ZERO = ("memory_bytes", "workers_bytes")
"""No process lives without memory: where every look says 0, nobody was looked at (a kernel that lists no children)."""


@dataclasses.dataclass(frozen=True)
class Held:
    """A resource over the second half: its mean, its least and most, and its line with a 95% interval: per virtual hour, and
    from the half's beginning to its end as a share of the mean. Infinite intervals: too few looks, see `series_slope`."""

    name: str
    mean: float
    low: float
    high: float
    per_hour: Interval
    change: Interval

    @property
    def verdict(self) -> Literal["flat", "grows", "shrinks", "not told"]:
        if max(-self.change.low, self.change.high) < FLAT:
            return "flat"
        return "grows" if self.change.low > 0 else "shrinks" if self.change.high < 0 else "not told"


@dataclasses.dataclass(frozen=True)
class Endurance:
    """curve: (seconds, success on selection seeds), the base policy first. change: of success, by its line, from the second
    half's beginning to its end, in shares of 1; None before its points are there. looks, held: resources. unmeasured: those
    that no look could see. fleet: what the run took."""

    curve: Sequence[tuple[float, Interval]]
    change: Interval | None
    looks: Sequence[Resources]
    held: Sequence[Held]
    unmeasured: Sequence[str]
    fleet: Mapping[str, Any] | None


def analyse_endurance(methods: MainResultsConfig, results: Results) -> Endurance:
    """Of the cells that are done."""
    task, half_s = methods.tasks[0], methods.duration_s / 2
    names = [f"at-{point}" for point in range(methods.curve_points + 1)]
    cells = [results[name] for name in names if name in results]
    points = [(cell["time_s"], trials_of(cell["evaluation"], task)) for cell in cells]
    late = [(time_s / HOUR_S, trials) for time_s, trials in points if time_s >= half_s]
    change = None
    if len(late) > 1:
        table = np.stack([success_table([trials])[0] for _, trials in late])
        per_hour = success_slope([hours for hours, _ in late], table)
        change = _over(per_hour, late[-1][0] - late[0][0])
        if change.low == change.high:  # all looks are alike, which a bootstrap takes for certainty
            change = tango_interval(count_pairs(late[0][1], late[-1][1]))
    run = results.get("run")
    looks = [] if run is None else [Resources(**look) for look in run["looks"]]
    second = [look for look in looks if look.time_s >= half_s]
    unmeasured = [name for name in FIGURES if looks and not _is_measured(name, looks)]
    held = [_held(name, second) for name in FIGURES if name not in unmeasured] if len(second) > 1 else []
    curve = [(time_s, rate_of([trials])) for time_s, trials in points]
    return Endurance(curve, change, looks, held, unmeasured, None if run is None else run["fleet"])


def _is_measured(name: str, looks: Sequence[Resources]) -> bool:
    values = [getattr(look, name) for look in looks]
    return None not in values and (any(values) or name not in _NEVER_ZERO)


def _held(name: str, looks: Sequence[Resources]) -> Held:
    hours = [look.time_s / HOUR_S for look in looks]
    values = [float(getattr(look, name)) for look in looks]
    mean, per_hour = sum(values) / len(values), series_slope(hours, values)
    change = _over(per_hour, (hours[-1] - hours[0]) / (mean or 1.0))  # a mean of 0 is 0 throughout
    return Held(name, mean, min(values), max(values), per_hour, change)


def _over(per_hour: Interval, hours: float) -> Interval:
    """`hours` above 0: an infinite bound times 0 is nothing."""
    return Interval(per_hour.low * hours, per_hour.value * hours, per_hour.high * hours)
