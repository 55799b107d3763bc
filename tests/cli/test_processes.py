import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sop_jax.cli import processes
from sop_jax.cli.processes import ProcessGroup, ProcessSpec


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _spec(tmp_path, name, code, **options) -> ProcessSpec:
    return ProcessSpec(name, _python(code), tmp_path / f"{name}.log", restart_delay_s=0.0, **options)


def _wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = pathlib.Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "stubborn", code))
        group.start(_spec(tmp_path, "polite", "import time; print('up', flush=True); time.sleep(60)"))
        pid = group.pid("stubborn")
        _wait_for(lambda: "up" in (tmp_path / "stubborn.log").read_text())
        _wait_for(lambda: "up" in (tmp_path / "polite.log").read_text())
        started = time.monotonic()
        assert group.stop(timeout_s=0.5) == ["stubborn"]
        assert time.monotonic() - started < 3
        assert not _exists(pid)


def test_whoever_waits_in_a_hurry_waits_less(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "HURRY_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "stubborn", code))
        _wait_for(lambda: "up" in (tmp_path / "stubborn.log").read_text())
        started = time.monotonic()
        assert group.stop(timeout_s=50, in_a_hurry=lambda: time.monotonic() > started + 0.3) == ["stubborn"]
        assert 0.3 < time.monotonic() - started < 10


def test_grandchildren_are_stopped_too(tmp_path):
    code = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(p.pid, flush=True);"
        "time.sleep(60)"
    )
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "parent", code))
        _wait_for(lambda: (tmp_path / "parent.log").read_text().strip().isdigit())
        grandchild = int((tmp_path / "parent.log").read_text())
        assert _exists(grandchild)
    _wait_for(lambda: not _exists(grandchild))


def test_the_dead_are_restarted_a_bounded_number_of_times(tmp_path):
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "robot", "print('run', flush=True); raise SystemExit(3)", max_restarts=2))
        notes = []
        _wait_for(lambda: notes.extend(group.poll()) or any(not note.restarted for note in notes))
        assert [note.restarted for note in notes] == [True, True, False]
        assert notes[0].text == "robot stopped with exit code 3; restarting it (1 of 2)"
        assert "not restarted again after 2" in notes[2].text
        assert str(tmp_path / "robot.log") in notes[2].text
        assert (tmp_path / "robot.log").read_text() == "run\n" * 3
        assert group.num_restarts == 2
        assert not group.running("robot")
        assert not group.finished("robot")


def test_a_killed_child_is_named_by_its_signal_and_a_finished_one_stays_finished(tmp_path):
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "done", "pass"))
        group.start(_spec(tmp_path, "victim", "import time; print('up', flush=True); time.sleep(60)"))
        _wait_for(lambda: "up" in (tmp_path / "victim.log").read_text())
        os.kill(group.pid("victim"), signal.SIGKILL)
        notes = []
        _wait_for(lambda: notes.extend(group.poll()) or notes)
        assert notes[0].text == "victim was ended by SIGKILL; restarting it (1 of 3)"
        _wait_for(lambda: group.poll() == [] and group.running("victim"))
        _wait_for(lambda: group.finished("done"))
        assert group.poll() == []


def test_names_must_differ(tmp_path):
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "a", "pass"))
        with pytest.raises(ValueError, match="'a' was started already"):
            group.start(_spec(tmp_path, "a", "pass"))


def test_environment_and_niceness_reach_the_child(tmp_path):
    code = "import os; print(os.environ['COLOUR'], os.nice(0), flush=True)"
    with ProcessGroup() as group:
        group.start(_spec(tmp_path, "child", code, environment={"COLOUR": "red"}, niceness=5))
        _wait_for(lambda: group.finished("child"))
    assert (tmp_path / "child.log").read_text().split() == ["red", str(os.nice(0) + 5)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_children_die_with_a_parent_that_is_killed(tmp_path):
    code = f"""
import pathlib, sys, time
from sop_jax.cli import processes
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
group = ProcessGroup()
code = "import time; print('up', flush=True); time.sleep(60)"
group.start(ProcessSpec("child", [sys.executable, "-c", code], pathlib.Path({str(tmp_path / "child.log")!r})))
print(group.pid("child"), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(_python(code), stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait_for(lambda: "up" in (tmp_path / "child.log").read_text())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_for(lambda: not _exists(child))
