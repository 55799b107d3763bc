"""What a finished demo says: summary.json, the table, the report, and the files for other tools."""

import json
import shlex
import shutil
import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from configs.experiment import DemoConfig
from configs.files import to_json
from sop_jax.cli.demo_phases import AFTER, BEFORE, CONTROL, LOOP, PHASES, read_result
from sop_jax.cli.locations import find_in_repository
from sop_jax.cli.machine import describe_machine
from sop_jax.cli.output import console, jsonable, say
from sop_jax.cli.run_directory import RunDirectory, RunStart
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.filmstrips import choose_filmstrips
from sop_jax.evaluation.report import ReportData, write_report
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_history import RunHistory
from sop_jax.evaluation.run_metrics import (
    RunReader,
    RunTotals,
    totals_of,
    write_json,
    write_merged_log,
    write_tensorboard,
)
from sop_jax.evaluation.run_tracker import ROLLING_EPISODES
from sop_jax.evaluation.statistics import Interval, difference_interval
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError, SopError


class UnfinishedRunError(SopError):
    """The run hasn't come to its evaluations yet."""


def finish(config: DemoConfig, run: RunDirectory, command: str) -> dict[str, Any]:
    """Writes everything that a finished run leaves, prints the table, and returns the summary. `command` is the present one:
    how to repeat the run, if it hasn't written down how it began."""
    before, after = read_result(run, BEFORE), read_result(run, AFTER)
    if before is None or after is None:
        raise UnfinishedRunError(f"{run.root} has no evaluations yet: go on with sop demo --resume {run.root}")
    control, control_note = find_control(config, run, before)
    store = EpisodeStore(run.store_url)
    reader = RunReader(run.metrics, store)
    reader.poll()
    start = run.read_start() or RunStart(command, describe_machine(WallClock().now_ns() / 1e9))
    command = _repeating(start.command, run)
    history = reader.history()
    totals = totals_of(history)
    loop = run.read_phase(LOOP) or {}
    elapsed_s = sum((run.read_phase(phase) or {}).get("elapsed_s", 0.0) for phase in PHASES)
    summary = summarise_run(before, after, control, history, totals)
    summary = {
        **summary, "elapsed_s": elapsed_s, "num_restarts": loop.get("num_restarts", 0), "command": command,
        "run": str(run.root),
    }  # fmt: skip
    write_json(run.summary, jsonable(summary))
    write_merged_log(run.metrics, run.root / "metrics.jsonl")
    shutil.rmtree(run.tensorboard, ignore_errors=True)  # a second file would draw every point twice
    write_tensorboard(history, run.tensorboard)
    write_report(
        ReportData(
            title=config.title,
            command=command,
            task=config.world.task,
            before=before,
            after=after,
            control=control,
            control_note=control_note,
            totals=totals,
            history=history,
            filmstrips=choose_filmstrips(history, store),
            provenance=start.machine,
            config=to_json(config),
            elapsed_s=elapsed_s,
            notes=tuple(loop.get("notes", ())),
        ),
        run.report,
    )
    console.print(results_table(before, after, control, history))
    if control_note:
        say(control_note)
    say(_verdict(before, after))
    return summary


def _repeating(command: str, run: RunDirectory) -> str:
    """The command that gives the whole run at one go: a control may have been asked for after it was first finished."""
    words = shlex.split(command)
    missing = run.read_phase(CONTROL) is not None and "--control" not in words
    return shlex.join([*words, "--control"]) if missing else command


def summarise_run(
    before: EvaluationResult,
    after: EvaluationResult,
    control: EvaluationResult | None,
    history: RunHistory,
    totals: RunTotals,
) -> dict[str, Any]:
    """The numbers of a run, flat: what `--json` prints."""
    rise = difference_interval(before.counts, after.counts)
    first, last = _intervention_rates(history)
    values: dict[str, Any] = {
        "task": before.task,
        "success_before": before.success,
        "success_before_low": before.success_low,
        "success_before_high": before.success_high,
        "success_after": after.success,
        "success_after_low": after.success_low,
        "success_after_high": after.success_high,
        "rise": rise.value,
        "rise_low": rise.low,
        "rise_high": rise.high,
        "intervals_apart": after.success_low > before.success_high,
        "num_eval_trials": after.num_trials,
        "successes_per_hour_before": before.successes_per_hour,
        "successes_per_hour_after": after.successes_per_hour,
        "interventions_per_episode_first": first,
        "interventions_per_episode_last": last,
        "num_episodes": totals.num_episodes,
        "num_frames": totals.num_frames,
        "num_interventions": totals.num_interventions,
        "num_intervention_frames": totals.num_intervention_frames,
        "num_demonstrations": totals.num_demonstrations,
        "num_publications": totals.num_publications,
        "num_swaps": totals.num_swaps,
        "learner_steps": totals.learner_steps,
        "median_steps_per_s": totals.median_steps_per_s,
        "median_wait_share": totals.median_wait_share,
        "num_corrections_returned": totals.num_corrections_returned,
    }
    values.update(_with_interval("median_staleness_s", totals.median_staleness_s))
    values.update(_with_interval("median_staleness_versions", totals.median_staleness_versions))
    values.update(_with_interval("median_correction_latency_s", totals.median_correction_latency_s))
    if control is not None:
        values["success_control"] = control.success
        values["success_control_low"] = control.success_low
        values["success_control_high"] = control.success_high
    return values


def results_table(
    before: EvaluationResult, after: EvaluationResult, control: EvaluationResult | None, history: RunHistory
) -> Table:
    """Before, control, after."""
    first, last = _intervention_rates(history)
    table = Table(title=f"{before.task}: {before.num_trials} trials each, 95% intervals", title_justify="left")
    for name in ("", "success", "interval", "successes/h", "interventions per episode"):
        table.add_column(name, justify="left" if not name else "right")
    rows = [("base policy (before)", before, first)]
    if control is not None:
        rows.append(("control: demonstrations only", control, None))
    rows.append(("after the loop", after, last))
    for label, result, rate in rows:
        table.add_row(
            label, f"{result.success:.1%}", f"[{result.success_low:.1%}, {result.success_high:.1%}]".replace("[", "\\["),
            f"{result.successes_per_hour:.0f}", "" if rate is None else f"{rate:.2f}",
        )  # fmt: skip
    return table


def _verdict(before: EvaluationResult, after: EvaluationResult) -> str:
    rise = difference_interval(before.counts, after.counts)
    apart = "lies above" if after.success_low > before.success_high else "does not lie above"
    return (
        f"success changed by {100 * rise.value:+.0f} points [{100 * rise.low:+.0f}, {100 * rise.high:+.0f}]; the "
        f"interval after {apart} the interval before"
    )


def find_control(
    config: DemoConfig, run: RunDirectory, before: EvaluationResult
) -> tuple[EvaluationResult | None, str]:
    """This run's control, or the stored one if it was made from the same base, by as many steps as this run's learner took,
    and on the same trials; and a sentence on where it comes from, or why there is none."""
    own = read_result(run, CONTROL)
    if own is not None:
        steps = (run.read_phase(CONTROL) or {}).get("learner_step")
        return own, f"The control was run here: {steps} learner steps on demonstrations alone, from the same base."
    if not config.control_result:
        return None, "No control was run; add --control."
    path = find_in_repository(config.control_result)
    if not path.exists():
        return None, "No control was run, and none is stored; add --control."
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        result = EvaluationResult.from_json(stored["result"])
    except (ValueError, KeyError, ConfigError) as error:
        return None, f"The stored control {path} can't be read ({error}); add --control."
    if result.task != before.task or (result.base != before.base and stored.get("base") != before.base):
        return None, f"The stored control {path} belongs to another base policy; add --control."
    if trials := _differences(_trials_of(result), _trials_of(before)):
        return None, f"The stored control {path} belongs to other trials ({trials}); add --control."
    steps = {"learner steps": stored.get("learner_step")}
    if training := _differences(steps, {"learner steps": (run.read_phase(LOOP) or {}).get("learner_step")}):
        return None, f"The stored control {path} belongs to another training ({training}); add --control."
    return result, (
        f"The control is a stored result ({stored['learner_step']} learner steps on demonstrations alone, from this base); "
        "--control repeats it."
    )


def _trials_of(result: EvaluationResult) -> dict[str, Any]:
    """What two evaluations must have in common to stand in one table."""
    return {"trials": result.num_trials, "seed": result.seed, "reset [s]": result.reset_s}


def _differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs, in words; "" if nothing does."""
    return ", ".join(f"{name}: {stored[name]} there, {here[name]} here" for name in here if stored[name] != here[name])


def _intervention_rates(history: RunHistory) -> tuple[float | None, float | None]:
    """Takeovers per episode among the first and among the last episodes of the run."""
    counts = [episode.num_interventions for episode in history.episodes if episode.counts]
    if not counts:
        return None, None
    num = min(ROLLING_EPISODES, max(1, len(counts) // 2))
    return statistics.fmean(counts[:num]), statistics.fmean(counts[-num:])


def _with_interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
