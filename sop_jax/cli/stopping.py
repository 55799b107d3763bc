"""Ctrl-C and SIGTERM as a question that a loop asks: should I stop?"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class StopRequests:
    """While entered, SIGINT and SIGTERM set a flag instead of ending the process; a second one of them interrupts at once.

        with StopRequests() as requested:
            learner.run(should_stop=requested)

    `on_request` is called on the first signal, inside the signal handler; `signal` says which it was. Main thread only.
    """

    def __init__(self, on_request: Callable[[], None] | None = None):
        self._on_request = on_request
        self._requested = threading.Event()
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequests":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # pyright: ignore[reportArgumentType]

    def __call__(self) -> bool:
        return self._requested.is_set()

    def call(self, on_request: Callable[[], None]) -> None:
        """Also calls this on the first signal; at once, if that has come already."""
        self._on_request = on_request
        if self._requested.is_set():
            on_request()

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until a request comes or the time is over; returns whether one came."""
        return self._requested.wait(timeout_s)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested.is_set():
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self._requested.set()
        if self._on_request is not None:
            self._on_request()
