"""Whole episodes of a task that isn't one of the store's: why they are set aside, and how they are told from broken ones."""

import difflib
from collections.abc import Iterable

_BEGINNING = "wrong task: "


def wrong_task(task: str, tasks: Iterable[str]) -> str:
    """The reason to set an episode of `task` aside where only `tasks` are right."""
    right = sorted(tasks)
    near = difflib.get_close_matches(task, right, n=1)
    hint = f" Did the robot mean {near[0]!r}?" if near else ""
    return f"{_BEGINNING}{task!r} is none of this store's ({', '.join(right)}).{hint}"


def is_wrong_task(reason: str) -> bool:
    """Whether an episode was set aside for nothing but its task."""
    return reason.startswith(_BEGINNING)
