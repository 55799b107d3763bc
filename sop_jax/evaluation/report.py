"""`report.html`: a run on one self-contained page, readable without a network and in ten years."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sop_jax.evaluation import figures
from sop_jax.evaluation.filmstrips import Filmstrip
from sop_jax.evaluation.pages import render_page, write_page
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_history import RunHistory
from sop_jax.evaluation.run_metrics import RunTotals
from sop_jax.evaluation.statistics import Interval, difference_interval

_TEMPLATE = "report_template.html"


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    `control` is the result of the same number of learner steps on demonstrations alone, from the same base; `control_note`
    says where it comes from (this run, or a stored one). `elapsed_s` is the wall time of the whole run.
    """

    title: str
    command: str
    task: str
    before: EvaluationResult
    after: EvaluationResult
    control: EvaluationResult | None
    control_note: str
    totals: RunTotals
    history: RunHistory
    filmstrips: tuple[Filmstrip, ...]
    provenance: Provenance
    config: Mapping[str, Any]
    elapsed_s: float
    notes: tuple[str, ...] = ()

    @property
    def rise(self) -> Interval:
        return difference_interval(self.before.counts, self.after.counts)

    @property
    def intervals_apart(self) -> bool:
        """Whether the interval after lies above the interval before."""
        return self.after.success_low > self.before.success_high


@dataclasses.dataclass(frozen=True)
class _Chart:
    title: str
    svg: str
    says: str


def render_report(data: ReportData) -> str:
    """The page as HTML."""
    results = {"base policy (before)": data.before}
    if data.control is not None:
        results["control: demonstrations only"] = data.control
    results["after the loop"] = data.after
    return render_page(
        _TEMPLATE,
        data=data,
        results=results,
        comparison=figures.comparison(results),
        charts=_charts(data.history),
        config_text=json.dumps(data.config, indent=2),
    )


def write_report(data: ReportData, path: pathlib.Path) -> None:
    """Writes the page; a reader never sees half of it."""
    write_page(render_report(data), path)


def _charts(history: RunHistory) -> list[_Chart]:
    return [
        _Chart(
            "Success while working",
            figures.success_curve(history),
            f"Share of the last {figures.ROLLING_EPISODES} episodes that succeeded without help, with its 95% interval. A "
            "false alarm of the supervisor counts as a failure, so this runs below the evaluation.",
        ),
        _Chart(
            "Interventions per episode",
            figures.interventions_curve(history),
            f"Takeovers in the last {figures.ROLLING_EPISODES} episodes, per episode.",
        ),
        _Chart(
            "Policy versions in use",
            figures.versions_curve(history),
            "What the learner has published, and what each robot acts with. Robots change only between episodes.",
        ),
        _Chart(
            "Staleness",
            figures.staleness_histogram(history),
            "Seconds since the acting weights were published, at the middle of each episode.",
        ),
        _Chart(
            "Correction latency",
            figures.latency_histogram(history),
            "From a failure seen to the first action of a policy that was trained on its correction.",
        ),
        _Chart(
            "Sampler",
            figures.sampler_curve(history),
            "Share of a task's examples asked from the online buffer, and given: its limiter holds back items used often."
            " The rest comes from demonstrations.",
        ),
        _Chart("Learner speed", figures.learner_curve(history), "Learner steps per second, beside the robots."),
        _Chart("Training loss", figures.loss_curve(history), "Mean loss of a batch, and its average over 20 samples."),
    ]
