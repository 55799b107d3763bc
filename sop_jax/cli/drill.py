"""`sop doctor --drill`: faults on a schedule against a small loop, or a look at a deployment that changes nothing."""

import contextlib
import pathlib
import tempfile
from collections.abc import Sequence

from rich.table import Table

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import console, jsonable, note, print_json, say
from sop_jax.cli.replay_access import open_tables
from sop_jax.drill.drill import TABLE, DrillReport, Verdict, run_drill, summarise
from sop_jax.drill.dry import check_deployment
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.run_metrics import write_json


def run_faults(
    num_schedules: int, seed: int, replay: str, deadline_s: float, report_path: pathlib.Path | None, as_json: bool
) -> int:
    """Runs schedules `seed`, `seed` + 1, ...; returns 1 if one failed, else 0."""
    if num_schedules < 1:
        raise UsageError(f"--schedules must be at least 1, got {num_schedules}")
    root = pathlib.Path(tempfile.mkdtemp(prefix="sop-drill-"))
    if replay:
        note(f"the server at {replay} must serve {TABLE.name}, and nobody else may use it: it is emptied")
    verdicts = run_drill(root, range(seed, seed + num_schedules), replay, deadline_s, tell=_tell)
    report = summarise(verdicts)
    _show(report)
    if report_path is not None:
        write_json(report_path, jsonable({**_plain(report), "schedules": verdicts}))
        say(f"report: {report_path}")
    if not report.ok:
        say(f"what the failed schedules left lies in {root}")
    if as_json:
        print_json(_plain(report))
    return 0 if report.ok else 1


def run_dry(
    store: str,
    replay: str,
    tls: pathlib.Path | None,
    ledgers: Sequence[pathlib.Path],
    spools: Sequence[pathlib.Path],
    num_draws: int,
    as_json: bool,
) -> int:
    """Checks a deployment, kills and changes nothing; returns 1 if something contradicts something, else 0."""
    for path in (*ledgers, *spools):
        if not path.exists():
            raise UsageError(f"{path} does not exist: give ledgers (sop act --ledger) and spool directories, or copies")
    with contextlib.ExitStack() as stack:
        tables = stack.enter_context(contextlib.closing(open_tables(replay, tls))) if replay else None
        report = check_deployment(EpisodeStore(as_store_url(store)), ledgers, spools, tables, num_draws)
    for problem in report.problems:
        say(f"WRONG  {problem}")
    say(
        f"{report.num_stored} episodes in the store ({report.num_set_aside} set aside, {report.num_retired} retired), "
        f"{report.num_accepted} accepted by the ledgers, {report.num_waiting} wait in spools, "
        f"{report.num_given_up} given up"
        + (f", {report.num_forgotten} gone without a record, as old ones may be" if report.num_forgotten else "")
        + f"; {report.num_items} items followed to their frames: "
        + (f"{len(report.problems)} contradictions" if report.problems else "no contradiction")
    )
    if as_json:
        print_json(report)
    return 1 if report.problems else 0


def _tell(verdict: Verdict) -> None:
    faults = ", ".join(f"{num} {fault}" for fault, num in sorted(verdict.faults.items()))
    note(
        f"seed {verdict.seed}: {'FAILED' if verdict.problems else 'good'} after {verdict.duration_s:.1f} s, "
        f"{verdict.num_accepted} episodes accepted, {verdict.num_items} items ({faults})"
    )
    for problem in verdict.problems:
        note(f"  {problem}")


def _show(report: DrillReport) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("fault", "injected", "schedules", "failed"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for fault, numbers in report.by_fault.items():
        table.add_row(str(fault), *map(str, numbers))
    console.print(table)
    say(
        f"{report.num_schedules} schedules, {report.num_faults} faults, {report.num_accepted} episodes accepted "
        f"({report.num_given_up} given up for want of room), {report.num_items} items and {report.num_samples} samples "
        f"checked: "
        + (f"{len(report.problems)} schedules FAILED" if report.problems else "nothing lost, nothing doubled")
    )


def _plain(report: DrillReport) -> dict[str, object]:
    return {"ok": report.ok, **jsonable(report)}
