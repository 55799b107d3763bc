"""What a simulation holds at a moment: memory, open files, disk, tables, publications."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from sop_jax.specs.errors import MissingDependencyError

_PROC = pathlib.Path("/proc")


@dataclasses.dataclass(frozen=True)
class Resources:
    """At `time_s` of virtual time.

    memory_bytes: resident, of this process: simulation, tables and learner. workers_bytes: of its child processes, which play
        the episodes; None = not measured, for workers that aren't children of this process (a Ray cluster's).
    num_files: open file descriptors of this process.
    disk_bytes, num_objects: of all files below the run's folder: episodes, retirement records, publications, scratch.
    num_items: in all replay tables. num_publications: that can be read.
    """

    time_s: float
    memory_bytes: int
    workers_bytes: int | None
    num_files: int
    disk_bytes: int
    num_objects: int
    num_items: int
    num_publications: int


def measure(
    time_s: float, root: pathlib.Path, table_sizes: Mapping[str, int], workers_are_children: bool = True
) -> Resources:
    """`root`: the fleet's folder. Raises MissingDependencyError where there is no /proc."""
    if not (_PROC / "self" / "status").exists():
        raise MissingDependencyError("what a process holds is read from /proc, which this system lacks: use Linux")
    sizes = list(_sizes_below(root))
    return Resources(
        time_s=time_s,
        memory_bytes=_resident_bytes("self"),
        workers_bytes=sum(_resident_bytes(child) for child in _children()) if workers_are_children else None,
        num_files=sum(1 for _ in (_PROC / "self" / "fd").iterdir()),
        disk_bytes=sum(sizes),
        num_objects=len(sizes),
        num_items=sum(table_sizes.values()),
        num_publications=sum(1 for _ in (root / "store" / "weights").glob("[0-9]*/manifest.json")),
    )


def _sizes_below(root: pathlib.Path) -> Iterator[int]:
    for path in root.rglob("*"):
        try:
            if path.is_file():
                yield path.stat().st_size
        except FileNotFoundError:  # a worker's file, which has moved on meanwhile
            continue


def _resident_bytes(process: str) -> int:
    """0 of a process that has ended."""
    try:
        lines = (_PROC / process / "status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def _children() -> set[str]:
    """Process ids, of the children of all threads."""
    found: set[str] = set()
    for thread in (_PROC / "self" / "task").iterdir():
        try:
            found.update((thread / "children").read_text(encoding="utf-8").split())
        except FileNotFoundError:  # the thread has ended, or a kernel without this list
            continue
    return found
