"""Ctrl-C that waits for the end of a control tick, so that an interrupted episode is still whole."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether Ctrl-C was pressed since; one more is handled as it was before (by default it
    raises KeyboardInterrupt at once). Blocks may be nested: the inner one takes the first.

    Outside the main thread, where Python delivers no signals, the function always says no.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def remember(number, frame):
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    if previous is None or previous is signal.SIG_IGN:  # Set by foreign code, or switched off on purpose.
        yield pressed.is_set
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
