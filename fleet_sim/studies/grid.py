"""A study as a grid of cells. Each cell writes its own result, so a study that was killed goes on where it was.

study folder/
  study.json, cells/    what is studied, and the finished cells (`kept_cells.py`)
  lock                  held by the process that runs cells
  work/<name>/          a cell at work, or one that failed; removed when it is done
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fleet_sim.studies.kept_cells import KeptCell, KeptCells
from sop_jax.evaluation.provenance import Provenance, describe, with_revision
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError, SopError

Results = Mapping[str, Mapping[str, Any]]
"""Results of finished cells by name."""


class StudyRunningError(SopError):
    """Another process runs the study."""


class CellsFailedError(SopError):
    """Cells failed, and those that need them were skipped; all others are done."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One experiment of a study.

    name: unique, and the name of its file. kind: cells of one kind take about as long. needs: cells whose results it reads,
    or what they left. cost: expected time in units that are alike for all cells, for the time left before any of its kind is
    done. leaves: paths in the study's folder that cells which need it read beside its result, each written last of what it
    belongs to. Where one is gone, the cell runs again before any that needs it. Files among them tell what was left: a cell
    that leant on others is run again. So they are small, and differ where anything differs that matters to those cells.
    """

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    leaves: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"cell name {self.name!r} must consist of letters, digits, '_' and '-'")


@dataclasses.dataclass(frozen=True)
class GridProgress:
    """Where a study stands. `num_done`: cells that needn't run any more, failed ones too. `left_s` is None before the first
    cell has ended."""

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
        StudyMismatchError: the folder holds a study of another identity, or a cell of one.
        DamagedCellError: a finished cell's file is torn.
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
        self._kept = KeptCells(folder, identity)

    def results(self) -> dict[str, Mapping[str, Any]]:
        """Results of the finished cells, in the grid's order."""
        return {name: cell.result for name, cell in self._finished(self._read()).items()}

    def left(self) -> list[Cell]:
        """What is still to run: cells without a result, those that leant on what was made anew since and differs, and those
        that left what is gone to one of these."""
        finished, left = self._finished(self._read()), list[Cell]()
        for cell in reversed(self.cells):  # those that need it come after it
            is_needed = any(cell.name in other.needs for other in left)
            if cell.name not in finished or (is_needed and self._gone(cell)):
                left.append(cell)
        return left[::-1]

    def run(
        self,
        run_cell: RunCell,
        on_progress: Callable[[GridProgress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        on_note: Callable[[str], None] = lambda text: None,
        on_done: Callable[[], None] = lambda: None,
    ) -> dict[str, Mapping[str, Any]]:
        """Runs what isn't done yet. A cell that raises SopError takes with it those that need it, and no others.

        Args:
            on_progress: called before each cell. on_note: told what deserves a line: cells that fail, are skipped or run
                again. on_done: called after each cell, once its result is kept.

        Raises:
            KeyboardInterrupt: once `should_stop` says so, after the cell or out of it.
            StudyRunningError: another process is at it; nothing of its work was touched.
            CellsFailedError: at the end, if cells failed.
            Whatever else a cell raised.
        """
        with self._alone():
            tried, failures = set[str](), _Failures(on_note)
            # why: looked at anew each time, for a cell that ran again may have left something else than before
            while left := [cell for cell in self.left() if cell.name not in tried]:
                cell = left[0]
                tried.add(cell.name)
                if should_stop():
                    raise KeyboardInterrupt
                if failures.skips(cell):
                    continue
                if again := self._why_again(cell):
                    on_note(f"cell {cell.name} runs again: {again}")
                on_progress(self._progress(left))
                try:
                    self._run_one(run_cell, cell)
                except SopError as error:
                    if should_stop():  # the signal reached its processes too, which ended before it did
                        raise KeyboardInterrupt from error
                    failures.add(cell, error)
                else:
                    on_done()
            failures.check(self._folder)
            return self.results()

    def _run_one(self, run_cell: RunCell, cell: Cell) -> None:
        work = self._folder / "work" / cell.name
        shutil.rmtree(work, ignore_errors=True)  # a killed cell begins anew
        work.mkdir(parents=True)
        results = self.results()
        leant_on = {need.name: left for need in self._needs(cell) if (left := self._left_by(need))}
        made_on = with_revision(describe(WallClock().now_ns() / 1e9))
        started = time.monotonic()
        result = run_cell(cell, work, {name: results[name] for name in cell.needs})
        elapsed_s = time.monotonic() - started
        self._kept.write(cell.name, KeptCell(result, elapsed_s, made_on, self._left_by(cell), leant_on))
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
        num_left, kept = len(self.left()), self._read()
        again = [cell.name for cell in self.cells if self._outdated(cell, kept)]
        if not num_left:
            return ""
        told = f"; to run again, for what they lean on was made anew and differs: {', '.join(again)}" if again else ""
        return f"{len(self.cells) - num_left} of {len(self.cells)} cells are done{told}"

    def elapsed_s(self) -> float:
        """What the finished cells took."""
        return sum(cell.elapsed_s for cell in self._finished(self._read()).values())

    def made_on(self) -> list[Provenance]:
        """Machine, versions and time of each finished cell."""
        return [cell.made_on for cell in self._finished(self._read()).values()]

    def _read(self) -> dict[str, KeptCell]:
        return {cell.name: kept for cell in self.cells if (kept := self._kept.read(cell.name)) is not None}

    def _finished(self, kept: Mapping[str, KeptCell]) -> dict[str, KeptCell]:
        """Those that may stand beside each other, in the grid's order."""
        return {
            cell.name: kept[cell.name] for cell in self.cells if cell.name in kept and not self._outdated(cell, kept)
        }

    def _outdated(self, cell: Cell, kept: Mapping[str, KeptCell]) -> list[str]:
        """Cells that left something else to this finished one than they leave to others now."""
        if cell.name not in kept:
            return []
        return [
            need.name
            for need in self._needs(cell)
            if _differ(kept[cell.name].leant_on.get(need.name, ""), self._left_by(need), kept.get(need.name))
        ]

    def _why_again(self, cell: Cell) -> str:
        """In words; "" for a cell that never ended."""
        kept = self._read()
        if cell.name not in kept:
            return ""
        if outdated := self._outdated(cell, kept):
            return f"what it leant on was made anew since, and differs ({', '.join(outdated)})"
        return f"what it left to others is gone ({', '.join(self._gone(cell))})"

    def _needs(self, cell: Cell) -> list[Cell]:
        return [other for other in self.cells if other.name in cell.needs]

    def _left_by(self, cell: Cell) -> str:
        """A fingerprint of the files that it left, 16 hex digits; "": it leaves none, or not all is there."""
        files = [self._folder / path for path in cell.leaves if (self._folder / path).is_file()]
        if not files or self._gone(cell):
            return ""
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]

    def _gone(self, cell: Cell) -> list[str]:
        """What it left to others that isn't there any more."""
        return [path for path in cell.leaves if not (self._folder / path).exists()]

    def _progress(self, left: Sequence[Cell]) -> GridProgress:
        """`left`: what is still to run, the present cell first."""
        taken: dict[str, list[float]] = {}
        for cell in self.cells:
            kept = self._kept.read(cell.name)
            if kept is not None:
                taken.setdefault(cell.kind, []).append(kept.elapsed_s / cell.cost)
        everything = [value for values in taken.values() for value in values]
        left_s = None
        if everything:
            rates = {kind: sum(values) / len(values) for kind, values in taken.items()}
            mean = sum(everything) / len(everything)
            left_s = sum(rates.get(cell.kind, mean) * cell.cost for cell in left)
        return GridProgress(left[0].name, len(self.cells) - len(left), len(self.cells), left_s)


def _differ(leant_on: str, there: str, maker: KeptCell | None) -> bool:
    """Whether a finished cell leant on something else than its maker left. All but `maker` are fingerprints; "" = unknown."""
    made = maker.left if maker is not None else ""
    if not leant_on:  # it ended before this was noted; a maker of which it is noted has made it anew since
        return bool(made)
    return leant_on != (there or made or leant_on)


class _Failures:
    """Remembers which cells failed, and which can't run for that."""

    def __init__(self, on_note: Callable[[str], None]):
        self._on_note = on_note
        self._failed: dict[str, str] = {}
        self._skipped: list[str] = []

    def add(self, cell: Cell, error: SopError) -> None:
        self._failed[cell.name] = str(error)
        self._on_note(f"cell {cell.name} failed: {error}")

    def skips(self, cell: Cell) -> bool:
        """Whether it needs one of those."""
        lacking = [name for name in cell.needs if name in self._failed or name in self._skipped]
        if lacking:
            self._skipped.append(cell.name)
            self._on_note(f"cell {cell.name} is skipped: it needs {', '.join(lacking)}")
        return bool(lacking)

    def check(self, folder: pathlib.Path) -> None:
        """Raises CellsFailedError if there are any."""
        if not self._failed:
            return
        by_error: dict[str, list[str]] = {}
        for name, error in self._failed.items():
            by_error.setdefault(error, []).append(name)
        told = "; ".join(f"{', '.join(names)} ({error})" for error, names in by_error.items())
        skipped = f"; skipped, for they need these: {', '.join(self._skipped)}" if self._skipped else ""
        raise CellsFailedError(
            f"failed cells: {told}{skipped}. All others are done and kept. What the failed ones left is "
            f"in {folder / 'work'}; mend the cause and run the same command, which goes on with them"
        )
