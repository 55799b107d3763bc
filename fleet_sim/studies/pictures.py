"""Pictures that several studies draw: lines with their intervals."""

import dataclasses
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from sop_jax.evaluation.figures import ROBOT_COLOURS, draw_svg, share_axis
from sop_jax.evaluation.statistics import Interval

Line = Sequence[tuple[float, Interval]]
"""Points (x, value with its interval), by rising x."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """x, y: names of the axes. is_share: y goes from 0 to 1. ticks: at the lines' own x, which are few. log: x by powers."""

    x: str
    y: str = ""
    is_share: bool = True
    ticks: bool = False
    log: bool = False


def lines(name: str, drawn: Mapping[str, Line], scale: Scale, dashed: Line = ()) -> str:
    """A line per label, intervals as bars; `dashed` is a fit."""

    def draw(axes: Axes) -> None:
        xs = sorted({x for line in drawn.values() for x, _ in line})
        for number, (label, line) in enumerate(drawn.items()):
            colour = ROBOT_COLOURS[number % len(ROBOT_COLOURS)]
            at, values = [x for x, _ in line], [value for _, value in line]
            axes.plot(at, [v.value for v in values], "o-", color=colour, lw=1.6, ms=4, label=label)
            if any(v.low < v.high for v in values):
                axes.vlines(at, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.3, lw=4)
        if dashed:
            axes.plot([x for x, _ in dashed], [v.value for _, v in dashed], color="black", lw=1.2, ls=(0, (3, 2)))
        if scale.log:
            axes.set_xscale("log")
        if scale.ticks and xs:
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
            axes.minorticks_off()
        if scale.is_share:
            share_axis(axes, "y")
        else:
            highest = max((value.high for line in drawn.values() for _, value in line), default=0.0)
            axes.set_ylim(0, 1.08 * highest or 1.0)
        axes.set_xlabel(scale.x)
        axes.set_ylabel(scale.y)
        if len(drawn) > 1:
            axes.legend(loc="best", fontsize=8.5)

    return draw_svg(name, draw, height_in=3.2)


def exactly(value: float) -> Interval:
    """A value without an interval."""
    return Interval(value, value, value)
