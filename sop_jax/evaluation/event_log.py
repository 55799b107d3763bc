"""Reads what the processes of a run measured: `metrics/*.jsonl`, one file per process, while they are being written."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

Value = float | int | bool | str


@dataclasses.dataclass(frozen=True)
class Event:
    """One line of a metrics file: who wrote it, when (wall time, seconds since the Unix epoch), and what."""

    time_s: float
    process: str
    name: str
    values: Mapping[str, Value]

    def number(self, key: str, default: float = 0.0) -> float:
        value = self.values.get(key, default)
        return float(value) if isinstance(value, int | float) else default

    def text(self, key: str, default: str = "") -> str:
        value = self.values.get(key, default)
        return value if isinstance(value, str) else default


class EventReader:
    """Follows a directory of JSON-lines files.

        reader = EventReader(run / "metrics")
        new_events = reader.poll()      # in order of time within one poll

    A last line without its newline is left for the next poll; a line that isn't an event (a process was killed while it
    wrote, and the next one went on behind it) is skipped and counted in `num_bad_lines`.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._offsets: dict[pathlib.Path, int] = {}
        self.num_bad_lines = 0

    def poll(self) -> list[Event]:
        events: list[Event] = []
        for path in sorted(self._directory.glob("*.jsonl")):
            events.extend(self._read_new(path))
        return sorted(events, key=lambda event: event.time_s)

    def _read_new(self, path: pathlib.Path) -> list[Event]:
        offset = self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self._offsets[path] = offset + complete
        parsed = [_parse(line) for line in data[:complete].splitlines() if line.strip()]
        self.num_bad_lines += parsed.count(None)
        return [event for event in parsed if event is not None]


def _parse(line: bytes) -> Event | None:
    try:
        values = json.loads(line)
        return Event(float(values.pop("time_s")), str(values.pop("process")), str(values.pop("event")), dict(values))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
