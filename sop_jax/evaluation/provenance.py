"""What a number was measured on: machine, versions, time. A figure without these is a rumour."""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Sequence

from sop_jax import __version__

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "mujoco", "dm-control", "numpy")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where and when a run took place. `created` is UTC, ISO 8601."""

    created: str
    hardware: str
    system: str
    versions: dict[str, str]


def describe(time_s: float) -> Provenance:
    """This machine at `time_s` (seconds since the Unix epoch)."""
    created = datetime.datetime.fromtimestamp(time_s, tz=datetime.UTC).isoformat(timespec="seconds")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    versions = {"sop-jax": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Provenance(
        created=created,
        hardware=f"{cores} CPU cores ({_cpu_name()}), {_memory_gb()}",
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        versions=versions,
    )


def with_revision(machine: Provenance) -> Provenance:
    """The same with the git revision of this software among its versions, if it lies in a repository of its own; "-dirty"
    says that tracked files had been changed."""
    if not (revision := _revision(pathlib.Path(__file__))):
        return machine
    return dataclasses.replace(machine, versions={**machine.versions, "revision": revision})


def together(found: Sequence[Provenance]) -> Provenance:
    """What parts of one result were made on: the time of the last, and every machine and version that differs. Raises
    ValueError if there are none."""
    if not found:
        raise ValueError("together: expected the provenance of at least one part, got none")
    found = sorted(found, key=lambda part: part.created)
    names = dict.fromkeys(name for part in found for name in part.versions)
    return Provenance(
        created=found[-1].created,
        hardware=_listed(part.hardware for part in found),
        system=_listed(part.system for part in found),
        versions={name: _listed(part.versions[name] for part in found if name in part.versions) for name in names},
    )


def _listed(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _revision(file: pathlib.Path) -> str:
    # why ls-files: what is installed into an environment may lie within the repository of another project
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return ""
    return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or ""


def _git(folder: pathlib.Path, *words: str) -> str | None:
    """What git says; None if it isn't there, or refuses."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB memory"
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
