import dataclasses
import math
import pathlib

import numpy as np
import pytest

from sop_jax.cli.arguments import UsageError, flag_value, parse
from sop_jax.cli.output import jsonable
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome


@dataclasses.dataclass(frozen=True)
class Inner:
    """Inner things."""

    size: int = 3

    def __post_init__(self):
        if self.size < 0:
            raise ConfigError(f"Inner.size must be >= 0, got {self.size}")


@dataclasses.dataclass(frozen=True)
class Outer:
    """Outer things."""

    name: str
    """A name."""

    inner: Inner = Inner()
    json: bool = False


def test_parsing_and_defaults():
    assert parse(Outer, ["--name", "a", "--inner.size", "5", "--json"], "x") == Outer("a", Inner(5), True)
    assert parse(Outer, [], "x", Outer("b", Inner(7))) == Outer("b", Inner(7))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--name", "a", "--iner.size", "3"], "did you mean --inner.size"),
        (["--name", "a", "--inner.size", "x"], "--inner.size"),
        ([], "--name"),
        (["--name", "a", "--inner.size", "-1"], "Inner.size must be >= 0, got -1"),
    ],
)
def test_mistakes_are_one_line(argv, message):
    with pytest.raises((UsageError, ConfigError)) as caught:
        parse(Outer, argv, "x")
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert "│" not in text
    assert "─" not in text


def test_help_prints_and_leaves(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Outer, ["--help"], "x")
    assert caught.value.code == 0
    assert "A name." in capsys.readouterr().out


def test_a_flag_before_the_parse():
    assert flag_value(["--a", "1", "--config", "c"], "--config", "d") == "c"
    assert flag_value(["--config=e"], "--config", "d") == "e"
    assert flag_value(["--config"], "--config", "d") == "d"


def test_json_values_are_plain():
    value = {
        "p": pathlib.Path("/a"),
        "o": Outcome.SUCCESS,
        "n": np.float32(0.5),
        "x": math.nan,
        "i": Inner(),
        "t": (1, 2),
    }
    assert jsonable(value) == {"p": "/a", "o": "success", "n": 0.5, "x": None, "i": {"size": 3}, "t": [1, 2]}
