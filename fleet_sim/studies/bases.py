"""How much the base policy matters: bases from fewer or more demonstrations, then the same online run from each.

A base from k demonstrations is trained on the first k of the collection, for as many steps as every other one. Its online run
has the same k demonstrations in the offline buffer: with fewer demonstrations there is less of both.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.learning import ONLINE, SPENT, Row, rise_text, row_of, spent_cells, success_text
from fleet_sim.studies.main_analysis import BASE, EVERY_SEED, Contrast, cells_by_seed, contrast_of, curves_in
from fleet_sim.studies.main_results import link_episodes
from fleet_sim.studies.methods import MainResultsConfig, cell_name
from fleet_sim.studies.pictures import Scale, lines
from fleet_sim.studies.study import Chapter, Report, Workshop, plain_report
from sop_jax.evaluation.tables import points
from sop_jax.evaluation.time_to_target import TimeToTarget, time_to_target
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class BasesStudy:
    """Implements Study. methods: the online run, of one task. num_demonstrations: of each base. base_steps: learner steps
    of a base's training, the same for all."""

    name: str
    methods: MainResultsConfig
    num_demonstrations: tuple[int, ...]
    base_steps: int

    def __post_init__(self) -> None:
        numbers = self.num_demonstrations
        if not numbers or list(numbers) != sorted(set(numbers)) or min(*numbers, self.base_steps) < 1:
            raise ConfigError(
                f"BasesStudy {self.name}: expected rising numbers of demonstrations and positive steps, got {self}"
            )

    @property
    def kind(self) -> str:
        return "bases"

    def cells(self) -> list[Cell]:
        """Of each number: the base, then its runs."""
        cells = []
        for number in self.num_demonstrations:
            made = f"bases/{number}"
            cells.append(Cell(f"base-{number}", "base", leaves=(f"{made}/store", f"{made}/policy/policy.json")))
            cells += [
                Cell(f"online-{number}-{seed}", "online", (f"base-{number}",))
                for seed in range(self.methods.training_seeds)
            ]
        return cells

    def runner(self, workshop: Workshop) -> RunCell:
        def run_cell(cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
            del results
            kind, number, *seed = cell.name.split("-")
            made = workshop.folder / "bases" / number
            if kind == "base":
                self._make_base(workshop, int(number), work, made)
            run = workshop.methods(self.methods, policy=made / "policy", demonstrations=made / "store")
            name = cell_name(BASE, 0) if kind == "base" else cell_name(ONLINE, int(seed[0]))
            return run.run_cell(Cell(name, kind), work, {})

        return run_cell

    def _make_base(self, workshop: Workshop, number: int, work: pathlib.Path, made: pathlib.Path) -> None:
        shutil.rmtree(made, ignore_errors=True)
        demonstrations = workshop.collect()
        for store in (work / "store", made / "store"):
            link_episodes(demonstrations, store, number)
        workshop.train_base(work, number, self.base_steps, made / "policy")  # last: with it the base is whole

    def report(self, results: Results) -> Report:
        found = analyse_bases(self, results)
        pairs = [(x, base.before.success, base.after) for x, base in found.items()]
        drawn = {
            "base policy": [(x, before) for x, before, _ in pairs],
            "after the online run": [(x, after.success) for x, _, after in pairs if after is not None],
        }
        scale = Scale("demonstrations", "success rate, 95% interval", ticks=True, log=True)
        heads = [
            "demonstrations",
            "base policy",
            "after the run",
            "rise, points",
            *SPENT,
        ]
        rows = [_cells_of(number, base) for number, base in found.items()]
        if self.methods.curve_points:
            heads.append("time to 80%")
            for cells, base in zip(rows, found.values(), strict=True):
                cells.append("-" if base.to_target is None else str(base.to_target))
        chapter = Chapter(
            "How much the base policy matters", self.name, self._lead(), words_of_bases(found),
            {"Success by demonstrations": lines("bases_success", drawn, scale)}, {"Before and after": (heads, rows)},
        )  # fmt: skip
        numbers = {"bases": [{"num_demonstrations": x, **dataclasses.asdict(base)} for x, base in found.items()]}
        return plain_report(chapter, numbers)

    def _lead(self) -> str:
        study = self.methods
        return (
            f"Base policies from {', '.join(map(str, self.num_demonstrations))} demonstrations of {study.tasks[0]}, "
            f"{self.base_steps} learner steps each; then the same run of SOP + HG-DAgger from each, with those "
            f"demonstrations in the offline buffer: {study.fleet.num_robots} robots, {study.duration_s / 60:.1f} min of "
            f"their time, training seeds: {study.training_seeds}. {study.num_trials} trials each on equal reserved seeds."
        )


@dataclasses.dataclass(frozen=True)
class Base:
    """A base and what became of it; `after`, `rise` and `to_target` (time to 80%, of the curves) are None before its runs are
    done. `against_most`: what its runs end with, less than those from the most demonstrations do."""

    before: Row
    after: Row | None
    rise: Contrast | None
    to_target: TimeToTarget | None
    against_most: Contrast | None


def analyse_bases(study: BasesStudy, results: Results) -> dict[int, Base]:
    """Number of demonstrations -> base, of the cells that are done."""
    task, found = study.methods.tasks[0], {}
    runs = {
        number: cells_by_seed(results, study.methods.training_seeds, f"online-{number}-{{}}".format)
        for number in study.num_demonstrations
    }
    most = runs[study.num_demonstrations[-1]]
    for number, online in runs.items():
        if f"base-{number}" not in results:
            continue
        base, curves = {EVERY_SEED: results[f"base-{number}"]}, curves_in(online.values(), task)
        found[number] = Base(
            row_of("base policy", number, base.values(), study.methods),
            row_of("after", number, online.values(), study.methods) if online else None,
            contrast_of(base, online, task, "base policy", "after"),
            time_to_target(curves) if curves else None,
            contrast_of(online, most, task, f"{number}", f"{study.num_demonstrations[-1]}")
            if online is not most
            else None,
        )
    return found


def words_of_bases(found: Mapping[int, Base]) -> list[str]:
    """What the bases say."""
    words = [
        f"From {number} demonstrations the base policy succeeds in {success_text(base.before.success)}"
        + (
            f", and in {success_text(base.after.success)} after the run ({rise_text(base.rise.difference)} points), for "
            f"{base.after.spending.human_minutes or 0:.1f} minutes of people at the controls."
            if base.after is not None and base.rise is not None
            else "."
        )
        for number, base in found.items()
    ]
    done = [base for base in found.values() if base.after is not None]
    if len(done) > 1 and (apart := done[0].against_most) is not None and done[-1].against_most is None:
        before = done[-1].before.success.value - done[0].before.success.value
        gap = apart.difference
        verdict = "can't be told from none" if gap.low <= 0 <= gap.high else "is beyond chance"
        words.append(
            f"Between the fewest and the most demonstrations lie {points(before)} points before the run and "
            f"{rise_text(gap)} after it, which {verdict} on these trials."
        )
    return words


def _cells_of(number: int, base: Base) -> list[str]:
    before = success_text(base.before.success)
    if base.after is None or base.rise is None:
        return [str(number), before, "-", "-", *["-"] * len(SPENT)]
    after = success_text(base.after.success)
    return [str(number), before, after, rise_text(base.rise.difference), *spent_cells(base.after.spending)]
