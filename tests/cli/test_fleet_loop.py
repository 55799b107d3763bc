"""The loop with other processes in place of its own."""

import dataclasses
import itertools
import sys
import time

import pytest

from configs.registry import DEMOS
from sop_jax.cli import fleet_loop
from sop_jax.cli.fleet_loop import LoopBrokenError, LoopProgress, run_loop
from sop_jax.cli.processes import ProcessSpec
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.specs.clock import ManualClock


class HurriedClock(ManualClock):
    """Sleeps for a fraction of what it is asked: real processes beside it get some time, and a test doesn't take long."""

    def sleep_s(self, duration_s):
        time.sleep(min(duration_s, 0.05))
        super().sleep_s(duration_s)


SO_FAR = LoopProgress(100.0, 2, ("[0:50] a note",))


@pytest.fixture
def learner_runs(tmp_path, monkeypatch):
    """A function that puts a learner which runs this code, and is restarted once, in place of all processes."""

    def replace(code: str) -> None:
        spec = ProcessSpec("learner", [sys.executable, "-c", code], tmp_path / "learner.log", max_restarts=1)
        monkeypatch.setattr(fleet_loop, "process_specs", lambda config, run, port: [spec])

    return replace


def test_a_loop_that_breaks_tells_what_it_has_come_to(tmp_path, learner_runs):
    kept = []
    learner_runs("raise SystemExit(3)")
    config = dataclasses.replace(DEMOS["restock_tiny"], max_loop_s=1e6)
    with pytest.raises(LoopBrokenError, match="learner stopped with exit code 3; not restarted again after 1"):
        run_loop(config, RunDirectory(tmp_path), HurriedClock(), lambda: False, SO_FAR, kept.append)
    restarted = next(progress for progress in kept if progress.num_restarts == 3)
    assert len(restarted.notes) == 2  # kept at once: the next kill may come first
    assert kept[-1].elapsed_s > 100.0
    assert kept[-1].num_restarts == 3
    assert kept[-1].notes[0] == "[0:50] a note"
    assert [note.partition("learner ")[2] for note in kept[-1].notes[1:]] == [
        "stopped with exit code 3; restarting it (1 of 1)",
        f"stopped with exit code 3; not restarted again after 1: see {tmp_path / 'learner.log'}",
    ]


def test_a_kill_costs_seconds_of_what_the_loop_remembers(tmp_path, learner_runs):
    kept, clock = [], HurriedClock()
    learner_runs("import time; time.sleep(600)")
    end = run_loop(
        DEMOS["restock_tiny"], RunDirectory(tmp_path), clock, lambda: clock.now_ns() >= 30e9, SO_FAR, kept.append
    )
    assert not end.finished
    assert end.progress == kept[-1]
    moments = [progress.elapsed_s for progress in kept if progress.elapsed_s < 130.0]
    assert moments[0] == 100.0
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) == 5.0
    assert moments[-1] >= 125.0


def test_the_time_of_earlier_stretches_counts(tmp_path, learner_runs):
    learner_runs("import time; time.sleep(600)")
    config, clock = DEMOS["restock_tiny"], HurriedClock()
    so_far = LoopProgress(config.max_loop_s - 10.0)
    assert run_loop(config, RunDirectory(tmp_path), clock, lambda: False, so_far, lambda progress: None).finished
    assert config.max_loop_s <= so_far.elapsed_s + clock.now_ns() / 1e9 < config.max_loop_s + 100.0
