"""`sop doctor`: what this machine lacks, in plain words, and the command that mends it."""

import dataclasses
import importlib
import pathlib
from collections.abc import Sequence

from sop_jax.cli.arguments import parse
from sop_jax.cli.machine import Check, check_machine
from sop_jax.cli.output import print_json, say


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Says what this machine lacks for running the loop, and how to mend it. Exit code 1 if something needed is missing.
    With --config: whether that experiment's learner fits the devices, from shapes alone. Exit code 1 if it doesn't."""

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

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(DoctorArguments, argv, "doctor")
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


def describe(check: Check) -> str:
    """One line: ok, poor (works, but badly) or missing."""
    word = "ok" if check.ok else ("missing" if check.needed else "poor")
    line = f"{word:<8}{check.name:<15}{check.found}"
    return f"{line}\n{'':<8}{'':<15}fix: {check.fix}" if check.fix else line
