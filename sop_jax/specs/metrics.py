"""Metrics as JSON lines: one file per process, one object per event, each stamped with wall time."""

import json
import os
import pathlib
import threading
from collections.abc import Mapping

from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.interfaces import Metrics

LOOPBACK = "127.0.0.1"
"""The network interface where metrics are served unless another is named: this machine alone reaches it."""


class JsonlMetrics:
    """Appends `{"time_s": ..., "process": ..., "event": ..., **values}` lines to a file; each is written at once, so that a
    killed process loses nothing it wrote.

    A disk that refuses them (full, gone) stops nobody: lines are lost, and counted in a "metrics_lost" event (num) as soon
    as it takes some again. What a process before left torn is ended first, so that it spoils no line but its own.
    """

    def __init__(self, path: pathlib.Path, process: str, clock: Clock | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._process = process
        self._clock = clock or WallClock()
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        self._num_lost = 0
        self._is_torn = _ends_mid_line(path)
        """The file ends in the middle of a line."""

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        line = self._line(event, values)
        with self._lock:
            if self._num_lost:
                if not self._append(self._line("metrics_lost", {"num": self._num_lost})):
                    self._num_lost += 1
                    return
                self._num_lost = 0
            self._num_lost += not self._append(line)

    def _line(self, event: str, values: Mapping[str, float | int | bool | str]) -> bytes:
        stamps = {"time_s": self._clock.now_ns() / 1e9, "process": self._process, "event": event}
        return json.dumps({**stamps, **values}).encode() + b"\n"

    def _append(self, line: bytes) -> bool:
        whole = b"\n" + line if self._is_torn else line
        try:
            num_bytes = self._file.write(whole) or 0
        except (OSError, ValueError):  # closed: a thread hung in a store while its process came to the end
            return False
        if num_bytes:
            self._is_torn = num_bytes < len(whole)
        return num_bytes == len(whole)

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _ends_mid_line(path: pathlib.Path) -> bool:
    """Whether the file lacks its last newline: the process or the machine went down, or the disk was full, in mid-line."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class NoMetrics:
    """Throws everything away."""

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        del event, values


class BothMetrics:
    """Hands every event to several places."""

    def __init__(self, *places: Metrics):
        self._places = places

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        for place in self._places:
            place.write(event, **values)


class MemoryMetrics:
    """Keeps events in a list, for tests."""

    def __init__(self) -> None:
        self.events: list[dict[str, float | int | bool | str]] = []

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        self.events.append({"event": event, **values})
