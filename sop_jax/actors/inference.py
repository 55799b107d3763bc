"""Inference beside the robot's ticks: begun at one tick, there some ticks later.

Delays are counted in control ticks, which the rollout paces by its clock. Each implementation computes one thing at a time.
"""

import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Protocol, final

import numpy as np

from sop_jax.specs.errors import ConfigError, InferenceTimeoutError

_NUM_RECENT = 10


class Inference(Protocol):
    """One computation at a time.

        inference.start(frame, compute)
        while (chunk := inference.take(frame)) is None: ...     # once per tick; `compute`'s exceptions are raised here
        inference.drop()                                        # nobody wants the result any more

    `delay_ticks` is how long it is expected to take: the longest of the recent times, so that it is rarely too short.
    """

    @property
    def is_busy(self) -> bool: ...

    @property
    def delay_ticks(self) -> int: ...

    @property
    def max_delay_ticks(self) -> int:
        """The longest time that any computation took so far."""
        ...

    def start(self, frame: int, compute: Callable[[], np.ndarray]) -> None: ...

    def take(self, frame: int) -> np.ndarray | None: ...

    def drop(self) -> None: ...

    def close(self) -> None: ...


@final
class DelayedInference:
    """Computes inside `start`, and hands over exactly `delay_ticks` later: repeatable whatever the machine. 0 = at once."""

    def __init__(self, delay_ticks: int):
        if delay_ticks < 0:
            raise ConfigError(f"an inference delay must be >= 0 ticks, got {delay_ticks}")
        self.delay_ticks = delay_ticks
        self.max_delay_ticks = 0
        self._result: np.ndarray | None = None
        self._due = 0

    @property
    def is_busy(self) -> bool:
        return self._result is not None

    def start(self, frame: int, compute: Callable[[], np.ndarray]) -> None:
        self._result = compute()
        self._due = frame + self.delay_ticks

    def take(self, frame: int) -> np.ndarray | None:
        if self._result is None or frame < self._due:
            return None
        result, self._result = self._result, None
        self.max_delay_ticks = self.delay_ticks
        return result

    def drop(self) -> None:
        self._result = None

    def close(self) -> None:
        self._result = None


@final
class ThreadedInference:
    """Computes on a thread of its own, for as long as that takes; ticks go on meanwhile.

    A computation that nobody wants any more can't be stopped: the next one waits for it. `close` waits too.

    max_ticks: `take` raises InferenceTimeoutError for a computation that isn't there after so many ticks, and `close` waits
    no longer than `close_s`. What hangs is left behind on its thread, which doesn't keep the process alive; its result is
    thrown away. None = wait for ever.
    """

    def __init__(self, max_ticks: int | None = None, close_s: float = 1.0) -> None:
        self._max_ticks = max_ticks
        self._close_s = None if max_ticks is None else close_s
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # A thread pool's threads would be waited for at the process's end, hung or not.
        self._thread = threading.Thread(target=_compute, args=(self._work,), name="inference", daemon=True)
        self._future: concurrent.futures.Future[np.ndarray] | None = None
        self._started = 0
        self._recent: collections.deque[int] = collections.deque(maxlen=_NUM_RECENT)
        self.max_delay_ticks = 0

    @property
    def is_busy(self) -> bool:
        return self._future is not None

    @property
    def delay_ticks(self) -> int:
        return max(self._recent, default=0)

    def start(self, frame: int, compute: Callable[[], np.ndarray]) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._started = frame
        self._future = concurrent.futures.Future()
        self._work.put((self._future, compute))

    def take(self, frame: int) -> np.ndarray | None:
        if self._future is None:
            return None
        ticks = frame - self._started
        if not self._future.done():
            if self._max_ticks is not None and ticks > self._max_ticks:
                raise InferenceTimeoutError(
                    f"no chunk {ticks} ticks after its observation of frame {self._started}, expected within "
                    f"{self._max_ticks}: the policy or its device hangs, or is too slow (RolloutConfig.max_inference_s)"
                )
            return None
        future, self._future = self._future, None
        self._recent.append(ticks)
        self.max_delay_ticks = max(self.max_delay_ticks, ticks)
        return future.result()

    def drop(self) -> None:
        if self._future is not None:
            self._future.cancel()
        self._future = None

    def close(self) -> None:
        self.drop()
        self._work.put(None)
        if self._thread.ident is not None:
            self._thread.join(self._close_s)


_Work = tuple["concurrent.futures.Future[np.ndarray]", Callable[[], np.ndarray]]


def _compute(work: "queue.SimpleQueue[_Work | None]") -> None:
    while (each := work.get()) is not None:
        future, compute = each
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(compute())
        except BaseException as error:  # whoever takes the result is told, as by a thread pool
            future.set_exception(error)


def make_inference(delay_frames: int | None, max_ticks: int | None = None) -> Inference:
    """Delayed by so many ticks, or (None) by as many as it takes, but `max_ticks`."""
    return ThreadedInference(max_ticks) if delay_frames is None else DelayedInference(delay_frames)
