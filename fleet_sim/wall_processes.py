"""The processes of a fleet on wall time: they are told things and tell things, a line of JSON each."""

import dataclasses
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self, final

from sop_jax.specs.errors import SopError

READY = "ready"
"""What a process says once it can begin; its report is what it says last."""

FINISH = "finish"
"""What a learner is told once the robots are done."""


@dataclasses.dataclass(frozen=True)
class WallOrder:
    """When a fleet begins, by the wall clock, and for how long it works."""

    start_ns: int
    duration_s: float

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(self.duration_s * 1e9)


class WallFleetError(SopError):
    """A process of the fleet died, or the fleet was stopped before it began."""


@final
class FleetProcess:
    """`python -m fleet_sim.<module> SETTINGS`, a dataclass as JSON. Ends with the `with` block, whatever it does then.

        with FleetProcess("learner", "wall_learner", settings, root) as process:
            while (said := process.poll()) is None: ...
            process.tell({"start_ns": ...})

    What it writes to stderr goes to `root/logs/<name>.log`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        settings: Any,
        root: pathlib.Path,
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        self.name = name
        self._log = root / "logs" / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"fleet_sim.{module}", json.dumps(dataclasses.asdict(settings))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                env={**os.environ, **environment},
                process_group=0,  # Ctrl-C at the terminal, also while it starts, is for who started it
            )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"hears-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> Any | None:
        """What it said next; None if nothing yet. Raises WallFleetError if it is dead and has nothing more to say."""
        try:
            line = self._lines.get_nowait()
        except queue.Empty:
            return None
        if line is None:
            code = self._process.wait()
            self._lines.put(None)
            raise WallFleetError(f"the {self.name} of the wall-clock fleet died with exit code {code}: see {self._log}")
        return json.loads(line)

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return (self._process.poll() or 0) < 0

    def tell(self, value: Any) -> None:
        """Raises WallFleetError if it is dead."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WallFleetError(f"the {self.name} of the wall-clock fleet is dead: see {self._log}") from error

    def tell_order(self, order: WallOrder) -> None:
        """Raises WallFleetError if it is dead."""
        self.tell(dataclasses.asdict(order))

    def stop(self) -> None:
        """Asks it to come to an end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self._lines.put(line)
        self._lines.put(None)


def serve_until_stopped(work: Callable[[WallOrder], Any]) -> None:
    """The other end: says that it is ready, waits for its order, works, and tells the report (a dataclass)."""
    tell(READY)
    tell(dataclasses.asdict(work(WallOrder(**hear()))))


def tell(value: Any) -> None:
    """To whoever started this process."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hear() -> Any:
    """From whoever started this process. Blocks; ends the process if nobody is there any more."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)
    return json.loads(line)
