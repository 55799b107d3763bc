import math

import pytest

from fleet_sim.quantities import (
    parse_bits_per_s,
    parse_bytes,
    parse_seconds,
    parse_share,
    show_bytes,
    show_seconds,
)
from sop_jax.specs.errors import ConfigError


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_bytes, "780MB", 780e6),
        (parse_bytes, "1.5 GB", 1.5e9),
        (parse_bytes, "2MiB", 2**21),
        (parse_bytes, "7B", 7),
        (parse_bits_per_s, "50Mbps", 50e6),
        (parse_bits_per_s, "6.25MB/s", 50e6),
        (parse_bits_per_s, "unlimited", math.inf),
        (parse_seconds, "250ms", 0.25),
        (parse_seconds, "1.5min", 90),
        (parse_seconds, "2h", 7200),
        (parse_seconds, "1e1s", 10),
        (parse_share, "0.1%", 0.001),
        (parse_share, ".5", 0.5),
    ],
)
def test_what_people_write(parse, text, value):
    assert parse("x", text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_bits_per_s, "50", "--x: expected a rate such as 50Mbps .* got '50': the unit is missing"),
        (parse_bits_per_s, "50MB", "no unit 'MB' here .*MB/s"),
        (parse_bytes, "780mb", "no unit 'mb' here"),
        (parse_bytes, "unlimited", "expected a size such as 780MB"),
        (parse_seconds, "-3s", "expected a duration .* got '-3s'"),
        (parse_seconds, "nan", "expected a duration"),
        (parse_share, "half", "expected a share such as 0.01 or 1%"),
    ],
)
def test_what_can_not_be_understood(parse, text, message):
    with pytest.raises(ConfigError, match=message):
        parse("--x", text)


def test_back_to_words():
    assert show_bytes(64.8e6) == "64.8 MB"
    assert show_bytes(0) == "0 B"
    assert show_bytes(math.inf) == "unlimited"
    words = ["0 s", "12.5 ms", "59 s", "1.5 min", "1.5 h", "2 d"]
    assert [show_seconds(duration_s) for duration_s in (0, 0.0125, 59, 90, 5400, 172800)] == words
