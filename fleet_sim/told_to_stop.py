"""When a process of a fleet ends: whoever started it decides, also about Ctrl-C, which doesn't reach it at the terminal."""

import os
import signal
import threading
from collections.abc import Callable


def told_to_stop() -> Callable[[], bool]:
    """From now on SIGINT goes unheard. The function tells whether SIGTERM asked this process to end, or whoever started it is
    gone. Main thread only."""
    asked, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return lambda: asked.is_set() or os.getppid() != parent
