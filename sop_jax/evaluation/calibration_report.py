"""The calibration as a page: tables, and pictures as inline SVG."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np
from matplotlib.axes import Axes

from sop_jax.evaluation import figures
from sop_jax.evaluation.calibration import Judged, Part, TaskCalibration
from sop_jax.evaluation.figures import BLUE, GREY, ORANGE

_TEMPLATE = pathlib.Path(__file__).parent / "calibration_template.html"
_NUM_STEPS = 20
"""Points of time, from start to end of an episode, that its values are shown at."""


@dataclasses.dataclass(frozen=True)
class _Chart:
    title: str
    svg: str
    says: str


def render(
    title: str, tasks: Sequence[TaskCalibration], episodes: Sequence[Judged], thresholds: dict[str, float], about: str
) -> str:
    """One HTML file without an outside address; equal data give an equal page. `about` says where the numbers come from."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    sections = []
    for task in tasks:
        held = [e for e in episodes if e.held_out and e.manifest.task == task.task]
        sections.append({"numbers": task, "charts": charts(task, held, thresholds[task.task])})
    return template.render(title=title, sections=sections, about=about)


def charts(task: TaskCalibration, held: Sequence[Judged], threshold: float) -> list[_Chart]:
    """The four pictures of one task."""
    return [
        _Chart(
            "Predicted against realised return",
            reliability(task, held),
            "Every held-out frame, and the mean of each tenth of the predictions. On the diagonal a prediction comes true.",
        ),
        _Chart(
            "By stage" if task.by_stage else "By time",
            by_part(f"{task.task}-stage", task.by_stage or task.by_elapsed),
            "Means over held-out frames: blue what was predicted, orange what came.",
        ),
        _Chart(
            "Over the episode",
            over_time(task.task, held),
            "Median and quartiles of the prediction from start to end: blue successes, orange failures.",
        ),
        _Chart(
            "Advantages",
            advantage_histogram(task.task, held, threshold),
            f"Held-out frames. Right of the line ({threshold:+.4f}) an action counts as positive.",
        ),
    ]


def reliability(task: TaskCalibration, held: Sequence[Judged]) -> str:
    def draw(axes: Axes) -> None:
        axes.plot([-1, 0], [-1, 0], color=GREY, lw=1, ls="--")
        for succeeded, colour in ((True, BLUE), (False, ORANGE)):
            chosen = [e for e in held if e.succeeded == succeeded]
            if chosen:
                axes.plot(
                    np.concatenate([e.predicted for e in chosen]), np.concatenate([e.realised for e in chosen]), ".",
                    ms=2, alpha=0.25, color=colour, rasterized=True, label="successes" if succeeded else "failures",
                )  # fmt: skip
        axes.plot([p.predicted for p in task.by_prediction], [p.realised for p in task.by_prediction], "o-",
                  color=figures.INK, ms=5, lw=1.2)  # fmt: skip
        axes.set(xlabel="predicted return", ylabel="realised return", xlim=(-1, 0.02), ylim=(-1, 0.02))
        axes.legend(loc="upper left", markerscale=6)

    return figures.draw_svg(f"reliability-{task.task}", draw)


def by_part(name: str, parts: Sequence[Part]) -> str:
    def draw(axes: Axes) -> None:
        place = np.arange(len(parts))
        axes.bar(place - 0.2, [p.predicted for p in parts], 0.36, color=BLUE, label="predicted")
        axes.bar(place + 0.2, [p.realised for p in parts], 0.36, color=ORANGE, label="realised")
        axes.set_xticks(place, [f"{p.name}\n{p.num_frames}" for p in parts], fontsize=8)
        axes.set_ylabel("mean return")
        axes.grid(axis="x", visible=False)

    return figures.draw_svg(name, draw)


def over_time(task: str, held: Sequence[Judged]) -> str:
    def draw(axes: Axes) -> None:
        progress = np.linspace(0, 1, _NUM_STEPS)
        for succeeded, colour in ((True, BLUE), (False, ORANGE)):
            curves = [
                np.interp(progress, np.linspace(0, 1, len(e.predicted)), e.predicted)
                for e in held
                if e.succeeded == succeeded
            ]
            if curves:
                low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
                axes.fill_between(100 * progress, low, high, color=colour, alpha=0.2, lw=0)
                axes.plot(100 * progress, middle, color=colour, label=f"{len(curves)} {_kind(succeeded)}")
        axes.set(xlabel="share of the episode [%]", ylabel="predicted return", ylim=(-1, 0.02))
        axes.legend(loc="lower left")

    return figures.draw_svg(f"time-{task}", draw)


def advantage_histogram(task: str, held: Sequence[Judged], threshold: float) -> str:
    def draw(axes: Axes) -> None:
        for succeeded, colour in ((True, BLUE), (False, ORANGE)):
            found = [e.advantage for e in held if e.succeeded == succeeded]
            if found:
                axes.hist(np.concatenate(found), bins=50, color=colour, alpha=0.55, label=_kind(succeeded))
        axes.axvline(threshold, color=figures.INK, lw=1.2)
        axes.set(xlabel="advantage", ylabel="frames")
        axes.legend(loc="upper left")

    return figures.draw_svg(f"advantages-{task}", draw)


def _kind(succeeded: bool) -> str:
    return "successes" if succeeded else "failures"
