"""Ctrl-C that waits for the end of a control tick, so that an interrupted episode is still whole."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_deferred: dict[object, object] = {}
"""Handler of each block that is open -> the one before it. Main thread only, as signals are."""


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether Ctrl-C was pressed since; one more is handled as it was before (by default it
    raises KeyboardInterrupt at once). Blocks may be nested: the inner one takes the first. A handler of the program's own, if
    there was one, hears of it too.

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
        own = previous
        while own in _deferred:
            own = _deferred[own]
        if callable(own) and own is not signal.default_int_handler:
            own(number, frame)

    if previous is None or previous is signal.SIG_IGN:  # Set by foreign code, or switched off on purpose.
        yield pressed.is_set
        return
    _deferred[remember] = previous
    signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
        del _deferred[remember]
