"""What a number was measured on: machine, versions, time. A figure without these is a rumour."""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform

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
