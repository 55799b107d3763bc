"""`sop replay` keeps server and intake going, whatever fails."""

from sop_jax.cli import replay
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.specs.errors import ReplayUnavailableError
from sop_jax.specs.metrics import MemoryMetrics


class Service:
    """A server that is away until it was started often enough, behind a proxy that doesn't start at first."""

    def __init__(self, num_starts, num_mends):
        self.starts_left, self.mends_left = num_starts, num_mends

    @property
    def is_running(self):
        return self.starts_left == 0

    def state_id(self, timeout_s):
        if self.starts_left:
            raise ReplayUnavailableError("away")
        return "1"

    def restart(self):
        self.starts_left -= 1
        if self.starts_left:
            raise ReplayUnavailableError("the port is in use")

    def mend_proxy(self):
        if not self.mends_left:
            return False
        self.mends_left -= 1
        if self.mends_left:
            raise ReplayUnavailableError("nginx does not serve")
        return True


class Stop:
    """Says stop once so many looks were made."""

    def __init__(self, looks):
        self.looks, self.waits = looks, []

    def __call__(self):
        return len(self.looks) >= 3

    def wait(self, timeout_s):
        self.waits.append(timeout_s)


def test_a_restart_that_fails_is_tried_again(capsys):
    looks, service = [], Service(num_starts=3, num_mends=2)
    stop = Stop(looks)

    def look():
        looks.append(None)
        return IntakeReport(inserted=1, backlog=2 - len(looks))

    metrics = MemoryMetrics()
    replay._serve(look, service, service, stop, 0.5, metrics)
    told = capsys.readouterr().err
    assert told.count("did not start, and will be tried again: the port is in use") == 2
    assert "nginx has ended, and did not start again yet" in told
    assert "nginx has ended; it was started again" in told
    # A pause after each start that failed, and after a look that left nothing to do; none while there is a backlog.
    assert stop.waits == [replay._RESTART_PAUSE_S, replay._RESTART_PAUSE_S, 0.5, 0.5]
    # Intake, which tells of the tables, wasn't asked to look yet.
    assert metrics.events == [{"event": "server_silent", "num_looks": 1, "reason": "away"}] * 3
