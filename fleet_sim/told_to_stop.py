"""Ctrl-C in a process of a fleet: the terminal sends it to all, and only the one that started the others heeds it."""

import signal
import threading
from collections.abc import Callable


def told_to_stop() -> Callable[[], bool]:
    """From now on Ctrl-C goes unheard. The function tells whether SIGTERM asked this process to end. Main thread only."""
    asked = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return asked.is_set
