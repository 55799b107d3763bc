"""Mutations that a fuzzer doesn't find by turning bits: JSON stays JSON, one value in it is another."""

import json
import random
from typing import Any

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", "x", "3", "../../etc", "\x1b[2J", "\ud800", "robot-9", "a" * 300, [], {}, [[]], [{}], {"": []}, [0] * 200,
)  # fmt: skip


def mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """One value replaced, removed, doubled or moved to another name; None if it is no JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.randrange(1, 3)):
        document = _changed(document, rng)
    # As manifests are written: other spacing would be refused before anything is looked at.
    return (json.dumps(document, indent=rng.choice([1, 1, None])) + rng.choice(["\n", "\n", ""])).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value that differs in one place, at any depth."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(_VALUES)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.15:
            return value[:at] + value[at + 1 :]
        return [*value, value[at]] if kind < 0.3 else [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    key = rng.choice(list(value))
    kind = rng.random()
    if kind < 0.1:
        return {name: held for name, held in value.items() if name != key}
    if kind < 0.2:
        return {**value, str(rng.choice(_VALUES)): value[key]}
    return {name: _changed(held, rng) if name == key else held for name, held in value.items()}
