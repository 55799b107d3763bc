"""What a study says so far: results.json, table.md and report.html in its folder, and lines on the terminal."""

import pathlib

from fleet_sim.studies.grid import Grid
from fleet_sim.studies.study import Making, Report, Study
from sop_jax.cli.output import jsonable, note, say
from sop_jax.evaluation.pages import write_page
from sop_jax.evaluation.provenance import Provenance, together
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.specs.clock import Clock

EVERY_S = 30.0
"""Between two reports of a study that goes on: a page takes about a second, and some cells less."""

_NOTHING_YET = Provenance("no cell is done", "none yet", "-", {})


class StudyReport:
    """Reports the finished cells.

    report.write_now_and_then()     # after each cell
    summary = report.write()        # at the end, or when the study is stopped
    report.tell()
    """

    def __init__(self, grid: Grid, study: Study, folder: pathlib.Path, clock: Clock):
        self.folder = folder
        self._grid, self._study, self._clock = grid, study, clock
        self._written_ns: int | None = None
        self._report: Report | None = None

    @property
    def page(self) -> pathlib.Path:
        return self.folder / "report.html"

    def write(self) -> dict[str, object]:
        """Writes the three files; returns the numbers. A kill leaves each of them whole, of now or of the last time."""
        grid, study = self._grid, self._study
        results, unfinished = grid.results(), grid.unfinished()
        report = study.report(results)
        summary = {
            "study": study.kind,
            "preset": study.name,
            "num_cells": len(grid.cells),
            "num_cells_done": len(grid.cells) - len(grid.left()),
            "elapsed_s": grid.elapsed_s(),
            **report.numbers,
        }
        # The cells' own machines, not the one that draws the page; the folder and --report-only repeat nothing.
        command = f"sop study {study.kind} --preset {study.name}"
        made_on = grid.made_on()
        making = Making(command, together(made_on) if made_on else _NOTHING_YET, grid.elapsed_s(), unfinished)
        write_json(self.folder / "results.json", jsonable(summary))
        write_page(report.table, self.folder / "table.md")
        write_page(report.page(making), self.page)
        self._report, self._written_ns = report, self._clock.now_ns()
        return summary

    def write_now_and_then(self) -> None:
        """Writes what is known so far, unless that was done less than `EVERY_S` ago."""
        if self._written_ns is None or self._clock.now_ns() >= self._written_ns + round(EVERY_S * 1e9):
            self.write_so_far()

    def write_so_far(self) -> None:
        """Writes in the middle of a study, whose cells are safe already: a report that can't be written only costs a line."""
        try:
            self.write()
        except OSError as error:
            note(f"the report in {self.folder} can't be written now: {error}")

    def tell(self) -> None:
        """Says what was written last."""
        if self._report is None:
            raise ValueError("StudyReport.tell: nothing was written yet; call write first")
        say(self._report.table)
        for sentence in self._report.words:
            say(sentence)
        if unfinished := self._grid.unfinished():
            note(unfinished)
        say(f"report: {self.page}")
