"""The processes that a fleet starts, and who ends them."""

import dataclasses
import os
import signal
import sys

import pytest

from fleet_sim import process_worker
from fleet_sim.process_worker import ProcessWorker
from fleet_sim.told_to_stop import told_to_stop
from fleet_sim.wall_processes import FleetProcess


@dataclasses.dataclass(frozen=True)
class NoSettings:
    pass


def test_ctrl_c_at_the_terminal_reaches_no_process_of_a_fleet(tmp_path, monkeypatch):
    """The terminal sends it to the group of the process that it runs: to leave that needs nothing of the child, which may
    still be starting."""
    started = []
    popen = process_worker.subprocess.Popen

    def start(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(process_worker.subprocess, "Popen", start)
    worker = ProcessWorker([sys.executable, "-c", "input()"], os.environ)
    with FleetProcess("nothing", "told_to_stop", NoSettings(), tmp_path):
        groups = [os.getpgid(process.pid) for process in started]
    worker.kill()
    assert groups == [process.pid for process in started]
    assert len(groups) == 2


@pytest.fixture
def handlers(monkeypatch):
    """What signals would do."""
    found = {}
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    return found


def test_a_process_of_a_fleet_is_told_by_sigterm_alone(handlers):
    should_stop = told_to_stop()
    assert handlers[signal.SIGINT] is signal.SIG_IGN
    assert not should_stop()
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert should_stop()


@pytest.mark.usefixtures("handlers")
def test_a_process_of_a_fleet_stops_when_who_started_it_is_gone(monkeypatch):
    should_stop = told_to_stop()
    assert not should_stop()
    monkeypatch.setattr(os, "getppid", lambda: 1)  # as Linux does it
    assert should_stop()
