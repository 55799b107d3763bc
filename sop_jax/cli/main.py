"""`sop COMMAND ...`. Each command is a module of this folder, imported only when it runs: starting up stays quick."""

import difflib
import importlib
import sys
from collections.abc import Sequence

from sop_jax import __version__
from sop_jax.cli.freed_memory import keep_freed_memory
from sop_jax.specs.errors import SopError

BAD_INPUT = 2
INTERRUPTED = 130

COMMANDS = {
    "demo": "The whole loop on this machine: a fleet that gets better while it works, then a report.",
    "pretrain": "Make a base policy: collect demonstrations, train on them, save the bundle.",
    "learn": "The learner: sample, update, publish.",
    "act": "One robot: act, be corrected, upload episodes, swap weights between episodes.",
    "operate": "A keyboard or a gamepad at one robot, through the operator's desk.",
    "replay": "The replay server and the intake that fills it from the store.",
    "eval": "Success rate of a policy or of the scripted expert, with intervals.",
    "study": "A grid of experiments with simulated fleets at equal budgets, and one report.",
    "fleet": "What a real deployment would do, in a moment (plan); a fleet that learns, on virtual or wall time (--clock).",
    "gallery": "A page with pictures of every task, from real rollouts of the scripted experts.",
    "episodes": "List, show, verify, retain, export and import episodes.",
    "weights": "List, verify and roll back published weights; make policies of them; import and export.",
    "doctor": "What this machine lacks, in plain words.",
}
"""Command -> what it does. `sop x` runs `run(argv)` of the module `sop_jax.cli.x`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 good, 1 a negative answer, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview())
        return 0 if words else BAD_INPUT
    if words[0] == "--version":
        sys.stdout.write(f"sop-jax {__version__}\n")
        return 0
    if words[0] not in COMMANDS:
        return _complain(f"sop: unknown command {words[0]!r}{_near(words[0])} (see sop --help)")
    keep_freed_memory()
    # The one place that imports late: `sop --help` and each command load only what they need.
    command = importlib.import_module(f"sop_jax.cli.{_module(words)}")
    try:
        return command.run(words[1:])
    except BrokenPipeError:  # the reader of our output left
        sys.stderr.close()
        return 0
    except (SopError, OSError) as error:
        return _complain(f"sop {words[0]}: {error}")
    except SystemExit as request:  # --help inside a command
        return int(request.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED


def _module(words: Sequence[str]) -> str:
    """A robot's own computer has no training code, which the experiments of plain `sop act` bring along, and no Parquet."""
    has_station = any(word.partition("=")[0] == "--station" for word in words)
    if words[0] == "episodes" and words[1:2] in (["export"], ["import"]):
        return "interchange"
    return "act_station" if words[0] == "act" and has_station else words[0]


def _overview() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: sop COMMAND [OPTIONS]", "", *lines, "", "sop COMMAND --help shows options, units, defaults.", ""]
    )


def _near(word: str) -> str:
    matches = difflib.get_close_matches(word, COMMANDS, n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""


def _complain(message: str) -> int:
    sys.stderr.write(" ".join(message.split()) + "\n")
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
