"""`sop doctor`: what this machine lacks, in plain words, and the command that mends it."""

import dataclasses
import importlib
import pathlib
import types
from collections.abc import Mapping, Sequence

from sop_jax.cli.arguments import parse
from sop_jax.cli.machine import Check, check_machine
from sop_jax.cli.output import print_json, say
from sop_jax.specs.clock import WallClock


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Says what this machine lacks for running the loop, and how to mend it. Exit code 1 if something needed is missing.
    With --config: whether that experiment's learner fits the devices, from shapes alone. Exit code 1 if it doesn't.
    With --live: what holds a running loop back, from its stations' metrics. Exit code 1 if something does.
    With --drill: whether anything gets lost when processes are killed at random. Exit code 1 if something does."""

    directory: pathlib.Path = pathlib.Path("runs")
    """Where runs would be written: its disk space is checked."""

    config: str = ""
    """An experiment's name, or a config.json: estimate its learner's memory in place of the other checks."""

    model: str = ""
    """With --config: a preset to estimate with (pi05, ...); default: the config's base policy."""

    devices: int = 0
    """With --config: how many devices the learner would have; default: those of this machine."""

    device_memory_gb: float = 0.0
    """With --config: memory that JAX may use on each device [GB]; default: as this machine's devices report."""

    live: bool = False
    """Ask a loop's stations for their metrics and say what its bottleneck is, in place of the other checks."""

    stations: tuple[str, ...] = ()
    """With --live: where the stations serve their metrics, HOST:PORT each (their --metrics-port)."""

    run: pathlib.Path | None = None
    """With --live: the folder of a run that is going on; its processes left their addresses there."""

    watch_s: float = 15.0
    """With --live: time between the two looks at the metrics [s]."""

    drill: bool = False
    """Run schedules of faults (kills, torn uploads, full disks ...) against a small loop of its own, in a temporary folder.
    Or, with --store, compare a deployment's ledgers, spools, store and tables; kill nothing and change nothing."""

    schedules: int = 20
    """With --drill: how many schedules."""

    seed: int = 0
    """With --drill: the first schedule's seed."""

    report: pathlib.Path | None = None
    """With --drill: where to write the report (JSON); default: nowhere."""

    store: str = ""
    """With --drill: the store of a deployment to look at: a folder, or a URL."""

    replay: str = ""
    """With --drill and --store: HOST:PORT of its replay server, whose tables are compared too. Without --store: a server that
    the schedules may empty; default: one is started, and killed."""

    replay_tls: pathlib.Path | None = None
    """With --drill and --store: folder with the certificate to show the replay server (role doctor, from launch/tls/ca.sh):
    ca.crt, tls.crt, tls.key; default: $SOP_REPLAY_TLS, or no TLS."""

    ledgers: tuple[pathlib.Path, ...] = ()
    """With --drill and --store: the robots' ledgers (sop act --ledger), or copies."""

    spools: tuple[pathlib.Path, ...] = ()
    """With --drill and --store: the robots' spool directories, or copies."""

    deadline_s: float = 120.0
    """With --drill: how long a schedule's robots, and then its last episodes, may take before it counts as failed [s]. Give
    it more on a machine that has other work."""

    draws: int = 64
    """With --drill and --store: items drawn from each table; they count for its limiter."""

    json: bool = False
    """Print one JSON object as the last line."""

    def __post_init__(self) -> None:
        given = {field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default}
        for needed, names in _BELONGS_TO.items():
            if needed not in given and (lost := sorted(given & names)):
                options = ", ".join("--" + name.replace("_", "-") for name in lost)
                raise ValueError(f"{options}: only with --{needed}")


_BELONGS_TO: Mapping[str, frozenset[str]] = types.MappingProxyType(
    {
        "live": frozenset({"stations", "run", "watch_s"}),
        "drill": frozenset({"schedules", "seed", "report", "store", "replay", "deadline_s"}),
        "store": frozenset({"replay_tls", "ledgers", "spools", "draws"}),
        "config": frozenset({"model", "devices", "device_memory_gb"}),
    }
)
"""Option -> those that mean nothing without it."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(DoctorArguments, argv, "doctor")
    if arguments.live:
        live = importlib.import_module("sop_jax.cli.doctor_live")
        return live.run_live(arguments.stations, arguments.run, arguments.watch_s, arguments.json, WallClock())
    if arguments.drill:
        return _drill(arguments)
    if arguments.config:
        # Imported late: the checks below must run where JAX is broken.
        fit = importlib.import_module("sop_jax.cli.fit")
        return fit.run_fit(
            arguments.config, arguments.model, arguments.devices, arguments.device_memory_gb, arguments.json
        )
    checks = check_machine(arguments.directory)
    for check in checks:
        say(describe(check))
    missing = [check.name for check in checks if check.needed and not check.ok]
    say(f"Missing: {', '.join(missing)}." if missing else "Everything that the demo needs is here.")
    if arguments.json:
        print_json({"ok": not missing, "missing": missing, "checks": checks})
    return 1 if missing else 0


def _drill(arguments: DoctorArguments) -> int:
    drill = importlib.import_module("sop_jax.cli.drill")
    if arguments.store:
        return drill.run_dry(
            arguments.store,
            arguments.replay,
            arguments.replay_tls,
            arguments.ledgers,
            arguments.spools,
            arguments.draws,
            arguments.json,
        )
    return drill.run_faults(
        arguments.schedules,
        arguments.seed,
        arguments.replay,
        arguments.deadline_s,
        arguments.report,
        arguments.json,
    )


def describe(check: Check) -> str:
    """One line: ok, poor (works, but badly) or missing."""
    word = "ok" if check.ok else ("missing" if check.needed else "poor")
    line = f"{word:<8}{check.name:<15}{check.found}"
    return f"{line}\n{'':<8}{'':<15}fix: {check.fix}" if check.fix else line
