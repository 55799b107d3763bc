"""`report.html` of an evaluation: success, what went wrong at which stage, and the first failures in pictures."""

import base64
import dataclasses
import pathlib
from collections.abc import Mapping

from sop_jax.evaluation.evaluation_figures import failures_by_stage, kinds_of, success_by_world
from sop_jax.evaluation.pages import render_page
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.results import EvaluationResult


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """Everything on the page.

    results: by label, at least one. sheets: label -> contact sheet (JPEG) of failed trials. `seeds` says in words which
    range of seeds the trials are from.
    """

    title: str
    command: str
    seeds: str
    results: Mapping[str, EvaluationResult]
    sheets: Mapping[str, pathlib.Path]
    provenance: Provenance


def render_evaluation(data: EvaluationReport) -> str:
    """The page as HTML; equal data give an equal page."""
    results = list(data.results.values())
    colours = kinds_of(results)
    return render_page(
        "evaluation_template.html",
        data=data,
        first=results[0],
        success=success_by_world(data.results),
        colours=colours,
        charts={
            label: failures_by_stage(label, result, colours)
            for label, result in data.results.items()
            if result.num_successes < result.num_trials
        },
        sheets={label: _data_uri(path) for label, path in data.sheets.items()},
    )


def _data_uri(jpeg: pathlib.Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.read_bytes()).decode("ascii")
