"""What every study is: cells, what runs one, and what all of them together say.

study.cells()                      -> the grid
study.runner(workshop)             -> runs one cell; asked for when there is one to run, for it may make demonstrations
study.report(results)              -> numbers, words, table and page of the cells that are done
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fleet_sim.crew import LOCAL, Engine
from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.main_results import MainResults, Places, TrainValueFunction
from fleet_sim.studies.methods import MainResultsConfig
from sop_jax.evaluation.pages import render_page
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.tables import markdown_table
from sop_jax.evaluation.world import WorldConfig

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Heads and rows."""


@dataclasses.dataclass(frozen=True)
class Workshop:
    """What cells are run with.

    folder: the study's, for what cells leave to each other beside their results. collect: makes the demonstrations, if
        they aren't there yet, and returns their store's folder. find_policy: a policy's directory, by name.
    train_base: (work folder whose store holds demonstrations, their number, learner steps, directory that the policy goes
        to). train_value: trains a value function for a policy, for so many steps.
    num_workers, engine: see `Places`.
    """

    folder: pathlib.Path
    collect: Callable[[], pathlib.Path]
    find_policy: Callable[[str], pathlib.Path]
    train_base: Callable[[pathlib.Path, int, int, pathlib.Path], None]
    train_value: Callable[[pathlib.Path, int], TrainValueFunction]
    num_workers: int = 0
    engine: Engine = LOCAL
    on_progress: Callable[[str], None] = lambda text: None
    should_stop: Callable[[], bool] = lambda: False

    def methods(
        self,
        config: MainResultsConfig,
        *,
        policy: pathlib.Path | None = None,
        demonstrations: pathlib.Path | None = None,
        num_demonstrations: int | None = None,
        retained: Mapping[str, WorldConfig] | None = None,
    ) -> MainResults:
        """What runs the methods of the main results, from another policy or other demonstrations if given, or the first of
        them; `retained`: see `MainResults`. Collects the demonstrations, unless others are given."""
        policy = policy or self.find_policy(config.policy)
        places = Places(
            policy, demonstrations or self.collect(), self.folder / "value", self.num_workers, self.engine,
            num_demonstrations,
        )  # fmt: skip
        train_value = self.train_value(policy, config.value_steps)
        return MainResults(config, places, train_value, self.on_progress, self.should_stop, retained)


@dataclasses.dataclass(frozen=True)
class Making:
    """How a report's numbers came about. `provenance`: of all cells. `unfinished`: how much of the study is done, if not all
    of it."""

    command: str
    provenance: Provenance
    elapsed_s: float
    unfinished: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """numbers: JSON-able. table: Markdown. words: sentences. page: HTML; equal data give an equal page."""

    numbers: Mapping[str, Any]
    table: str
    words: Sequence[str]
    page: Callable[[Making], str]


class Study(Protocol):
    """A preset of a study, of a kind that `sop study` names."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    def cells(self) -> list[Cell]: ...

    def runner(self, workshop: Workshop) -> RunCell: ...

    def report(self, results: Results) -> Report: ...


@dataclasses.dataclass(frozen=True)
class Chapter:
    """What a plain report shows: `lead` says what was done, `words` what came out; pictures (SVG) and tables by heading."""

    title: str
    preset: str
    lead: str
    words: Sequence[str]
    pictures: Mapping[str, str]
    tables: Mapping[str, Table]


def plain_report(chapter: Chapter, numbers: Mapping[str, Any]) -> Report:
    """A page of plain words, pictures and tables. Tables without rows are left out."""
    tables = {heading: table for heading, table in chapter.tables.items() if table[1]}
    shown = dataclasses.replace(chapter, tables=tables)

    def page(making: Making) -> str:
        return render_page("study_template.html", pathlib.Path(__file__).parent, chapter=shown, **_fields_of(making))

    table = "\n".join(f"{heading}:\n\n{markdown_table(*table)}" for heading, table in tables.items())
    return Report({"words": list(chapter.words), **numbers}, table, chapter.words, page)


def _fields_of(making: Making) -> dict[str, Any]:
    return {field.name: getattr(making, field.name) for field in dataclasses.fields(making)}
