"""What a robot tells the people who look after it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from sop_jax.actors.operator.commands import BadMessageError, is_finite
from sop_jax.specs.errors import SopError
from sop_jax.specs.identifiers import check_name

Control = Literal["between", "scene", "start", "policy", "operator"]
"""between: no episode is under way. scene: it waits until somebody has set the scene. start: it moves to
its start. policy, operator: who acts."""

_CONTROLS = ("between", "scene", "start", "policy", "operator")
_MAX_TEXT = 300
_MAX_ITEMS = 64


@dataclasses.dataclass(frozen=True)
class Status:
    """One robot at one moment.

    wants_operator: a takeover was asked for and not handed back. asks: why the robot would like help, "" if it doesn't.
    fault: what ended its last episode, if that was a fault. frame: control ticks since the episode began. state: measured
    joints [rad] and grippers. last_end: how the episode before ended, "" before the first.
    """

    robot_id: str
    task: str = ""
    instruction: str = ""
    policy_version: int = -1
    control: Control = "between"
    wants_operator: bool = False
    asks: str = ""
    fault: str = ""
    frame: int = 0
    control_hz: float = 30.0
    state: tuple[float, ...] = ()
    stages: tuple[str, ...] = ()
    stage: str = ""
    last_end: str = ""
    num_episodes: int = 0

    def to_json(self) -> str:
        return json.dumps({"type": "status", **dataclasses.asdict(self)})


def parse_status(message: Mapping[str, Any]) -> Status:
    """The status in a robot's message. Raises BadMessageError."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Status):
        value = message.get(field.name)
        if field.name in ("state", "stages"):
            value = _items(field.name, value)
        elif isinstance(field.default, str) or field.name == "robot_id":
            if not isinstance(value, str):
                raise BadMessageError(f"status: {field.name} must be a text, got {str(value)[:80]!r}")
            value = value[:_MAX_TEXT]
        elif isinstance(field.default, bool) is not isinstance(value, bool) or not is_finite(value):
            raise BadMessageError(f"status: {field.name} has the wrong type, got {str(value)[:80]!r}")
        elif isinstance(field.default, int) and not isinstance(value, int):
            raise BadMessageError(f"status: {field.name} must be a whole number, got {str(value)[:80]!r}")
        values[field.name] = value
    if values["control"] not in _CONTROLS:
        raise BadMessageError(f"status: control must be one of {_CONTROLS}, got {values['control']!r}")
    try:
        check_name("robot_id", values["robot_id"])
    except SopError as error:
        raise BadMessageError(str(error)) from error
    return Status(**values)


def _items(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise BadMessageError(f"status: {name} must be a list of at most {_MAX_ITEMS}, got {str(value)[:80]!r}")
    fits = is_finite if name == "state" else _is_short_text
    if not all(fits(item) for item in value):
        raise BadMessageError(f"status: {name} holds something else than expected: {str(value)[:80]!r}")
    return tuple(value)


def _is_short_text(item: object) -> bool:
    return isinstance(item, str) and len(item) <= _MAX_TEXT
