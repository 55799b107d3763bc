"""Sizes, rates and durations as people write them: `780MB`, `50Mbps`, `60s`, `1.5h`, `0.1%`; and back."""

import math
import re

from sop_jax.specs.errors import ConfigError

UNLIMITED = "unlimited"

_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {f"{prefix}{unit}": scale for prefix, scale in _PREFIXES.items() for unit in ("B",)} | {
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_BITS_PER_S = {f"{prefix}bps": scale for prefix, scale in _PREFIXES.items()} | {
    f"{prefix}B/s": 8 * scale for prefix, scale in _PREFIXES.items()
}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*")


def parse_bytes(name: str, text: str) -> float:
    """`780MB` -> 780e6 [bytes]. Raises ConfigError, which names `name`."""
    return _parse(name, text, _BYTES, "a size such as 780MB")


def parse_bits_per_s(name: str, text: str) -> float:
    """`50Mbps` or `6.25MB/s` -> 50e6 [bits/s]; `unlimited` -> infinity. Raises ConfigError."""
    return _parse(name, text, _BITS_PER_S, f"a rate such as 50Mbps or 6MB/s, or {UNLIMITED}", may_be_unlimited=True)


def parse_seconds(name: str, text: str) -> float:
    """`90s`, `1.5min`, `2h` -> seconds; `unlimited` -> infinity. Raises ConfigError."""
    return _parse(name, text, _SECONDS, f"a duration such as 60s, 5min or 2h, or {UNLIMITED}", may_be_unlimited=True)


def parse_share(name: str, text: str) -> float:
    """`0.1%` or `0.001` -> 0.001. Raises ConfigError."""
    return _parse(name, text, {"": 1.0, "%": 0.01}, "a share such as 0.01 or 1%")


def show_bytes(num_bytes: float) -> str:
    """64.8e6 -> `64.8 MB`."""
    return _show(num_bytes, {"TB": 1e12, "GB": 1e9, "MB": 1e6, "KB": 1e3, "B": 1.0})


def show_seconds(duration_s: float) -> str:
    """5400 -> `1.5 h`."""
    return _show(duration_s, {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3})


def _parse(name: str, text: str, units: dict[str, float], expected: str, may_be_unlimited: bool = False) -> float:
    if may_be_unlimited and text.strip() == UNLIMITED:
        return math.inf
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ConfigError(f"{name}: expected {expected}, got {text!r}")
    number, unit = match.groups()
    if unit not in units:
        known = ", ".join(known for known in units if known)
        raise ConfigError(f"{name}: expected {expected}, got {text!r}: {_unit_fault(unit)} (units: {known})")
    return float(number) * units[unit]


def _unit_fault(unit: str) -> str:
    return f"there is no unit {unit!r} here" if unit else "the unit is missing"


def _show(value: float, units: dict[str, float]) -> str:
    """Three digits and the largest unit of which it is at least one."""
    if math.isinf(value):
        return UNLIMITED
    if value == 0:
        return f"0 {next(unit for unit, scale in units.items() if scale == 1)}"
    unit = next((unit for unit, scale in units.items() if abs(value) >= scale), list(units)[-1])
    return f"{value / units[unit]:.3g} {unit}"
