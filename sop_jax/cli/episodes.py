"""`sop episodes ls|show|verify|retain|trace`: what a store holds, whether it is whole, how long it keeps it, who had it.

`export` and `import` are in `interchange`, whose libraries a robot's computer doesn't have.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Collection, Sequence

from rich.table import Table
from rich.text import Text

from sop_jax.cli.arguments import UsageError, parse, refuse_unused
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import console, print_json, say
from sop_jax.cli.retain import RetainArguments, retain
from sop_jax.cli.trace import TraceArguments, trace
from sop_jax.cli.work import tell_work
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.repair import (
    BAD,
    Finding,
    Kind,
    Repair,
    find_problems,
    finish_repairs,
    quarantine_bad,
    remove_found,
    restore_from_spool,
    take_back,
)
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.results import RESET_S
from sop_jax.specs.clock import EARLIEST_WALL_NS
from sop_jax.specs.records import EpisodeManifest

ACTIONS = ("ls", "show", "verify", "retain", "trace", "export", "import")


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Lists the episodes of a store, and the ones that are set aside."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    robot: str = ""
    """Only this robot's."""

    last: int = 0
    """Only the last so many of each robot; 0 = all."""

    work: bool = False
    """Also what the listed online episodes came to, and what people did for it, for each task: successes, takeovers, minutes
    per success, successes per hour. Reads more of each; leaves out those that are set aside."""

    reset_s: float = RESET_S
    """With --work: time to set up the scene again after each episode [robot seconds]."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class ShowArguments:
    """Shows one episode: who acted, what happened, when somebody took over."""

    store: str
    """Store root: a folder, or a URL."""

    episode: str
    """The episode_id."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class VerifyArguments:
    """Reads every byte of every episode and checks it; says what else is wrong in the store. Exit code 1 if an episode is bad
    that isn't set aside, or couldn't be put back. Without --repair nothing is changed."""

    store: str
    """Store root: a folder, or a URL."""

    robot: str = ""
    """Only this robot's."""

    tasks: tuple[str, ...] = ()
    """Those of this store: whole episodes of any other are bad too, and --repair takes back what was set aside
    for its task alone and is of these (a config lacked it, say). Not said: any."""

    repair: bool = False
    """Set bad episodes aside with the reason, after what the options below can do. No episode's object is ever removed, but
    to make place for a whole copy of it."""

    from_spool: pathlib.Path | None = None
    """A copy of a robot's spool directory: whole copies replace bad or missing episodes. Needs --repair."""

    remove_strangers: bool = False
    """Also remove what isn't an episode from below episodes/. Whole episodes under a wrong name stay. Needs --repair."""

    remove_leftovers: bool = False
    """Also remove half-written files older than an hour, and quarantine records without an episode. Needs --repair."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    action, rest = take_action("episodes", ACTIONS, argv)
    if action == "ls":
        return _list(parse(ListArguments, rest, "episodes ls"))
    if action == "show":
        return _show(parse(ShowArguments, rest, "episodes show"))
    if action == "retain":
        return retain(parse(RetainArguments, rest, "episodes retain"))
    if action == "trace":
        return trace(parse(TraceArguments, rest, "episodes trace"))
    return _verify(parse(VerifyArguments, rest, "episodes verify"))


def take_action(command: str, actions: Sequence[str], argv: Sequence[str]) -> tuple[str, list[str]]:
    """The action word and what follows it. `--help` in its place prints the actions and exits."""
    if argv and argv[0] in ("-h", "--help"):
        say(f"usage: sop {command} {'|'.join(actions)} [OPTIONS]\n\nsop {command} ACTION --help shows the options.")
        raise SystemExit(0)
    if not argv or argv[0] not in actions:
        got = f", got {argv[0]!r}" if argv else ""
        raise UsageError(f"expected one of {', '.join(actions)}{got} (see sop {command} --help)")
    return argv[0], list(argv[1:])


def _list(arguments: ListArguments) -> int:
    if arguments.last < 0:
        raise UsageError(f"--last must be >= 0 (0 = all), got {arguments.last}")
    if arguments.reset_s < 0:
        raise UsageError(f"--reset-s must be at least 0, got {arguments.reset_s:g}")
    if not arguments.work:
        refuse_unused(arguments, ("reset_s",), "without --work")
    store = EpisodeStore(as_store_url(arguments.store))
    summaries = store.summaries(arguments.robot or None)
    if arguments.last:
        by_robot: dict[str, list] = {}
        for summary in summaries:
            by_robot.setdefault(summary.path.rsplit("/", 1)[0], []).append(summary)
        summaries = [summary for found in by_robot.values() for summary in found[-arguments.last :]]
    set_aside = store.quarantined()
    table = Table(box=None, pad_edge=False)
    for column in ("episode", "task", "source", "version", "outcome", "frames", "takeovers", "KB", "note"):
        table.add_column(column, justify="right" if column in ("version", "frames", "takeovers", "KB") else "left")
    for summary in summaries:
        note = summary.problem or set_aside.get(summary.path, "")
        size = f"{summary.size / 1e3:.0f}"
        manifest = summary.manifest
        if manifest is None:
            table.add_row(*map(Text, (summary.path, "", "", "", "unreadable", "", "", size, note)))
            continue
        cells = (
            manifest.episode_id, manifest.task, manifest.source.value, str(manifest.policy_version), _outcome(manifest),
            str(manifest.num_frames), str(manifest.num_interventions), size, note,
        )  # fmt: skip
        table.add_row(*map(Text, cells))  # as it is: a robot may have written anything
    console.print(table)
    say(f"{len(summaries)} episodes, {len(set_aside)} set aside")
    listed = [summary.path for summary in summaries if summary.path not in set_aside]
    work = tell_work(store, listed, arguments.reset_s) if arguments.work else {}
    if arguments.json:
        told = {"work": work} if arguments.work else {}
        print_json({"num_episodes": len(summaries), "set_aside": set_aside, **told, "episodes": summaries})
    return 0


def _show(arguments: ShowArguments) -> int:
    store = EpisodeStore(as_store_url(arguments.store))
    path = episode_path(arguments.episode)
    parsed = store.read_without_images(path)
    manifest, arrays = parsed.manifest, parsed.arrays
    set_aside = store.quarantined().get(path, "")
    lines = [
        f"episode      {manifest.episode_id}",
        f"robot        {manifest.robot_id}",
        f"task         {manifest.task}: {manifest.instruction!r}",
        f"source       {manifest.source.value}, policy version {manifest.policy_version}",
        f"outcome      {_outcome(manifest)}",
        f"started      {_moment(manifest.started_ns)}",
        f"frames       {manifest.num_frames} at {manifest.control_hz:g} Hz, {len(arrays.image_frames)} with images of "
        + ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in manifest.cameras),
        f"intervened   {int(arrays.intervention.sum())} frames in {manifest.num_interventions} takeovers",
        *(
            f"             asked at frame {event.asked_frame} ({event.reason}), acted {event.takeover_frame} to "
            f"{event.handback_frame}"
            for event in manifest.takeovers
        ),
        *(f"marked       frame {mark.frame}: {mark.kind} {mark.note}" for mark in manifest.marks),
        f"reproduce    world {manifest.world or 'real'}, seed {manifest.seed}",
        f"fingerprints base {manifest.weights_base or 'none'}, normalisation {manifest.norm_stats or 'none'}",
    ]
    if set_aside:
        lines.append(f"set aside    {set_aside}")
    for line in lines:
        say(line)
    if arguments.json:
        print_json({"path": path, "set_aside": set_aside, "manifest": manifest})
    return 0


def _verify(arguments: VerifyArguments) -> int:
    extras = arguments.from_spool is not None or arguments.remove_strangers or arguments.remove_leftovers
    if extras and not arguments.repair:
        raise UsageError("--from-spool, --remove-strangers and --remove-leftovers change the store: add --repair")
    if arguments.from_spool is not None and not arguments.from_spool.is_dir():
        raise UsageError(f"--from-spool {arguments.from_spool}: expected a robot's spool directory, there is none")
    store = EpisodeStore(as_store_url(arguments.store))
    num_episodes = len(store.list_paths(arguments.robot or None))
    _check_tasks(arguments.tasks, store)
    findings = list(find_problems(store, arguments.robot or None, arguments.tasks))
    for finding in findings:
        label = "set aside" if finding.set_aside else "BAD" if finding.kind in BAD else finding.kind.value
        say(f"{label:<15}{finding.path}: {finding.reason}")
    repairs = _repair(arguments, store, findings) if arguments.repair else []
    for repair in repairs:
        say(f"{repair.action:<15}{repair.path}" + (f": {repair.problem}" if repair.problem else ""))
    bad = {finding.path: finding.reason for finding in findings if finding.kind in BAD}
    failed = [repair for repair in repairs if repair.action == "failed"]
    mended = {repair.path for repair in repairs if repair.action != "failed"}
    unexpected = [
        finding.path
        for finding in findings
        if finding.kind in BAD and not finding.set_aside and finding.path not in mended
    ]
    say(
        f"{num_episodes} episodes read, {len(bad)} bad, {len(unexpected)} of them not set aside; "
        f"{len(findings) - len(bad)} other findings" + (f"; {len(failed)} repairs failed" if failed else "")
    )
    if arguments.json:
        others = [finding for finding in findings if finding.kind not in BAD]
        print_json(
            {
                "num_episodes": num_episodes,
                "num_bad": len(bad),
                "not_set_aside": unexpected,
                "problems": bad,
                "others": others,
                "repairs": repairs,
            }
        )
    return 1 if unexpected or failed else 0


def _check_tasks(tasks: Collection[str], store: EpisodeStore) -> None:
    """A misspelt task would make every episode of the right one bad."""
    if not tasks:
        return
    there = {summary.manifest.task for summary in store.summaries() if summary.manifest is not None}
    if missing := sorted(set(tasks) - there):
        raise UsageError(
            f"--tasks: the store holds no episode of {', '.join(missing)}; it holds {', '.join(sorted(there)) or 'none'}"
        )


def _repair(arguments: VerifyArguments, store: EpisodeStore, findings: list[Finding]) -> list[Repair]:
    repairs = [*finish_repairs(store, findings), *take_back(store, findings)]
    if arguments.from_spool is not None:
        repairs += restore_from_spool(store, findings, arguments.from_spool)
    restored = {repair.path for repair in repairs if repair.action == "restored"}
    left = [finding for finding in findings if finding.path not in restored]
    kinds = (Kind.STRANGER,) * arguments.remove_strangers + (Kind.LEFTOVER, Kind.ORPHAN) * arguments.remove_leftovers
    return [*repairs, *quarantine_bad(store, left), *remove_found(store, left, kinds)]


def _moment(time_ns: int) -> str:
    if time_ns < EARLIEST_WALL_NS:
        return f"unknown: its clock knew no date, and said {time_ns / 1e9:.3f} s"
    return datetime.datetime.fromtimestamp(time_ns / 1e9, tz=datetime.UTC).isoformat(timespec="milliseconds")


def _outcome(manifest: EpisodeManifest) -> str:
    return f"{manifest.outcome.value} ({manifest.failure_kind})" if manifest.failure_kind else manifest.outcome.value
