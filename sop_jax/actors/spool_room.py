"""What a full spool gives up, and the marks that keep count of it.

A mark is an empty file `<episode_id>.zip.given_up`. Giving up renames the episode to its mark before it frees the bytes, so
that the count is on the disk before the loss is, and needs no room of its own.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping

from sop_jax.actors.durable_files import move_durably, sync_directory
from sop_jax.specs.identifiers import number_of_episode

MARK_SUFFIX = ".given_up"


@dataclasses.dataclass(frozen=True)
class Waiting:
    """An episode that waits for its upload; `corrected` if somebody intervened in it (demonstrations count as that).

    `ended_ns`: when it ended, on the robot's clock.
    """

    num_bytes: int
    corrected: bool
    ended_ns: int = 0


def choose_victim(waiting: Mapping[str, Waiting], busy: Collection[str] = ()) -> str | None:
    """Whom to give up first: the oldest autonomous episode, then the oldest with interventions; never a busy one.

    Age goes by the running number, which rises over restarts. The time in an id is that of the actor's start, and a robot
    that is started before it knows the date would give up its newest episodes first.
    """

    def worth(episode_id: str) -> tuple[bool, int, str]:
        return waiting[episode_id].corrected, number_of_episode(episode_id), episode_id

    return min((episode_id for episode_id in waiting if episode_id not in busy), key=worth, default=None)


def give_up(path: pathlib.Path) -> None:
    """Turns an episode's file into its mark; one that somebody removed leaves its mark too."""
    mark = path.with_name(path.name + MARK_SUFFIX)
    try:
        move_durably(path, mark)
        os.truncate(mark, 0)
    except FileNotFoundError:
        mark_given_up(path)


def mark_given_up(path: pathlib.Path) -> None:
    """Leaves the mark of an episode that found no room at all; on a disk without a free inode it leaves none."""
    with contextlib.suppress(OSError):
        path.with_name(path.name + MARK_SUFFIX).touch()
        sync_directory(path.parent)


def count_marks(directory: pathlib.Path) -> int:
    """How many episodes this directory has given up; finishes what a crash cut short, as far as the disk lets it."""
    marks = [path for path in directory.iterdir() if path.name.endswith(MARK_SUFFIX)]
    for mark in marks:
        with contextlib.suppress(OSError):
            if mark.stat().st_size:
                os.truncate(mark, 0)
    return len(marks)
