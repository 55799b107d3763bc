"""Finds what is wrong in a store, says so in words, and mends what can be mended without losing anything that is whole."""

import dataclasses
import enum
import functools
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator

from sop_jax.episodes import kvstore, paths, retirement
from sop_jax.episodes.format import parse
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.episodes.wrong_task import is_wrong_task, wrong_task
from sop_jax.episodes.zip_layout import FOOTER_BYTES, read_footer
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

LEFTOVER_AGE_S = 3600.0
"""A half-written file that nobody has touched for so long belongs to a writer that is dead."""


class Kind(enum.StrEnum):
    """What is wrong with one path.

    CORRUPT: an episode's object that intake would refuse. WRONG_TASK: a whole episode of a task that, as was said, isn't one
    of this store's. RIGHT_TASK: set aside for a wrong task alone, and its task, as was said, is one of this store's.
    STRANGER: an object that no EpisodeStore writes. MISPLACED: a stranger that looks like a whole episode; never removed.
    LEFTOVER: a dead writer's half-written file.
    ORPHAN: a quarantine record about an object that is gone. DAMAGED_RECORD: a retirement record that can't be read.
    UNFINISHED: a whole copy was about to replace the object, and whoever did that was cut short.
    """

    CORRUPT = "corrupt"
    WRONG_TASK = "wrong_task"
    RIGHT_TASK = "right_task"
    STRANGER = "stranger"
    MISPLACED = "misplaced"
    LEFTOVER = "leftover"
    ORPHAN = "orphan"
    DAMAGED_RECORD = "damaged_record"
    UNFINISHED = "unfinished"


BAD = (Kind.CORRUPT, Kind.WRONG_TASK)
"""Kinds of episodes that nobody should train on: `quarantine_bad` sets them aside."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `path`: below the store's root. `set_aside`: known already, and out of everybody's way."""

    path: str
    kind: Kind
    reason: str
    set_aside: bool = False


@dataclasses.dataclass(frozen=True)
class Repair:
    """One thing that was done: "quarantined", "restored" or "removed"; or "failed", and then `problem` says why."""

    path: str
    action: str
    problem: str = ""


def find_problems(store: EpisodeStore, robot_id: str | None = None, tasks: Collection[str] = ()) -> Iterator[Finding]:
    """Reads every byte of every episode (of one robot). Whatever the driver reports passes through as it is.

    tasks: those of this store, where somebody knows: whole episodes of others are found too, and those of these that were set
        aside for their task. () = any.
    """
    set_aside = store.quarantined()
    listed = store.list_paths(robot_id)
    for path in listed:
        try:
            task = verify_bytes(store.read_bytes(path), path).manifest.task
        except InvalidEpisodeError as error:
            yield Finding(path, Kind.CORRUPT, str(error), path in set_aside)
        except EpisodeNotFoundError:
            continue  # Retention removed it meanwhile.
        else:
            if tasks and task not in tasks:
                yield Finding(path, Kind.WRONG_TASK, wrong_task(task, tasks), path in set_aside)
            elif tasks and is_wrong_task(set_aside.get(path, "")):
                yield Finding(
                    path, Kind.RIGHT_TASK, f"{task!r} is one of this store's, set aside as {set_aside[path]}", True
                )
    for path in _unfinished(store, robot_id):
        yield Finding(
            path,
            Kind.UNFINISHED,
            "a whole copy was about to replace it: verify --repair goes on, with --from-spool if it isn't in its place yet",
        )
    if robot_id is not None:
        return
    for path in store.list_strangers():
        yield _judge_stranger(store, path)
    yield from _leftovers(store)
    for path in sorted(set_aside.keys() - set(listed)):
        yield Finding(paths.quarantine_path(path), Kind.ORPHAN, f"it speaks of {path}, which is not in the store")
    for path in retirement.retired_paths(store):
        try:
            retirement.read_record(store, path)
        except InvalidEpisodeError as error:
            yield Finding(paths.retired_path(path), Kind.DAMAGED_RECORD, str(error))


def quarantine_bad(store: EpisodeStore, findings: list[Finding]) -> list[Repair]:
    """Sets episodes of the `BAD` kinds aside, the finding as the reason. Those that are gone meanwhile are left out."""
    done = []
    for finding in findings:
        if finding.kind not in BAD or finding.set_aside:
            continue
        try:
            size = len(store.read_bytes(finding.path))
        except InvalidEpisodeError:  # far too large
            size = 0
        except EpisodeNotFoundError:
            continue
        except Exception as error:  # storage drivers raise what they like
            done.append(_failed(finding.path, error))
            continue
        set_aside = functools.partial(store.quarantine, finding.path, finding.reason, size=size)
        done.append(_attempt(finding.path, "quarantined", set_aside))
    return done


def restore_from_spool(store: EpisodeStore, findings: list[Finding], spool: pathlib.Path) -> list[Repair]:
    """Puts back whole copies of corrupt or missing episodes out of a robot's spool directory, and lets intake try again.

    Retired episodes stay away. The spool is only read. An episode that can't be put back is told, and stops no other.
    """
    corrupt = {finding.path for finding in findings if finding.kind is Kind.CORRUPT}
    present = {*store.list_paths(), *retirement.retired_paths(store)}
    done = []
    for file in sorted([*spool.glob("*.zip"), *spool.glob("set_aside/*.zip")]):
        try:
            path = paths.episode_path(file.stem)
        except InvalidEpisodeError:
            continue
        if path in present and path not in corrupt:
            continue
        try:
            data = file.read_bytes()
            verify_bytes(data, path)
        except InvalidEpisodeError:
            continue
        except OSError as error:
            done.append(_failed(path, error))  # it names the file in the spool
            continue
        done.append(_attempt(path, "restored", functools.partial(_put_back, store, path, data)))
        if done[-1].action == "restored":
            corrupt.discard(path)
            present.add(path)
    return done


def take_back(store: EpisodeStore, findings: list[Finding]) -> list[Repair]:
    """Lets intake take in episodes that were set aside for a task which is right."""
    return [
        _attempt(finding.path, "restored", functools.partial(_release, store, finding.path))
        for finding in findings
        if finding.kind is Kind.RIGHT_TASK
    ]


def finish_repairs(store: EpisodeStore, findings: list[Finding]) -> list[Repair]:
    """Finishes what `restore_from_spool` was cut short in, where the whole copy is in its place: lets intake try again."""
    done = []
    for finding in findings:
        if finding.kind is not Kind.UNFINISHED:
            continue
        try:
            verify_bytes(store.read_bytes(finding.path), finding.path)
        except (InvalidEpisodeError, EpisodeNotFoundError):  # It takes the copy in the spool to go on here.
            continue
        except Exception as error:  # storage drivers raise what they like
            done.append(_failed(finding.path, error))
            continue
        done.append(_attempt(finding.path, "restored", functools.partial(_release, store, finding.path)))
    return done


def _put_back(store: EpisodeStore, path: str, data: bytes) -> None:
    """Replaces an object by a whole copy of the same episode, without ever writing over anything: a bucket forbids that.

    Mark, old object away, whole copy in, quarantine record away, mark away. Whatever cuts this short, the object is set
    aside if it was, the copy is in the spool, and the mark tells the next run. It may all be done again from the start.

    Raises EpisodeExistsError if a whole episode with other bytes is there by now; it stays.
    """
    kvstore.create(store.root, paths.repair_path(path), b"a whole copy is about to replace this episode\n")
    try:
        verify_bytes(store.read_bytes(path), path)
    except InvalidEpisodeError:
        kvstore.remove(store.root, path)
    except EpisodeNotFoundError:
        pass
    store.put_bytes(paths.episode_of_path(path), data)
    _release(store, path)


def _release(store: EpisodeStore, path: str) -> None:
    kvstore.remove(store.root, paths.quarantine_path(path))
    kvstore.remove(store.root, paths.repair_path(path))


def _unfinished(store: EpisodeStore, robot_id: str | None) -> list[str]:
    below = paths.QUARANTINE if robot_id is None else f"{paths.QUARANTINE}{robot_id}/"
    found = (paths.episode_of_repair(key) for key in kvstore.list_below(store.root, below))
    return [path for path in found if path is not None]


def remove_found(store: EpisodeStore, findings: list[Finding], kinds: tuple[Kind, ...]) -> list[Repair]:
    """Removes strangers, leftovers or orphans. Raises ValueError for a kind that may hold something whole."""
    if refused := set(kinds) - {Kind.STRANGER, Kind.LEFTOVER, Kind.ORPHAN}:
        raise ValueError(f"{sorted(refused)} are never removed: they may hold what exists nowhere else")
    done = []
    for finding in findings:
        if finding.kind not in kinds:
            continue
        if finding.kind is Kind.LEFTOVER:
            folder = _folder(store)
            assert folder is not None, "only disks have leftovers"
            remove = functools.partial((folder / finding.path).unlink, missing_ok=True)
        else:
            remove = functools.partial(kvstore.remove, store.root, finding.path)
        done.append(_attempt(finding.path, "removed", remove))
    return done


def _attempt(path: str, action: str, act: Callable[[], object]) -> Repair:
    """Acts; what goes wrong with one path is told, and stops no other."""
    try:
        act()
    except Exception as error:  # storage drivers raise what they like
        return _failed(path, error)
    return Repair(path, action)


def _failed(path: str, error: Exception) -> Repair:
    return Repair(path, "failed", f"{type(error).__name__}: {error}")


def _judge_stranger(store: EpisodeStore, path: str) -> Finding:
    try:
        data = store.read_bytes(path)
        if read_footer(data[-FOOTER_BYTES:], path).size != len(data):
            return Finding(path, Kind.STRANGER, "no EpisodeStore writes such a name, and it is no whole episode")
    except (InvalidEpisodeError, EpisodeNotFoundError):
        return Finding(path, Kind.STRANGER, "no EpisodeStore writes such a name, and it is no whole episode")
    try:
        episode_id = parse(data, path).manifest.episode_id
    except InvalidEpisodeError as error:
        return Finding(path, Kind.MISPLACED, f"it looks like an episode under a wrong name: {error}")
    return Finding(
        path, Kind.MISPLACED, f"a whole episode under a wrong name: {paths.episode_path(episode_id)} is its path"
    )


def _leftovers(store: EpisodeStore) -> Iterator[Finding]:
    """Temporary files of TensorStore's file driver, which its listings leave out. Buckets have none."""
    folder = _folder(store)
    if folder is None:
        return
    oldest_s = time.time() - LEFTOVER_AGE_S
    # What lives goes on meanwhile: uploads give their files a name, folders of old weights are removed.
    locks = [pathlib.Path(where) / name for where, _, names in os.walk(folder) for name in names if _is_lock(name)]
    for file in sorted(locks):
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        if stat.st_mtime < oldest_s:
            where = file.relative_to(folder).as_posix()
            yield Finding(where, Kind.LEFTOVER, f"{stat.st_size} bytes of a writer that was killed")


def _is_lock(name: str) -> bool:
    return name.endswith(".__lock")


def _folder(store: EpisodeStore) -> pathlib.Path | None:
    """The store's root on a disk; None for a bucket."""
    spec = store.root.spec().to_json()
    return pathlib.Path(spec["path"]) if spec["driver"] == "file" else None
