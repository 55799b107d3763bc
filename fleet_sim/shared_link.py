"""A link that transfers share equally, each capped at its robot's own rate, as a fluid on virtual time."""

import heapq
import math

import simpy

_UNLIMITED_BPS = 1e15
"""Stands for a rate without limit: a publication of 1 GB takes 8 us."""


class SharedLink:
    """Carries transfers at min(own rate, capacity / number under way); nothing while it is down.

        yield link.transfer(num_bits)

    All transfers under way run at one rate, so one counter says how many bits each of them has got since the counter began:
    a transfer ends when the counter has moved on by its size. Each start and end costs O(log n).
    """

    def __init__(self, environment: simpy.Environment, own_bps: float, capacity_bps: float):
        self._environment = environment
        self._own_bps = min(own_bps, _UNLIMITED_BPS)
        self._capacity_bps = min(capacity_bps, _UNLIMITED_BPS * 1e6)
        self._is_up = True
        self._counter = 0.0
        self._counted_s = environment.now
        self._under_way: list[tuple[float, int, simpy.Event]] = []
        self._num_started = 0
        self._wake: simpy.Event | None = None

    @property
    def num_under_way(self) -> int:
        return len(self._under_way)

    def transfer(self, num_bits: float) -> simpy.Event:
        """An event that comes when the last bit has arrived."""
        self._count()
        done = self._environment.event()
        heapq.heappush(self._under_way, (self._counter + num_bits, self._num_started, done))
        self._num_started += 1
        self._plan_next_end()
        return done

    def set_up(self, is_up: bool) -> None:
        """An outage begins or ends; what is under way stands still meanwhile."""
        self._count()
        self._is_up = is_up
        self._plan_next_end()

    def _rate_bps(self) -> float:
        return min(self._own_bps, self._capacity_bps / len(self._under_way)) if self._is_up else 0.0

    def _count(self) -> None:
        now_s = self._environment.now
        if self._under_way:
            self._counter += self._rate_bps() * (now_s - self._counted_s)
        else:
            self._counter = 0.0  # begins anew whenever it can: no loss of precision over days
        self._counted_s = now_s

    def _plan_next_end(self) -> None:
        if not self._under_way or not self._is_up:
            self._wake = None
            return
        left_s = max(0.0, self._under_way[0][0] - self._counter) / self._rate_bps()
        # A wait so short that the clock would not move is over now.
        wake = self._environment.timeout(left_s)
        wake.callbacks.append(self._end_next)  # type: ignore[union-attr]  # a fresh timeout always has its list
        self._wake = wake

    def _end_next(self, wake: simpy.Event) -> None:
        if wake is not self._wake:  # Something started, or the link went down, since this was planned.
            return
        first = self._under_way[0][0]
        self._count()
        self._counter = max(self._counter, first)
        while self._under_way and self._under_way[0][0] <= self._counter * (1 + 1e-12):
            heapq.heappop(self._under_way)[2].succeed()
        self._plan_next_end()


def outages(environment: simpy.Environment, links: tuple[SharedLink, ...], draw_up_s, draw_down_s):
    """A process: the links go down together, again and again, for as long as the draws say."""
    while not math.isinf(up_s := draw_up_s()):
        yield environment.timeout(up_s)
        for link in links:
            link.set_up(False)
        yield environment.timeout(draw_down_s())
        for link in links:
            link.set_up(True)
