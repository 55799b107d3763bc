"""Which robot a person should look at next."""

import dataclasses

from sop_jax.actors.operator.status import Status

SILENT_S = 2.0
"""A robot that says nothing for so long has lost its line."""

LEFT_ALONE = "nobody drives"
NO_SIGNAL = "no signal"
SET_SCENE = "set the scene"


@dataclasses.dataclass(frozen=True)
class Waiting:
    """Why a robot waits for a person ("" if it doesn't), how much that matters (0 .. 4), and since when [ns]."""

    reason: str = ""
    urgency: int = 0
    since_ns: int = 0


def judge(status: Status, is_silent: bool, is_driven: bool) -> tuple[str, int]:
    """Why a robot waits, and how urgently: a fault before hands that nobody holds, then help, a scene to set, a lost line."""
    if is_silent:
        return NO_SIGNAL, 1
    if status.fault:
        return f"fault: {status.fault}", 4
    if status.control == "operator" and not is_driven:
        return LEFT_ALONE, 4
    if status.asks:
        return status.asks, 3
    if status.control == "scene":
        return SET_SCENE, 2
    return "", 0


def renew(before: Waiting, reason: str, urgency: int, now_ns: int) -> Waiting:
    """The same wait goes on under the same reason; another reason begins a new one."""
    return before if reason == before.reason else Waiting(reason, urgency, now_ns)


def order(waiting: dict[str, Waiting]) -> list[str]:
    """Robots by urgency; among equals whoever waits longest comes first, those that don't wait by name."""
    return sorted(waiting, key=lambda name: (-waiting[name].urgency, waiting[name].since_ns, name))
