"""The fleet at work on one screen; on a terminal that can't be redrawn, a plain line now and then."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sop_jax.evaluation.run_history import RobotState, RunState
from sop_jax.specs.clock import Clock

PLAIN_EVERY_S = 10.0
NUM_NOTES = 4


@dataclasses.dataclass(frozen=True)
class Screen:
    """What the display shows at one moment. `processes` maps a process to what it is doing ("running", "restarting" ...)."""

    title: str
    state: RunState
    processes: Mapping[str, str]
    elapsed_s: float
    limit_s: float
    target_steps: int
    notes: tuple[str, ...] = ()

    @property
    def eta_s(self) -> float:
        """Time left: until the learner's last step at its present speed, or until the limit."""
        left_s = max(0.0, self.limit_s - self.elapsed_s)
        learner = self.state.learner
        if learner is not None and learner.steps_per_s > 0:
            left_s = min(left_s, max(0, self.target_steps - learner.learner_step) / learner.steps_per_s)
        return left_s


class LiveView:
    """Shows screens as they come.

        with LiveView(console, clock) as view:
            view.show(screen)                # as often as you like

    A terminal is redrawn; anything else gets a line every PLAIN_EVERY_S seconds of the clock.
    """

    def __init__(self, console: Console, clock: Clock):
        self._console = console
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._next_line_ns = clock.now_ns()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)

    def show(self, screen: Screen) -> None:
        if self._live is not None:
            self._live.update(draw(screen), refresh=True)
        elif self._clock.now_ns() >= self._next_line_ns:
            self._next_line_ns = self._clock.now_ns() + round(PLAIN_EVERY_S * 1e9)
            self._console.print(plain_line(screen), markup=False, emoji=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, emoji=False, soft_wrap=True)


def draw(screen: Screen) -> RenderableType:
    """The screen as tables: head line, robots, learner and data."""
    state = screen.state
    head = Text.assemble(
        (screen.title, "bold"),
        f"   {_clock(screen.elapsed_s)} of at most {_clock(screen.limit_s)}, about {_clock(screen.eta_s)} left",
    )
    parts: list[RenderableType] = [
        head,
        Text(),
        _success_line(state),
        Text(),
        _robot_table(screen),
        Text(),
        _learner_table(screen),
    ]
    for line in screen.notes[-NUM_NOTES:]:
        parts.append(Text(f"  {line}", style="yellow"))
    return Group(*parts)


def plain_line(screen: Screen) -> str:
    """The screen as one line."""
    state, learner = screen.state, screen.state.learner
    parts = [
        f"[{_clock(screen.elapsed_s)}]",
        f"success {_share(state.success)} of {state.num_recent}",
        f"episodes {state.num_episodes}",
        f"interventions {state.num_interventions}",
        f"version {state.policy_version} (robots {_versions_in_use(state.robots)})",
        f"step {learner.learner_step}/{screen.target_steps} at {learner.steps_per_s:.1f}/s, waits {learner.wait_share:.0%}"
        if learner is not None
        else "learner not started",
        "buffers " + _buffers(state.table_sizes),
        "online share " + _sampler(state),
        f"staleness {_seconds(state.median_staleness_s)}",
        f"correction latency {_seconds(state.median_correction_latency_s)}",
    ]
    return "  ".join(parts)


def _success_line(state: RunState) -> Text:
    helped = "–" if state.interventions_per_episode is None else f"{state.interventions_per_episode:.2f}"
    return Text.assemble(
        ("success without help ", ""),
        (f"{_share(state.success)}", "bold green"),
        f" of the last {state.num_recent} episodes   interventions per episode ",
        (helped, "bold"),
        f"   {state.num_episodes} episodes, {state.num_frames:,} frames, {state.num_interventions} interventions",
    )


def _robot_table(screen: Screen) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (
        ("robot", "left"), ("version", "right"), ("episodes", "right"), ("succeeded", "right"), ("taken over", "right"),
        ("last", "left"), ("state", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, header_style="dim")  # pyright: ignore[reportArgumentType]
    known = {robot.robot_id: robot for robot in screen.state.robots}
    names = sorted({name for name in screen.processes if name.startswith("robot")} | set(known))
    for name in names:
        doing = screen.processes.get(name, "")
        robot = known.get(name)
        if robot is None:
            table.add_row(name, "", "0", "", "", "", _status(doing))
            continue
        table.add_row(
            name, str(robot.policy_version), str(robot.num_episodes), str(robot.num_successes),
            str(robot.num_interventions), robot.last_outcome, _status(doing),
        )  # fmt: skip
    return table


def _learner_table(screen: Screen) -> Table:
    state, learner = screen.state, screen.state.learner
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    if learner is None:
        table.add_row("learner", f"getting ready ({screen.processes.get('learner', '')})")
    else:
        table.add_row(
            "learner",
            f"step {learner.learner_step:,} of {screen.target_steps:,}, {learner.steps_per_s:.1f} steps/s, waits for data "
            f"{learner.wait_share:.0%} of the time, loss {learner.loss:.4f}",
        )
    table.add_row("weights", f"version {state.policy_version}; robots act with {_versions_in_use(state.robots)}")
    table.add_row("buffers", _buffers(state.table_sizes) + f" items ({screen.processes.get('replay', '')})")
    table.add_row("sampler", f"online share {_sampler(state)}")
    versions = "–" if state.median_staleness_versions is None else f"{state.median_staleness_versions:g}"
    table.add_row("staleness", f"{_seconds(state.median_staleness_s)} (median), {versions} versions")
    table.add_row(
        "correction",
        f"{_seconds(state.median_correction_latency_s)} from failure seen to first corrected action (median)",
    )
    return table


def _versions_in_use(robots: Sequence[RobotState]) -> str:
    versions = sorted({robot.policy_version for robot in robots})
    return ", ".join(map(str, versions)) if versions else "–"


def _buffers(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{table} {size:,}" for table, size in sorted(sizes.items())) or "–"


def _sampler(state: RunState) -> str:
    return (
        ", ".join(
            f"{sample.asked_share:.0%} asked, {sample.given_share:.0%} given"
            + (f" ({task})" if len(state.sampler) > 1 else "")
            for task, sample in sorted(state.sampler.items())
        )
        or "–"
    )


def _status(doing: str) -> Text:
    style = {"running": "green", "finished": "dim"}.get(doing, "yellow")
    return Text(doing, style=style)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _clock(duration_s: float) -> str:
    minutes, seconds = divmod(int(duration_s), 60)
    return f"{minutes}:{seconds:02d}"
