"""Finds what is wrong in a store, says so in words, and mends what can be mended without losing anything that is whole."""

import dataclasses
import enum
import pathlib
import time
from collections.abc import Iterator

from sop_jax.episodes import kvstore, paths, retirement
from sop_jax.episodes.format import parse
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.episodes.zip_layout import FOOTER_BYTES, read_footer
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

LEFTOVER_AGE_S = 3600.0
"""A half-written file that nobody has touched for so long belongs to a writer that is dead."""


class Kind(enum.StrEnum):
    """What is wrong with one path.

    CORRUPT: an episode's object that intake would refuse. STRANGER: an object that no EpisodeStore writes.
    MISPLACED: a stranger that looks like a whole episode; never removed. LEFTOVER: a dead writer's half-written file.
    ORPHAN: a quarantine record about an object that is gone. DAMAGED_RECORD: a retirement record that can't be read.
    """

    CORRUPT = "corrupt"
    STRANGER = "stranger"
    MISPLACED = "misplaced"
    LEFTOVER = "leftover"
    ORPHAN = "orphan"
    DAMAGED_RECORD = "damaged_record"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `path`: below the store's root. `set_aside`: known already, and out of everybody's way."""

    path: str
    kind: Kind
    reason: str
    set_aside: bool = False


@dataclasses.dataclass(frozen=True)
class Repair:
    """One thing that was done: "quarantined", "restored" or "removed"."""

    path: str
    action: str


def find_problems(store: EpisodeStore, robot_id: str | None = None) -> Iterator[Finding]:
    """Reads every byte of every episode (of one robot). Whatever the driver reports passes through as it is."""
    set_aside = store.quarantined()
    listed = store.list_paths(robot_id)
    for path in listed:
        try:
            verify_bytes(store.read_bytes(path), path)
        except InvalidEpisodeError as error:
            yield Finding(path, Kind.CORRUPT, str(error), path in set_aside)
        except EpisodeNotFoundError:
            continue  # Retention removed it meanwhile.
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


def quarantine_corrupt(store: EpisodeStore, findings: list[Finding]) -> list[Repair]:
    """Sets corrupt episodes aside, with what is wrong as the reason."""
    done = []
    for finding in findings:
        if finding.kind is Kind.CORRUPT and not finding.set_aside:
            store.quarantine(finding.path, finding.reason)
            done.append(Repair(finding.path, "quarantined"))
    return done


def restore_from_spool(store: EpisodeStore, findings: list[Finding], spool: pathlib.Path) -> list[Repair]:
    """Puts back whole copies of corrupt or missing episodes out of a robot's spool directory, and lets intake try again.

    Retired episodes stay away. The spool is only read.
    """
    corrupt = {finding.path for finding in findings if finding.kind is Kind.CORRUPT}
    present = {*store.list_paths(), *retirement.retired_paths(store)}
    done = []
    for file in sorted([*spool.glob("*.zip"), *spool.glob("set_aside/*.zip")]):
        try:
            path = paths.episode_path(file.stem)
            if path in present and path not in corrupt:
                continue
            data = file.read_bytes()
            verify_bytes(data, path)
        except InvalidEpisodeError:
            continue
        # The record goes first: killed in between, the object is found corrupt again. And last, if intake wrote a new one.
        kvstore.remove(store.root, paths.quarantine_path(path))
        store.root.write(path, data).result()
        kvstore.remove(store.root, paths.quarantine_path(path))
        corrupt.discard(path)
        present.add(path)
        done.append(Repair(path, "restored"))
    return done


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
            (folder / finding.path).unlink(missing_ok=True)
        else:
            kvstore.remove(store.root, finding.path)
        done.append(Repair(finding.path, "removed"))
    return done


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
    for file in sorted(folder.rglob("*.__lock")):
        stat = file.stat()
        if stat.st_mtime < oldest_s:
            where = file.relative_to(folder).as_posix()
            yield Finding(where, Kind.LEFTOVER, f"{stat.st_size} bytes of a writer that was killed")


def _folder(store: EpisodeStore) -> pathlib.Path | None:
    """The store's root on a disk; None for a bucket."""
    spec = store.root.spec().to_json()
    return pathlib.Path(spec["path"]) if spec["driver"] == "file" else None
