"""What people and their devices tell a robot: JSON objects, one per message. `docs/robots.md` lists them.

Whatever arrives is checked here before anybody acts on it: names, lengths, finite numbers, ranges.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any, Literal

from sop_jax.specs.errors import SopError
from sop_jax.specs.identifiers import check_name
from sop_jax.specs.records import Outcome

MAX_SPEED_M_S = 0.25
MAX_TURN_RAD_S = 1.2
NUM_TARGETS = 16
Hand = Literal["left", "right"]


class BadMessageError(SopError):
    """A message that isn't one of the protocol's."""


@dataclasses.dataclass(frozen=True)
class Take:
    """The person wants to act. On the way to the start: the robot shall stop there."""


@dataclasses.dataclass(frozen=True)
class HandBack:
    """The policy shall act again."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """The scene is set: the next episode may begin.

    episode: the status's `num_episodes` that the person spoke about, so that what arrives late isn't taken for the next
    episode; None: whichever it is then. The same for marks.
    """

    episode: int | None = None


@dataclasses.dataclass(frozen=True)
class Mark:
    """How the episode ended, in the person's judgement: success or failure."""

    outcome: Outcome
    episode: int | None = None


@dataclasses.dataclass(frozen=True)
class StageMark:
    """The task has come so far."""

    stage: str
    episode: int | None = None


@dataclasses.dataclass(frozen=True)
class Move:
    """How one hand shall move, in the robot's base frame (x forward, y left, z up): metres and radians per second.

    gripper: 0 open .. 1 closed; None = as it is.
    """

    hand: Hand
    linear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angular: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gripper: float | None = None


@dataclasses.dataclass(frozen=True)
class Targets:
    """Absolute targets of everything that moves, in the order of records: from a device that has the robot's joints."""

    action: tuple[float, ...]


Motion = Move | Targets
OfEpisode = Ready | Mark | StageMark
"""What is said about one episode."""

Command = Take | HandBack | OfEpisode | Move | Targets


def read_object(text: str | bytes) -> dict[str, Any]:
    """One JSON object with a "type". Raises BadMessageError."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessageError(f"expected one JSON object, got {text[:80]!r}: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadMessageError(f'expected a JSON object with a "type", got {text[:80]!r}')
    return message


def is_finite(value: object) -> bool:
    """Whether a value from JSON is a number that a float can hold: no NaN, no infinity, no integer of 400 digits."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def parse_command(message: Mapping[str, Any]) -> Command:
    """The command in a message. Speeds beyond the limits are refused, not clipped. Raises BadMessageError."""
    kind = message.get("type")
    if kind == "take":
        return Take()
    if kind == "hand_back":
        return HandBack()
    if kind == "ready":
        return Ready(_episode(message.get("episode")))
    if kind == "mark":
        return Mark(_outcome(message.get("outcome")), _episode(message.get("episode")))
    if kind == "stage":
        return StageMark(_name(message.get("stage")), _episode(message.get("episode")))
    if kind == "move":
        return _move(message)
    if kind == "targets":
        return Targets(_numbers("action", message.get("action"), NUM_TARGETS, 4.0))
    raise BadMessageError(f"expected a take, hand_back, ready, mark, stage, move or targets, got {kind!r}")


def write_command(command: Command, robot_id: str = "") -> str:
    """The message of a command; `robot_id` says at a desk whom it is for."""
    name = type(command).__name__
    kind = {"HandBack": "hand_back", "StageMark": "stage"}.get(name, name.lower())
    addressed = {"robot": robot_id} if robot_id else {}
    return json.dumps({"type": kind, **addressed, **dataclasses.asdict(command)})


def _move(message: Mapping[str, Any]) -> Move:
    hand, gripper = message.get("hand"), message.get("gripper")
    if hand not in ("left", "right"):
        raise BadMessageError(f"move: hand must be left or right, got {hand!r}")
    if gripper is not None:
        (gripper,) = _numbers("gripper", [gripper], 1, 1.0)
        if gripper < 0:
            raise BadMessageError(f"move: gripper must be 0 open .. 1 closed, got {gripper}")
    x, y, z = _numbers("linear", message.get("linear", [0, 0, 0]), 3, MAX_SPEED_M_S)
    roll, pitch, yaw = _numbers("angular", message.get("angular", [0, 0, 0]), 3, MAX_TURN_RAD_S)
    return Move(hand, (x, y, z), (roll, pitch, yaw), gripper)


def _numbers(what: str, values: Any, count: int, limit: float) -> tuple[float, ...]:
    is_list = isinstance(values, list) and len(values) == count
    if not is_list or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise BadMessageError(f"{what}: expected {count} numbers, got {str(values)[:80]}")
    if not all(is_finite(value) and abs(value) <= limit + 1e-9 for value in values):
        raise BadMessageError(f"{what}: expected finite numbers of at most {limit}, got {str(values)[:80]}")
    return tuple(float(value) for value in values)


def _outcome(value: object) -> Outcome:
    if value not in (Outcome.SUCCESS.value, Outcome.FAILURE.value):
        raise BadMessageError(f"mark: outcome must be success or failure, got {value!r}")
    return Outcome(value)


def _episode(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadMessageError(f"episode must be the robot's num_episodes, or left out, got {str(value)[:80]!r}")
    return value


def _name(value: object) -> str:
    try:
        return check_name("stage", value)  # pyright: ignore[reportArgumentType] (it checks the type too)
    except SopError as error:
        raise BadMessageError(str(error)) from error
