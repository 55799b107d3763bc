"""An evaluation's pictures as inline SVG: success by world, and where and how trials failed."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sop_jax.evaluation.figures import BLUE, INK, draw_svg, share_axis
from sop_jax.evaluation.results import EvaluationResult

KIND_COLOURS = ("#d9730d", "#2563a8", "#8b5cf6", "#2f855a", "#b83280", "#0e7490", "#a16207", "#9aa5b1")
"""Of kinds of failure, the most frequent first; the last serves all that are left."""
NO_STAGE = "all"
"""The only row where the robot doesn't know its stage."""


def kinds_of(results: Sequence[EvaluationResult]) -> dict[str, str]:
    """Each kind of failure that occurred -> its colour on the whole page, the most frequent first."""
    totals: dict[str, int] = {}
    for result in results:
        for kind, count in result.failures.items():
            totals[kind] = totals.get(kind, 0) + count
    order = sorted(totals, key=lambda kind: (-totals[kind], kind))
    return {kind: KIND_COLOURS[min(place, len(KIND_COLOURS) - 1)] for place, kind in enumerate(order)}


def success_by_world(results: Mapping[str, EvaluationResult]) -> str:
    """Success rates with their 95% intervals, one row per label, the first on top."""

    def draw(axes: Axes) -> None:
        for row, result in enumerate(reversed(list(results.values()))):
            axes.plot([result.success_low, result.success_high], [row, row], color=BLUE, lw=7, alpha=0.28,
                      solid_capstyle="round")  # fmt: skip
            axes.plot(result.success, row, "o", color=BLUE, ms=8, clip_on=False)
            axes.annotate(f"{result.success:.0%}", (result.success, row), (0, 8), textcoords="offset points",
                          ha="center", color=BLUE, fontsize=10.5, fontweight="bold")  # fmt: skip
        axes.set_yticks(range(len(results)), list(results)[::-1], color=INK, fontsize=10.5)
        axes.set_ylim(-0.5, len(results) - 0.35)
        axes.grid(axis="y", visible=False)
        share_axis(axes, "x")
        axes.set_xlim(-0.025, 1.03)  # room for a rate of 0
        axes.set_xlabel("success rate, 95% interval")

    return draw_svg("success_by_world", draw, width_in=8.6, height_in=0.75 + 0.55 * len(results))


def failures_by_stage(label: str, result: EvaluationResult, colours: Mapping[str, str]) -> str:
    """Trials that failed, one bar per furthest stage, stacked by kind; `colours` from `kinds_of`."""
    stages = result.failure_stages or {NO_STAGE: result.failures}

    def draw(axes: Axes) -> None:
        for row, kinds in enumerate(reversed(list(stages.values()))):
            left = 0
            for kind in sorted(kinds, key=list(colours).index):
                axes.barh(row, kinds[kind], left=left, color=colours[kind], height=0.62, edgecolor="white", lw=0.8)
                left += kinds[kind]
            axes.annotate(str(left), (left, row), (5, 0), textcoords="offset points", va="center", fontsize=9.5)
        axes.set_yticks(range(len(stages)), list(stages)[::-1], color=INK)
        axes.set_ylim(-0.6, len(stages) - 0.4)
        most = max(sum(kinds.values()) for kinds in stages.values())
        axes.set_xlim(0, 1.12 * most)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("failed trials")

    return draw_svg(f"failures_{label}", draw, height_in=0.85 + 0.36 * len(stages))
