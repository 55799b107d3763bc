"""A group of child processes that starts together, is restarted when one dies, and stops together."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from sop_jax.specs.clock import Clock, WallClock

HURRY_S = 5.0
"""How long children may take to end by themselves when a person waits for it."""
_LOOK_S = 0.05
_KILL_GRACE_S = 2.0
"""How long a process may take to vanish after SIGKILL before it is left to the kernel."""


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
    """One child: its command line, where its output goes, and how often it may be restarted after dying.

    `environment` is added to the parent's. `niceness` >= 0 lowers the child's priority (10 is politely behind). The n-th
    restart waits n * `restart_delay_s` first.
    """

    name: str
    command: Sequence[str]
    log_path: pathlib.Path
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_restarts: int = 3
    restart_delay_s: float = 0.5
    niceness: int = 0


@dataclasses.dataclass(frozen=True)
class Note:
    """Something that happened to a child, in one line for a person."""

    name: str
    text: str
    restarted: bool


class ProcessGroup:
    """Starts children, restarts those that die, and leaves none behind.

        with ProcessGroup() as group:
            group.start(spec)
            while working:
                for note in group.poll(): ...      # restarts the dead, a bounded number of times

    Each child is the leader of its own session, so that Ctrl-C at the terminal reaches only the parent, which then stops
    the children in its order. `stop` sends SIGTERM to the children, waits, then sends SIGKILL to what is left of their
    process groups, their own children included. Not thread-safe; start from the main thread (Linux ties a child to its
    parent thread).
    """

    def __init__(self, clock: Clock | None = None):
        self._clock = clock or WallClock()
        self._specs: dict[str, ProcessSpec] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, int] = {}
        self._due_ns: dict[str, int] = {}

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, spec: ProcessSpec) -> None:
        if spec.name in self._specs:
            raise ValueError(f"process {spec.name!r} was started already; names in a group must differ")
        self._specs[spec.name] = spec
        self._restarts[spec.name] = 0
        self._launch(spec)

    def poll(self) -> list[Note]:
        """Notes who died with an error and restarts those whose delay is over. Exit code 0 means finished: left alone."""
        notes = []
        for name, child in list(self._children.items()):
            if child.poll() in (None, 0):
                continue
            if name not in self._due_ns:
                notes.append(self._bury(name, child))
            elif self._clock.now_ns() >= self._due_ns[name]:
                del self._due_ns[name]
                self._launch(self._specs[name])
        return notes

    def _bury(self, name: str, child: "subprocess.Popen[bytes]") -> Note:
        """Ends what a dead child left behind and settles whether it will be restarted."""
        _signal_group(child.pid, signal.SIGKILL)
        spec, died = self._specs[name], f"{name} {_how_it_ended(child.returncode)}"
        if self._restarts[name] >= spec.max_restarts:
            del self._children[name]
            return Note(name, f"{died}; not restarted again after {spec.max_restarts}: see {spec.log_path}", False)
        self._restarts[name] += 1
        self._due_ns[name] = self._clock.now_ns() + round(self._restarts[name] * spec.restart_delay_s * 1e9)
        return Note(name, f"{died}; restarting it ({self._restarts[name]} of {spec.max_restarts})", True)

    def wait(self, duration_s: float) -> None:
        """Lets time pass between two polls."""
        self._clock.sleep_s(duration_s)

    def running(self, name: str) -> bool:
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def finished(self, name: str) -> bool:
        """Whether the child ended by itself with exit code 0."""
        child = self._children.get(name)
        return child is not None and child.poll() == 0

    def describe(self, name: str) -> str:
        """One word for the display: running, finished, restarting or dead."""
        if name in self._due_ns:
            return "restarting"
        return "running" if self.running(name) else "finished" if self.finished(name) else "dead"

    def pid(self, name: str) -> int:
        return self._children[name].pid

    @property
    def num_restarts(self) -> int:
        return sum(self._restarts.values())

    def stop(
        self,
        names: Iterable[str] | None = None,
        timeout_s: float = 10.0,
        in_a_hurry: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """Stops these children (all, by default), together; returns the names of those that had to be killed.

        They get `timeout_s` to end by themselves; once `in_a_hurry` says so, HURRY_S at most.
        """
        wanted = list(self._children) if names is None else list(names)
        chosen = {name: self._children.pop(name) for name in wanted if name in self._children}
        for child in chosen.values():
            child.terminate()  # it alone: a child that has children of its own stops them in its own order
        self._wait_all(chosen.values(), timeout_s, in_a_hurry)
        killed = [name for name, child in chosen.items() if child.poll() is None]
        for child in chosen.values():
            _signal_group(child.pid, signal.SIGKILL)  # also what a child left behind in its group
        self._wait_all(chosen.values(), _KILL_GRACE_S, lambda: False)
        for name in chosen:
            self._due_ns.pop(name, None)
            del self._specs[name]
        return killed

    def _wait_all(
        self, children: Iterable["subprocess.Popen[bytes]"], timeout_s: float, in_a_hurry: Callable[[], bool]
    ) -> None:
        hurried, deadline_ns = False, self._clock.now_ns() + round(timeout_s * 1e9)
        for child in children:
            while child.poll() is None and self._clock.now_ns() < deadline_ns:
                if not hurried and in_a_hurry():
                    hurried, deadline_ns = True, min(deadline_ns, self._clock.now_ns() + round(HURRY_S * 1e9))
                self._clock.sleep_s(_LOOK_S)

    def _launch(self, spec: ProcessSpec) -> None:
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-m", "sop_jax.cli.child", str(spec.niceness), str(os.getpid())]
        with spec.log_path.open("ab") as log:
            self._children[spec.name] = subprocess.Popen(
                [*guard, *spec.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **spec.environment},
                start_new_session=True,
            )


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"stopped with exit code {code}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # gone already
        return
