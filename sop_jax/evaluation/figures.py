"""The report's pictures as inline SVG: drawn from a run's history, without a display and without outside addresses."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_history import EpisodeSummary, RunHistory
from sop_jax.evaluation.run_tracker import ROLLING_EPISODES
from sop_jax.evaluation.statistics import wilson_interval

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#2f855a", "#9aa5b1"
ROBOT_COLOURS = ("#2563a8", "#d9730d", "#2f855a", "#8b5cf6", "#b83280", "#0e7490")

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def _style(salt: str) -> dict[Any, Any]:
    return {**_STYLE, "svg.hashsalt": salt}


Draw = Callable[[Axes], None]


def draw_svg(name: str, draw: Draw, width_in: float = 5.2, height_in: float = 2.7) -> str:
    """One figure as an `<svg>` element; equal input gives equal bytes. `name` keeps ids apart on one page."""
    with mpl.rc_context(_style(name)):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def comparison(results: Mapping[str, EvaluationResult]) -> str:
    """Success rates side by side, with their 95% intervals. `results` maps a label to a result, first on top."""
    colours = [GREY, *[ORANGE] * (len(results) - 2), BLUE][-len(results) :]

    def draw(axes: Axes) -> None:
        for row, (result, colour) in enumerate(zip(reversed(list(results.values())), reversed(colours), strict=True)):
            axes.plot([result.success_low, result.success_high], [row, row], color=colour, lw=7, alpha=0.28,
                      solid_capstyle="round")  # fmt: skip
            axes.plot(result.success, row, "o", color=colour, ms=9)
            axes.annotate(f"{result.success:.0%}", (result.success, row), (0, 9), textcoords="offset points",
                          ha="center", color=colour, fontsize=11, fontweight="bold")  # fmt: skip
        axes.set_yticks(range(len(results)), list(results)[::-1], color=INK, fontsize=10.5)
        axes.set_ylim(-0.5, len(results) - 0.35)
        axes.grid(axis="y", visible=False)
        share_axis(axes, "x")
        axes.set_xlabel("success rate, 95% interval")

    return draw_svg("comparison", draw, width_in=8.6, height_in=0.7 + 0.62 * len(results))


def success_curve(history: RunHistory) -> str:
    """Share of the last episodes that succeeded without help, with its interval, against time."""
    counted = [episode for episode in history.episodes if episode.counts]

    def draw(axes: Axes) -> None:
        minutes, low, value, high = [], [], [], []
        for end in range(min(10, len(counted)), len(counted) + 1):
            window = counted[max(0, end - ROLLING_EPISODES) : end]
            if window:
                interval = wilson_interval(sum(episode.autonomous_success for episode in window), len(window))
                minutes.append(_minutes(history, counted[end - 1].ended_s))
                low.append(interval.low)
                value.append(interval.value)
                high.append(interval.high)
        axes.fill_between(minutes, low, high, color=BLUE, alpha=0.16, lw=0)
        axes.plot(minutes, value, color=BLUE, lw=1.8)
        share_axis(axes, "y")
        axes.set_xlabel("minutes")

    return draw_svg("success", draw)


def interventions_curve(history: RunHistory) -> str:
    """Takeovers per episode over the last episodes, against time."""
    counted = [episode for episode in history.episodes if episode.counts]

    def draw(axes: Axes) -> None:
        first = min(9, len(counted))  # the mean of fewer episodes is noise
        times = [_minutes(history, episode.ended_s) for episode in counted[first:]]
        means = _rolling([float(episode.num_interventions) for episode in counted])[first:]
        axes.plot(times, means, color=ORANGE, lw=1.8)
        axes.set_ylim(0, max([0.5, *means]) * 1.1)
        axes.set_xlabel("minutes")

    return draw_svg("interventions", draw)


def staleness_histogram(history: RunHistory) -> str:
    """How old the acting policy was, over episodes."""
    return _histogram("staleness", [value.age_s for value in history.staleness], "age of the acting policy [s]", BLUE)


def latency_histogram(history: RunHistory) -> str:
    """From a failure seen to the first action of a policy trained on its correction, over corrections."""
    return _histogram("latency", history.correction_latencies_s, "correction latency [s]", ORANGE)


def sampler_curve(history: RunHistory) -> str:
    """The sampler's online share, asked and given, per task."""

    def draw(axes: Axes) -> None:
        tasks = sorted({sample.task for sample in history.sampler})
        for number, task in enumerate(tasks):
            samples = [sample for sample in history.sampler if sample.task == task]
            times = [_minutes(history, sample.time_s) for sample in samples]
            colour = ROBOT_COLOURS[number % len(ROBOT_COLOURS)]
            suffix = f" ({task})" if len(tasks) > 1 else ""
            axes.plot(times, [s.asked_share for s in samples], color=colour, lw=1.8, label=f"asked{suffix}")
            axes.plot(times, [s.given_share for s in samples], color=colour, lw=1.2, ls=(0, (3, 2)),
                      label=f"given{suffix}")  # fmt: skip
        share_axis(axes, "y")
        axes.set_xlabel("minutes")
        if tasks:
            axes.legend(loc="lower left", ncols=2)

    return draw_svg("sampler", draw)


def learner_curve(history: RunHistory) -> str:
    """Learner steps per second, and the share of its time that it waited for data."""

    def draw(axes: Axes) -> None:
        times = [_minutes(history, sample.time_s) for sample in history.learner]
        axes.plot(times, [sample.steps_per_s for sample in history.learner], color=GREEN, lw=1.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("steps/s", color=GREEN)
        axes.set_xlabel("minutes")
        waiting = axes.twinx()
        waiting.plot(times, [sample.wait_share for sample in history.learner], color=GREY, lw=1.2)
        waiting.set_ylabel("share of time waiting", color=GREY)
        waiting.grid(visible=False)
        share_axis(waiting, "y")

    return draw_svg("learner", draw)


def loss_curve(history: RunHistory) -> str:
    """Training loss by learner step."""

    def draw(axes: Axes) -> None:
        steps = [sample.learner_step for sample in history.learner]
        losses = [sample.loss for sample in history.learner]
        axes.plot(steps, losses, color=GREY, lw=0.8)
        axes.plot(steps, _rolling(losses, 20), color=INK, lw=1.6)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("learner step")

    return draw_svg("loss", draw)


def versions_curve(history: RunHistory) -> str:
    """The learner's newest version and the version each robot acts with, against time."""

    def draw(axes: Axes) -> None:
        if history.publications:
            times = [_minutes(history, publication.time_s) for publication in history.publications]
            versions = [publication.version for publication in history.publications]
            axes.step(times, versions, where="post", color=GREY, lw=3, alpha=0.6, label="published")
        for number, (robot_id, done) in enumerate(sorted(_by_robot(history.episodes).items())):
            times = [_minutes(history, episode.started_s) for episode in done]
            axes.step(times, [episode.policy_version for episode in done], where="post", lw=1.2,
                      color=ROBOT_COLOURS[number % len(ROBOT_COLOURS)], label=robot_id if number < 6 else None)  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        if history.episodes or history.publications:
            axes.legend(loc="upper left", fontsize=8.5)

    return draw_svg("versions", draw)


def _histogram(name: str, values: Sequence[float], label: str, colour: str) -> str:
    def draw(axes: Axes) -> None:
        axes.set_xlabel(label)
        if not values:
            return
        heights, _, _ = axes.hist(
            values, bins=min(30, max(6, len(values) // 4)), color=colour, alpha=0.75, edgecolor="white", lw=0.6
        )
        axes.set_ylim(0, 1.18 * float(np.max(heights)))  # room for the median's label
        median = float(np.median(values))
        axes.axvline(median, color=INK, lw=1.2, ls=(0, (3, 2)))
        axes.annotate(f"median {median:.1f} s", (median, 1), (6, -2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", va="top", fontsize=9.5)  # fmt: skip
        axes.grid(axis="x", visible=False)

    return draw_svg(name, draw)


def share_axis(axes: Axes, which: str) -> None:
    """Marks the axis "x" or "y" from 0 to 100%."""
    ticks = [0, 0.25, 0.5, 0.75, 1]
    labels = ["0", "25%", "50%", "75%", "100%"]
    if which == "x":
        axes.set_xlim(0, 1.03)
        axes.set_xticks(ticks, labels)
    else:
        axes.set_ylim(0, 1.03)
        axes.set_yticks(ticks, labels)


def _minutes(history: RunHistory, time_s: float) -> float:
    """Minutes since the first robot started to work."""
    start_s = min((episode.started_s for episode in history.episodes), default=history.learning_since_s or time_s)
    return (time_s - start_s) / 60


def _rolling(values: Sequence[float], window: int = ROLLING_EPISODES) -> list[float]:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return ((sums[ends] - sums[starts]) / (ends - starts)).tolist()


def _by_robot(episodes: Sequence[EpisodeSummary]) -> dict[str, list[EpisodeSummary]]:
    found: dict[str, list[EpisodeSummary]] = {}
    for episode in episodes:
        found.setdefault(episode.robot_id, []).append(episode)
    return found
