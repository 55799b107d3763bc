"""Metrics as JSON lines: one file per process, one object per event, each stamped with wall time."""

import json
import pathlib
import threading

from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.interfaces import Metrics


class JsonlMetrics:
    """Appends `{"time_s": ..., "process": ..., "event": ..., **values}` lines to a file; each line is flushed at once, so
    that a killed process loses nothing it wrote."""

    def __init__(self, path: pathlib.Path, process: str, clock: Clock | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._process = process
        self._clock = clock or WallClock()
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        line = json.dumps({"time_s": self._clock.now_ns() / 1e9, "process": self._process, "event": event, **values})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()


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
