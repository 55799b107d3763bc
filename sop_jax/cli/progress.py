"""How far long work has come: a bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sop_jax.specs.clock import Clock, WallClock

PLAIN_EVERY_S = 10.0


class WorkProgress:
    """Shows how much of `total` is done.

    with WorkProgress(console, "demonstrations", 100) as progress:
        progress.update(num_done, "success 93%")      # as often as you like
    """

    def __init__(self, console: Console, what: str, total: int, clock: Clock | None = None):
        self._console = console
        self._what = what
        self._total = total
        self._clock = clock or WallClock()
        self._next_line_ns = self._clock.now_ns() + round(PLAIN_EVERY_S * 1e9)
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[extra]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task(self._what, total=self._total, extra="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, num_done: int, extra: str = "") -> None:
        """Sets how much is done; `extra` is a few words that go with it."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=num_done, extra=extra)
        elif self._clock.now_ns() >= self._next_line_ns:
            self._next_line_ns = self._clock.now_ns() + round(PLAIN_EVERY_S * 1e9)
            self.note(f"{self._what}: {num_done} of {self._total}  {extra}".rstrip())

    def update_total(self, num_done: int, total: int, extra: str = "") -> None:
        """As `update`, for work whose amount is known only once it has begun."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=total)
        self.update(num_done, extra)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, emoji=False, soft_wrap=True)
