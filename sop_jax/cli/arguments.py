"""From a command line to a frozen dataclass; mistakes become one clear line."""

import contextlib
import dataclasses
import inspect
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from sop_jax.specs.errors import SopError

Arguments = TypeVar("Arguments")


class UsageError(SopError):
    """The command line can't be understood, or asks for something impossible."""


def parse(kind: type[Arguments], argv: Sequence[str], command: str, default: Arguments | None = None) -> Arguments:
    """Parses `argv` into `kind`, whose field docstrings are the help text. Raises UsageError, one line, on bad input.

    `default` replaces the class's own defaults (an experiment's, say). `--help` prints to stdout and exits with 0.
    """
    prog = f"sop {command}"
    complaint = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=prog,
                args=list(argv),
                description=inspect.getdoc(kind),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
                **options,
            )
    except SystemExit as exit_request:
        if exit_request.code in (0, None):
            raise
        raise UsageError(f"{_one_line(complaint.getvalue())} (see {prog} --help)") from None
    except ValueError as error:  # a dataclass refused a value
        raise UsageError(str(error)) from None


def refuse_unused(arguments: object, fields: Sequence[str], where: str) -> None:
    """Raises UsageError, naming the options, if any of `fields` differs from its default: `where`, it would do nothing."""
    defaults = {field.name: field.default for field in dataclasses.fields(arguments)}  # pyright: ignore[reportArgumentType]
    given = [f"--{name.replace('_', '-')}" for name in fields if getattr(arguments, name) != defaults[name]]
    if given:
        raise UsageError(
            f"{', '.join(given)} would do nothing {where}: leave {'it' if len(given) == 1 else 'them'} out"
        )


def flag_value(argv: Sequence[str], flag: str, default: str) -> str:
    """The value of `--flag value` or `--flag=value` before the full parse (it may choose the parser's defaults)."""
    for index, word in enumerate(argv):
        if word == flag and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return default


def _one_line(box: str) -> str:
    """The essence of the parser's framed message: what is wrong, and the closest flag if it names one.

    The first line is a title, in a frame of box characters or (where these can't be shown) without one; rules divide the
    sections below it.
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).strip().splitlines()
    sections: list[list[str]] = [[]]
    for line in lines[1:]:
        text = line.strip("│╰╯ ")
        if re.fullmatch(r"[─-]+", text):
            sections.append([])
        elif text:
            sections[-1].append(text)
    parts = [" ".join(section) for section in sections if section]
    hint = next((re.search(r"--[\w.-]+", part) for part in parts[1:] if part.startswith("Perhaps you meant")), None)
    return f"{parts[0]}; did you mean {hint[0]}?" if hint else parts[0]
