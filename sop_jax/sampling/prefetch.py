"""Makes things ahead of their use, in a thread, a bounded number of them."""

import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError, never

T = TypeVar("T")

_NOT_AWAITED = "the batch isn't there yet, and whoever asked for it was told to stop"

_JOIN_S = 30.0
_ASK_S = 0.2
"""How often a waiting consumer asks whether it should go on waiting."""


class Prefetcher(Generic[T]):
    """Calls `make(index, should_stop)` for index = first, first + 1, ... and hands the results out in order.

    At most `depth` results wait; at depth 0 there is no thread and `next` makes its result itself. What `make` raises ends
    the thread and is raised by `next`, after the results made before it, and again by every later `next`; but an error of
    the type `passing` is raised once, and then `make` is called for the same index again. `make` should look at
    `should_stop` whenever it waits.
    """

    def __init__(
        self,
        make: Callable[[int, Callable[[], bool]], T],
        depth: int,
        first: int = 0,
        name: str = "prefetch",
        passing: type[Exception] | tuple[()] = (),
    ):
        if depth < 0:
            raise ValueError(f"Prefetcher: depth must be >= 0, got {depth}")
        self._make = make
        self._depth = depth
        self._index = first
        self._passing = passing
        self._ready: collections.deque[T] = collections.deque()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True) if depth else None
        if self._thread is not None:
            self._thread.start()

    @property
    def num_ready(self) -> int:
        """Results that wait to be handed out."""
        with self._changed:
            return len(self._ready)

    def next(self, should_stop: Callable[[], bool] = never) -> T:
        """The next result; blocks until it is there. Raises BatchStarvedError as soon as `should_stop` says so meanwhile (a
        later call may ask again), and BatchSourceStoppedError after `stop`."""
        if self._thread is None:
            return self._make_next(should_stop)
        with self._changed:
            while not (self._ready or self._error is not None or self._stopped.is_set()):
                if should_stop():
                    raise BatchStarvedError(_NOT_AWAITED)
                self._changed.wait(_ASK_S)
            if self._stopped.is_set():
                raise BatchSourceStoppedError("no further batch: the source was stopped")
            if not self._ready and (error := self._error) is not None:
                if isinstance(error, self._passing):
                    self._error = None
                    self._changed.notify_all()
                raise error
            result = self._ready.popleft()
            self._changed.notify_all()
            return result

    def stop(self) -> None:
        """Ends the thread and waits for it. May be called twice, and from any thread."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _make_next(self, should_stop: Callable[[], bool] = never) -> T:
        if self._stopped.is_set():
            raise BatchSourceStoppedError("no further batch: the source was stopped")
        try:
            result = self._make(self._index, lambda: self._stopped.is_set() or should_stop())
        except BatchSourceStoppedError:
            if self._stopped.is_set():
                raise
            raise BatchStarvedError(_NOT_AWAITED) from None
        self._index += 1
        return result

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stopped.is_set())
                try:
                    result = self._make_next()
                except self._passing as error:
                    with self._changed:
                        self._error = error
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._error is None or self._stopped.is_set())
                    continue
                with self._changed:
                    self._ready.append(result)
                    self._changed.notify_all()
        except BaseException as error:  # handed to the consumer, who raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()
