"""Clocks. Every interval in this project asks a clock that was passed in, so that a simulation can own time."""

import threading
import time
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Tells and spends time.

    `now_ns` counts nanoseconds since the Unix epoch on wall clocks and since the start on simulated ones; it never runs
    backwards. `sleep_s` blocks the caller (negative or zero returns at once). Both are thread-safe.
    """

    def now_ns(self) -> int: ...

    def sleep_s(self, duration_s: float) -> None: ...


EARLIEST_WALL_NS = 1_577_836_800_000_000_000
"""2020-01-01 UTC. A clock that tells less doesn't know the date, and counts from its own start: a simulated one, or that of a
robot without a real-time clock that hasn't been told the time yet."""


def age_s(since_ns: int, now_ns: int) -> float | None:
    """Seconds from `since_ns` to `now_ns`, which two clocks may have told; None if only one of them knew the date."""
    if (since_ns < EARLIEST_WALL_NS) != (now_ns < EARLIEST_WALL_NS):
        return None
    return (now_ns - since_ns) / 1e9


class WallClock:
    """Real time, optionally sped up: at `rate` 2.0 a robot's second passes in half a second of the machine's."""

    def __init__(self, rate: float = 1.0):
        if not rate > 0:
            raise ValueError(f"WallClock rate must be positive, got {rate}")
        self.rate = rate
        self._epoch_ns = time.time_ns()
        self._start_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        return self._epoch_ns + int((time.monotonic_ns() - self._start_ns) * self.rate)

    def sleep_s(self, duration_s: float) -> None:
        if duration_s > 0:
            time.sleep(duration_s / self.rate)


class ManualClock:
    """Time that moves only when somebody sleeps or calls `advance_s`; for tests and for simulation on virtual time."""

    def __init__(self, start_ns: int = 0):
        self._now_ns = start_ns
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            return self._now_ns

    def sleep_s(self, duration_s: float) -> None:
        self.advance_s(max(0.0, duration_s))

    def advance_s(self, duration_s: float) -> None:
        if duration_s < 0:
            raise ValueError(f"time can't go back: advance_s({duration_s})")
        with self._lock:
            self._now_ns += round(duration_s * 1e9)


class Ticker:
    """Paces a loop at a fixed rate: `wait` sleeps until the next tick and returns how late it was, in seconds.

    A loop that falls behind by more than one period starts counting afresh instead of hurrying to catch up: a robot that
    was late must not then move faster than it was told to.
    """

    def __init__(self, clock: Clock, rate_hz: float):
        self._clock = clock
        self._period_ns = round(1e9 / rate_hz)
        self._next_ns = clock.now_ns() + self._period_ns

    def wait(self) -> float:
        now_ns = self._clock.now_ns()
        late_ns = now_ns - self._next_ns
        if late_ns < 0:
            self._clock.sleep_s(-late_ns / 1e9)
        if late_ns > self._period_ns:
            self._next_ns = now_ns
        self._next_ns += self._period_ns
        return max(0, late_ns) / 1e9
