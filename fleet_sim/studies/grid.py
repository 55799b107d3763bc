"""A study as a grid of cells. Each cell writes its own result, so a study that was killed goes on where it was.

study folder/
  study.json            what is studied; a run with another content is refused
  lock                  held by the process that runs cells
  cells/<name>.json     a finished cell: its result, how long it took
  work/<name>/          a cell at work; removed when it is done
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sop_jax.specs.errors import ConfigError, SopError

Results = Mapping[str, Mapping[str, Any]]
"""Results of finished cells by name."""


class StudyMismatchError(SopError):
    """The folder holds another study."""


class StudyRunningError(SopError):
    """Another process runs the study."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One experiment of a study.

    name: unique, and the name of its file. kind: cells of one kind take about as long. needs: cells whose results it reads.
    cost: expected time in units that are alike for all cells, for the time left before any of its kind is done.
    """

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"cell name {self.name!r} must consist of letters, digits, '_' and '-'")


@dataclasses.dataclass(frozen=True)
class GridProgress:
    """Where a study stands. `left_s` is None before the first cell has ended."""

    cell: str
    num_done: int
    num_cells: int
    left_s: float | None


RunCell = Callable[[Cell, pathlib.Path, Results], Mapping[str, Any]]
"""(cell, an empty folder to work in, results of the cells it needs) -> its result, JSON-able."""


class Grid:
    """Runs cells in order, those that a cell needs before it.

        grid = Grid(folder, identity, cells)
        results = grid.run(run_cell, on_progress, should_stop)

    Args:
        folder: the study's.
        identity: JSON-able; what makes this study this study.
        cells: in the order in which they run.

    Raises:
        StudyMismatchError: the folder holds a study of another identity.
        ConfigError: names repeat, or a cell needs one that doesn't come before it.
    """

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any], cells: Sequence[Cell]):
        self._folder = folder
        self.cells = tuple(cells)
        seen: set[str] = set()
        for cell in cells:
            if cell.name in seen or not seen.issuperset(cell.needs):
                raise ConfigError(
                    f"cell {cell.name!r} repeats, or needs cells that don't come before it: {sorted(set(cell.needs) - seen)}"
                )
            seen.add(cell.name)
        text = json.dumps(identity, indent=1, sort_keys=True)
        kept = folder / "study.json"
        if kept.exists() and kept.read_text(encoding="utf-8") != text:
            raise StudyMismatchError(
                f"{folder} holds another study (its study.json differs from this preset, these options and this base "
                "policy): choose another folder, or run the study that was begun there"
            )
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            _write_whole(kept, text)

    def results(self) -> dict[str, Mapping[str, Any]]:
        """Results of the finished cells, in the grid's order."""
        found = {}
        for cell in self.cells:
            content = self._read(cell)
            if content is not None:
                found[cell.name] = content["result"]
        return found

    def run(
        self,
        run_cell: RunCell,
        on_progress: Callable[[GridProgress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, Mapping[str, Any]]:
        """Runs what isn't done yet.

        Raises:
            KeyboardInterrupt: between two cells, once `should_stop` says so.
            StudyRunningError: another process is at it; nothing of its work was touched.
            Whatever a cell raised.
        """
        with self._alone():
            for cell in self.cells:
                if self._read(cell) is not None:
                    continue
                if should_stop():
                    raise KeyboardInterrupt
                on_progress(self._progress(cell))
                self._run_one(run_cell, cell)
            return self.results()

    def _run_one(self, run_cell: RunCell, cell: Cell) -> None:
        work = self._folder / "work" / cell.name
        shutil.rmtree(work, ignore_errors=True)  # a killed cell begins anew
        work.mkdir(parents=True)
        results = self.results()
        started = time.monotonic()
        result = run_cell(cell, work, {name: results[name] for name in cell.needs})
        content = {"result": result, "elapsed_s": time.monotonic() - started}
        _write_whole(self._path(cell), json.dumps(content, indent=1))
        shutil.rmtree(work, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Cells begin by removing what a killed process left of them: no two processes may do so in one folder."""
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StudyRunningError(
                    f"another process runs the study in {self._folder}; wait for it, look at what it has so far with "
                    "--report-only, or choose another folder"
                ) from None
            yield

    def unfinished(self) -> str:
        """How much is done, in words; "" once all of it is."""
        num_done = len(self.results())
        return "" if num_done == len(self.cells) else f"{num_done} of {len(self.cells)} cells are done"

    def elapsed_s(self) -> float:
        """What the finished cells took."""
        return sum(content["elapsed_s"] for cell in self.cells if (content := self._read(cell)) is not None)

    def _progress(self, present: Cell) -> GridProgress:
        taken: dict[str, list[float]] = {}
        left: list[Cell] = []
        for cell in self.cells:
            content = self._read(cell)
            if content is None:
                left.append(cell)
            else:
                taken.setdefault(cell.kind, []).append(content["elapsed_s"] / cell.cost)
        everything = [value for values in taken.values() for value in values]
        left_s = None
        if everything:
            rates = {kind: sum(values) / len(values) for kind, values in taken.items()}
            mean = sum(everything) / len(everything)
            left_s = sum(rates.get(cell.kind, mean) * cell.cost for cell in left)
        return GridProgress(present.name, len(self.cells) - len(left), len(self.cells), left_s)

    def _path(self, cell: Cell) -> pathlib.Path:
        return self._folder / "cells" / f"{cell.name}.json"

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        try:
            return json.loads(self._path(cell).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def _write_whole(path: pathlib.Path, text: str) -> None:
    """All or nothing: neither a kill nor a full disk leaves half a file."""
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
