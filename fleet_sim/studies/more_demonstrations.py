"""Robot time spent on demonstrations against the same robot time online, from one base policy, at several amounts.

At each amount the learner takes as many steps on the demonstrations as it took online. Demonstrations take people's whole
time, corrections only some of it: success is shown against both, robots' time and people's.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.learning import ONLINE, SPENT, Row, rise_text, row_of, spent_cells, success_text
from fleet_sim.studies.main_analysis import BASE, Contrast, cells_by_seed, contrast_of
from fleet_sim.studies.methods import METHODS, MainResultsConfig, cell_name
from fleet_sim.studies.pictures import Line, Scale, lines
from fleet_sim.studies.study import Chapter, Report, Workshop, plain_report
from sop_jax.specs.errors import ConfigError

DEMONSTRATED = "more_demonstrations"


@dataclasses.dataclass(frozen=True)
class MoreDemonstrationsStudy:
    """Implements Study. methods: of one task; its duration is the unit of the fleet's time. multiples: of the unit."""

    name: str
    methods: MainResultsConfig
    multiples: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.multiples or list(self.multiples) != sorted(set(self.multiples)) or self.multiples[0] < 1:
            raise ConfigError(
                f"MoreDemonstrationsStudy {self.name}: multiples must rise from at least 1, got {self.multiples}"
            )

    @property
    def kind(self) -> str:
        return "demonstrations"

    def cells(self) -> list[Cell]:
        """The base, then at each amount the online run before its twin."""
        cells = [Cell(cell_name(BASE, 0), "none", cost=0.3)]
        for times in self.multiples:
            for seed in range(self.methods.training_seeds):
                online = _name(ONLINE, times, seed)
                cells.append(Cell(online, "online", cost=times))
                cells.append(Cell(_name(DEMONSTRATED, times, seed), "demonstrations", (online,), cost=times))
        return cells

    def runner(self, workshop: Workshop) -> RunCell:
        def run_cell(cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
            if cell.name == cell_name(BASE, 0):
                return workshop.methods(self.methods).run_cell(cell, work, results)
            method, amount, seed = cell.name.split("-")
            study = dataclasses.replace(
                self.methods, duration_s=int(amount.removesuffix("x")) * self.methods.duration_s, curve_points=0
            )
            twins = {cell_name(ONLINE, int(seed)): result for result in results.values()}
            inner = Cell(cell_name(method, int(seed)), cell.kind)
            return workshop.methods(study).run_cell(inner, work, twins)

        return run_cell

    def report(self, results: Results) -> Report:
        found = analyse_demonstrations(self, results)
        rows = [row for rows in found.rows.values() for row in rows]
        base = found.base
        table = [] if base is None else [["base policy", "-", success_text(base.success), *spent_cells(base.spending)]]
        table += [[row.label, f"{row.x:g}", success_text(row.success), *spent_cells(row.spending)] for row in rows]
        heads = ("method", "times the unit", "success", *SPENT)
        contrasts = [
            [f"{times}", rise_text(contrast.difference), "-" if contrast.p_value is None else f"{contrast.p_value:.2g}"]
            for times, contrast in found.contrasts.items()
        ]
        pictures = {
            f"Success by {what}": lines(f"demonstrations_{figure}", _lines(found, figure), Scale(axis, _SUCCESS))
            for what, axis, figure in (
                ("robot time", "robot hours", "robot_hours"),
                ("people's time", "minutes of people: acting, and resets", "people_minutes"),
            )
        }
        chapter = Chapter(
            "More demonstrations, or online hours", self.name, self._lead(), words_of_demonstrations(found), pictures,
            {
                "Success and what it took": (heads, table),
                "Online against demonstrations, equal robot time": (
                    ("times the unit", "difference, points", "McNemar's p"), contrasts
                ),
            },
        )  # fmt: skip
        numbers = {
            "base": None if base is None else dataclasses.asdict(base),
            "rows": [dataclasses.asdict(row) for row in rows],
            "contrasts": [{"times": times, **dataclasses.asdict(one)} for times, one in found.contrasts.items()],
        }
        return plain_report(chapter, numbers)

    def _lead(self) -> str:
        study = self.methods
        return (
            f"{study.fleet.num_robots} robots at {study.tasks[0]}, for {' and '.join(map(str, self.multiples))} times "
            f"{study.duration_s / 60:.1f} min of their time: online, or all of it spent on demonstrations and then as many "
            f"learner steps. Training seeds: {study.training_seeds}. {study.num_trials} trials each on equal reserved seeds."
        )


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """What is known so far. `rows`: method -> by amount. `contrasts`: amount -> online against demonstrations."""

    base: Row | None
    rows: Mapping[str, Sequence[Row]]
    contrasts: Mapping[int, Contrast]


def analyse_demonstrations(study: MoreDemonstrationsStudy, results: Results) -> Demonstrations:
    """Of the cells that are done."""
    task, base = study.methods.tasks[0], results.get(cell_name(BASE, 0))
    runs = {
        (method, times): cells_by_seed(results, study.methods.training_seeds, functools.partial(_name, method, times))
        for method in (ONLINE, DEMONSTRATED)
        for times in study.multiples
    }
    rows: dict[str, list[Row]] = {METHODS[method].label: [] for method in (ONLINE, DEMONSTRATED)}
    for (method, times), cells in runs.items():
        if cells:
            rows[METHODS[method].label].append(row_of(METHODS[method].label, times, cells.values(), study.methods))
    labels = METHODS[DEMONSTRATED].label, METHODS[ONLINE].label
    contrasts = {
        times: found
        for times in study.multiples
        if (found := contrast_of(runs[DEMONSTRATED, times], runs[ONLINE, times], task, *labels)) is not None
    }
    return Demonstrations(None if base is None else row_of("base policy", 0, [base], study.methods), rows, contrasts)


def words_of_demonstrations(found: Demonstrations) -> list[str]:
    """What the amounts say."""
    words = [] if found.base is None else [f"The base policy succeeds in {success_text(found.base.success)}."]
    online, shown = found.rows[METHODS[ONLINE].label], found.rows[METHODS[DEMONSTRATED].label]
    by_amount = {row.x: row for row in shown}
    for row in online:
        twin = by_amount.get(row.x)
        if twin is None or int(row.x) not in found.contrasts:
            continue
        acting, people = (
            [getattr(one.spending, figure) or 0.0 for one in (row, twin)]
            for figure in ("human_minutes", "people_minutes")
        )
        words.append(
            f"{row.spending.robot_hours or 0:.2f} robot-hours online end at {success_text(row.success)} with people "
            f"at the controls for {acting[0]:.1f} minutes, on demonstrations at {success_text(twin.success)} with "
            f"{acting[1]:.1f}: {rise_text(found.contrasts[int(row.x)].difference)} points for the same robot time"
            + (
                f". Demonstrations take people {acting[1] / acting[0]:.1f} times as long at the controls, "
                f"{people[1] / people[0]:.1f} times with resets."
                if acting[0]
                else "."
            )
        )
    if online and shown:
        least = next((row for row in shown if row.success.value >= online[0].success.value), None)
        words.append(
            f"What {online[0].x:g} x the unit of robot time gave online, demonstrations gave "
            + (f"at {least.x:g} x." if least is not None else f"not even at {shown[-1].x:g} x.")
        )
    return words


_SUCCESS = "success rate, 95% interval"


def _name(method: str, times: int, seed: int) -> str:
    return f"{method}-{times}x-{seed}"


def _lines(found: Demonstrations, figure: str) -> dict[str, Line]:
    """Both methods against a figure of what was spent, from the base policy on."""
    start = [] if found.base is None else [(0.0, found.base.success)]
    return {
        label: [*start, *((getattr(row.spending, figure) or 0.0, row.success) for row in rows)]
        for label, rows in found.rows.items()
        if rows
    }
