import os
import signal

import pytest

from sop_jax.cli.stopping import StopRequests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    calls = []
    with StopRequests(on_request=lambda: calls.append(1)) as stop:
        assert not stop()
        assert not stop.wait(0.0)
        os.kill(os.getpid(), number)
        assert stop.wait(5.0)
        assert calls == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
