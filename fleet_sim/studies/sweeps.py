"""Studies that sweep one figure of a deployment: how many robots, how old the weights, how many people.

A point is one value of the swept figure in one series. Dynamics play it for every seed (drawn episodes, seconds); where a
preset has learning points, a fleet in a world also learns at it, and is evaluated as in the main-results study.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from fleet_sim.deployment import Deployment
from fleet_sim.drawn_episodes import DrawnFromMeans, Spread
from fleet_sim.dynamics import DynamicsConfig, simulate
from fleet_sim.studies.grid import Cell, Results
from fleet_sim.studies.main_results import MainResults
from fleet_sim.studies.methods import MainResultsConfig, cell_name
from sop_jax.specs.errors import ConfigError

Kind = Literal["scaling", "staleness", "operators"]
LEARNING = "sop_hg_dagger"
"""The method that learns at a learning point."""
_AS_MANY_ROBOTS = 20
"""A learning cell's steps and trials take as long as so many robots' episodes."""


@dataclasses.dataclass(frozen=True)
class DynamicsPoint:
    """A deployment to play. x: the swept figure's value. series: points of one series are joined by a line."""

    series: str
    x: float
    deployment: Deployment
    rule: str = "first_come"
    patience_s: float = float("inf")

    @property
    def name(self) -> str:
        return f"{_plain(self.series)}-{self.x:g}".replace(".", "_")


@dataclasses.dataclass(frozen=True)
class LearningPoint:
    """A fleet in a world that learns; `study` has one task, and is told the training seed."""

    x: float
    study: MainResultsConfig

    @property
    def name(self) -> str:
        return f"learning-{self.x:g}".replace(".", "_")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A preset of such a study.

    duration_s, warm_up_s: of each dynamics cell, on virtual time; small fleets are measured for longer, until they have
        worked for `least_robot_s`. num_seeds: of the dynamics; learning points have their own.
    """

    kind: Kind
    name: str
    points: tuple[DynamicsPoint, ...]
    duration_s: float
    warm_up_s: float
    num_seeds: int = 3
    least_robot_s: float = 60_000.0
    learning: tuple[LearningPoint, ...] = ()

    def __post_init__(self) -> None:
        names = [point.name for point in (*self.points, *self.learning)]
        if not self.points or len(set(names)) != len(names):
            raise ConfigError(f"SweepConfig {self.name}: points must have names of their own, got {names}")
        if self.num_seeds < 1:
            raise ConfigError(f"SweepConfig {self.name}: num_seeds must be at least 1, got {self.num_seeds}")
        for point in self.learning:
            if len(point.study.tasks) != 1 or LEARNING not in point.study.methods:
                raise ConfigError(f"SweepConfig {self.name}: {point.name} needs one task and the method {LEARNING}")

    @property
    def series(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.series for point in self.points))

    def measured_s(self, point: DynamicsPoint) -> float:
        """How long a point is measured."""
        return max(self.duration_s - self.warm_up_s, self.least_robot_s / point.deployment.robots.num_robots)


def make_sweep_cells(config: SweepConfig) -> list[Cell]:
    """Dynamics first: they take seconds; then what learns."""
    cells = [
        Cell(
            f"{point.name}-s{seed}",
            "dynamics",
            cost=point.deployment.robots.num_robots * config.measured_s(point) / 3600,
        )
        for point in config.points
        for seed in range(config.num_seeds)
    ]
    return cells + [
        Cell(f"{point.name}-s{seed}", "learning", cost=_AS_MANY_ROBOTS + point.study.fleet.num_robots)
        for point in config.learning
        for seed in range(point.study.training_seeds)
    ]


class Sweep:
    """Runs the cells; see `grid.Grid`. `make_learning(study)` gives what runs a learning point's fleets."""

    def __init__(self, config: SweepConfig, make_learning: Callable[[MainResultsConfig], MainResults]):
        self._points = {point.name: point for point in config.points}
        self._learning = {point.name: point for point in config.learning}
        self._config, self._make_learning = config, make_learning

    def run_cell(self, cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
        """One cell's result, JSON-able. Raises KeyboardInterrupt."""
        name, _, seed = cell.name.rpartition("-s")
        if name in self._points:
            return self._play(self._points[name], int(seed))
        study = self._make_learning(self._learning[name].study)
        return study.run_cell(Cell(cell_name(LEARNING, int(seed)), "online"), work, results)

    def _play(self, point: DynamicsPoint, seed: int) -> dict[str, Any]:
        config = self._config
        source = DrawnFromMeans(point.deployment, Spread(patience_s=point.patience_s))
        measured_s, warm_up_s = config.measured_s(point), config.warm_up_s
        dynamics = DynamicsConfig(point.deployment, warm_up_s + measured_s, warm_up_s, seed, point.rule)
        found = simulate(dynamics, source)
        return {"simulated": _plain_numbers(dataclasses.asdict(found)), "measured_s": measured_s}


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text.lower())


def _plain_numbers(value: Any) -> Any:
    """Numpy's numbers as Python's, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return value.item() if hasattr(value, "item") else value
