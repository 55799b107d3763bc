"""Time that a simulation owns, as the stations see it."""

import simpy


class VirtualClock:
    """A `Clock` over SimPy's time, which counts seconds from 0. Nobody may block in virtual time: nothing else would move."""

    def __init__(self, environment: simpy.Environment):
        self._environment = environment

    def now_ns(self) -> int:
        return round(self._environment.now * 1e9)

    def sleep_s(self, duration_s: float) -> None:
        if duration_s > 0:
            raise RuntimeError(
                f"a station wants to sleep for {duration_s} s of virtual time. Only the simulation's own processes wait; "
                "give the station timeouts of 0."
            )
