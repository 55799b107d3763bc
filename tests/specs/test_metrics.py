import errno
import json

from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import JsonlMetrics, MemoryMetrics


def test_jsonl_appends_stamped_lines(tmp_path):
    path = tmp_path / "metrics" / "learner.jsonl"
    clock = ManualClock(start_ns=2_500_000_000)
    for count in range(2):  # a restarted process goes on in the same file
        metrics = JsonlMetrics(path, "learner", clock)
        metrics.write("step", loss=0.5, count=count)
        metrics.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"time_s": 2.5, "process": "learner", "event": "step", "loss": 0.5, "count": count} for count in range(2)
    ]


def test_a_line_that_an_earlier_process_left_torn_spoils_no_other(tmp_path):
    path = tmp_path / "learner.jsonl"
    path.write_bytes(b'{"event": "whole"}\n{"event": "to')
    for count in range(2):  # the second finds the file whole
        metrics = JsonlMetrics(path, "learner", ManualClock())
        metrics.write("first_use", count=count)
        metrics.close()
    whole, torn, *written = path.read_text().splitlines()
    assert (whole, torn) == ('{"event": "whole"}', '{"event": "to')
    assert [(json.loads(line)["event"], json.loads(line)["count"]) for line in written] == [
        ("first_use", 0), ("first_use", 1),
    ]  # fmt: skip


def test_a_thread_that_comes_late_writes_nothing_more_and_stops_nobody(tmp_path):
    metrics = JsonlMetrics(tmp_path / "m.jsonl", "robot-1", ManualClock())
    metrics.close()
    metrics.write("weights_unavailable")
    assert (tmp_path / "m.jsonl").read_bytes() == b""


class Disk:
    """A file that takes so many bytes in each call, or none."""

    def __init__(self, *room):
        self.room, self.content = list(room), b""

    def write(self, line):
        room = self.room.pop(0) if self.room else len(line)
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content += line[:room]
        return min(room, len(line))

    def close(self):
        pass


def test_a_full_disk_stops_nobody_and_what_is_lost_is_counted(tmp_path):
    metrics = JsonlMetrics(tmp_path / "m.jsonl", "robot-1", ManualClock())
    metrics.close()
    metrics._file = Disk(1000, 20, 0, 0)  # one line, a part of one, and then it is full
    for count in range(6):
        metrics.write("tick", count=count)
    lines = metrics._file.content.decode().splitlines()
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    assert len(lines) == len(whole) + 1  # the torn one stands alone
    told = [(line["event"], line.get("count", line.get("num"))) for line in whole]
    assert told == [("tick", 0), ("metrics_lost", 3), ("tick", 4), ("tick", 5)]


def test_memory_keeps_events():
    metrics = MemoryMetrics()
    metrics.write("swap", version=3)
    assert metrics.events == [{"event": "swap", "version": 3}]
