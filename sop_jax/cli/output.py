"""What a command says: sentences for people on the terminal, and one JSON object as the last line for programs."""

import dataclasses
import enum
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
from rich.console import Console

_PIPED_WIDTH = 200
"""Columns of a table that goes to a file or another program, where no terminal says how wide it is."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
"""Results go to stdout."""

progress_console = Console(stderr=True, highlight=False)
"""Progress goes to stderr, so that stdout can be piped."""


def say(text: str) -> None:
    """One plain line to stdout, printed as it is."""
    console.print(text, markup=False, emoji=False, soft_wrap=True)


def note(text: str) -> None:
    """One plain line to stderr: progress, warnings."""
    progress_console.print(text, markup=False, emoji=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """The last line of a command run with --json."""
    sys.stdout.write(json.dumps(jsonable(value), sort_keys=False) + "\n")
    sys.stdout.flush()


def jsonable(value: Any) -> Any:
    """Dataclasses, enums, paths and numpy scalars as plain JSON values; numbers that aren't finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, enum.Enum):
        return jsonable(value.value)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
