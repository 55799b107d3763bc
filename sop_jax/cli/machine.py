"""What this machine has and lacks for running the loop. Each check says what it found and, if it lacks, what to do."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from sop_jax.evaluation.provenance import Provenance, describe
from sop_jax.replay.server import find_reverb_python
from sop_jax.specs.errors import MissingDependencyError

MIN_PYTHON = (3, 11)
MIN_CORES = 2
MIN_MEMORY_GB = 4.0
MIN_DISK_GB = 3.0
PROBE_TIMEOUT_S = 90.0
"""Importing TensorFlow for the first time after boot takes tens of seconds on a slow disk."""

RENDERING_FIX = (
    "apt-get install -y libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri, and leave MUJOCO_GL unset or set it to egl"
)
REVERB_FIX = "make reverb-env, or set SOP_REVERB_PYTHON to a Python that has dm-reverb 0.14"

_IMPORT_REVERB = """
import importlib.metadata
import reverb
print("dm-reverb", importlib.metadata.version("dm-reverb"), "with TensorFlow", importlib.metadata.version("tensorflow-cpu"))
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding. `needed` is False where the loop runs without it, only worse; `fix` is "" when all is well."""

    name: str
    ok: bool
    found: str
    needed: bool = True
    fix: str = ""


def check_machine(directory: pathlib.Path) -> list[Check]:
    """All checks; those that start processes run side by side. `directory` is where runs will be written."""
    slow: list[Callable[[], Check]] = [check_rendering, check_reverb, check_devices]
    with concurrent.futures.ThreadPoolExecutor(len(slow)) as pool:
        pending = [pool.submit(check) for check in slow]
        quick = [check_python(), check_cores(), check_memory(), check_disk(directory)]
        return quick + [future.result() for future in pending]


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    found = ".".join(str(part) for part in version) + f" ({platform.machine()}, {platform.system()})"
    ok = tuple(version[:2]) >= MIN_PYTHON
    wanted = ".".join(str(part) for part in MIN_PYTHON)
    return Check("Python", ok, found, fix="" if ok else f"install Python {wanted} or newer and remake .venv with it")


def check_cores(num_cores: int | None = None) -> Check:
    num = num_cores if num_cores is not None else _num_usable_cores()
    ok = num >= MIN_CORES
    fix = (
        ""
        if ok
        else f"give the machine {MIN_CORES} cores: with fewer, robots can't keep their 30 Hz beside the learner"
    )
    return Check("CPU cores", ok, f"{num} usable", needed=False, fix=fix)


def check_memory(total_bytes: int | None = None) -> Check:
    size = total_bytes if total_bytes is not None else _total_memory_bytes()
    if size is None:
        return Check("Memory", True, "unknown on this system", needed=False)
    ok = size >= MIN_MEMORY_GB * 1e9
    fix = "" if ok else f"free or add memory: the demo's processes need about {MIN_MEMORY_GB:.0f} GB"
    return Check("Memory", ok, f"{size / 1e9:.1f} GB", fix=fix)


def check_disk(directory: pathlib.Path, free_bytes: int | None = None) -> Check:
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = free_bytes if free_bytes is not None else shutil.disk_usage(existing).free
    ok = free >= MIN_DISK_GB * 1e9
    fix = "" if ok else f"free {MIN_DISK_GB - free / 1e9:.1f} GB, or write the run elsewhere"
    return Check("Disk space", ok, f"{free / 1e9:.1f} GB free in {existing}", fix=fix)


def check_rendering() -> Check:
    """Really renders, in a process of its own, by EGL unless MUJOCO_GL says otherwise."""
    backend = os.environ.get("MUJOCO_GL", "egl")
    found, ok = _probe([sys.executable, "-m", "sop_jax.cli.probes", "rendering"], {"MUJOCO_GL": backend})
    return Check("Rendering", ok, f"{backend}: {found}", fix="" if ok else RENDERING_FIX)


def check_reverb() -> Check:
    """Imports the replay server's library with the Python that the server would be started with."""
    try:
        python = find_reverb_python()
    except MissingDependencyError as error:
        return Check("Reverb server", False, "its environment is missing", fix=str(error))
    found, ok = _probe([str(python), "-c", _IMPORT_REVERB], {"TF_CPP_MIN_LOG_LEVEL": "3"})
    return Check("Reverb server", ok, found, fix="" if ok else REVERB_FIX)


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """The devices that a learner would run on. bytes_each: what JAX may use of each one's memory."""

    kind: str
    num_devices: int
    bytes_each: int


def probe_device_memory() -> DeviceMemory:
    """The devices of this host; CPUs share its memory. Raises MissingDependencyError if JAX finds none."""
    found, ok = _probe([sys.executable, "-m", "sop_jax.cli.probes", "memory"], {})
    if not ok:
        raise MissingDependencyError(
            f"JAX finds no device here: {found}. JAX_PLATFORMS=cpu rules out a broken accelerator."
        )
    devices = DeviceMemory(**json.loads(found))
    if devices.bytes_each:
        return devices
    return dataclasses.replace(devices, bytes_each=(_total_memory_bytes() or 0) // devices.num_devices)


def describe_machine(time_s: float) -> Provenance:
    """This machine at `time_s` (seconds since the Unix epoch), with the accelerators that JAX finds.

    Another process looks for them, which takes seconds: one that did it itself would keep their memory from its children.
    """
    machine = describe(time_s)
    try:
        devices = probe_device_memory()
    except MissingDependencyError:  # `sop doctor` says what is the matter; here the rest is worth telling
        return machine
    return with_accelerators(machine, devices.kind, devices.num_devices)


def with_accelerators(machine: Provenance, kind: str, num_devices: int) -> Provenance:
    """The same machine with JAX's devices (`device_kind`) named too; its CPU is named already."""
    if kind == "cpu":
        return machine
    return dataclasses.replace(machine, hardware=f"{machine.hardware}, {num_devices} x {kind}")


def check_devices() -> Check:
    found, ok = _probe([sys.executable, "-m", "sop_jax.cli.probes", "devices"], {})
    fix = "" if ok else "make setup; JAX_PLATFORMS=cpu rules out a broken accelerator"
    return Check("JAX devices", ok, found, fix=fix)


def _probe(command: Sequence[str], environment: dict[str, str]) -> tuple[str, bool]:
    """Runs a trial; returns (its last line, whether it went well)."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S:.0f} s", False
    except OSError as error:
        return f"could not be started: {error}", False
    text = done.stdout if done.returncode == 0 else done.stderr
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {done.returncode}"), done.returncode == 0


def _num_usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _total_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
