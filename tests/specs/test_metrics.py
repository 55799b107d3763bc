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


def test_memory_keeps_events():
    metrics = MemoryMetrics()
    metrics.write("swap", version=3)
    assert metrics.events == [{"event": "swap", "version": 3}]
