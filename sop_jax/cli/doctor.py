"""`sop doctor`: what this machine lacks, in plain words, and the command that mends it."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sop_jax.cli.arguments import parse
from sop_jax.cli.machine import Check, check_machine
from sop_jax.cli.output import print_json, say


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Says what this machine lacks for running the loop, and how to mend it. Exit code 1 if something needed is missing."""

    directory: pathlib.Path = pathlib.Path("runs")
    """Where runs would be written: its disk space is checked."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(DoctorArguments, argv, "doctor")
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
