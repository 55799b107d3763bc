"""Keeps the processes of a fleet on wall time together: begins, restarts crowds that are killed, and ends."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, final

from fleet_sim.wall_processes import READY, FleetProcess, WallFleetError, WallOrder
from sop_jax.specs.clock import Clock

_LEAD_S = 1.0
"""From telling everybody when to start until then."""

_LOOK_S = 0.05
_MAX_RESTARTS = 3


@final
class FleetWatch:
    """Of a learner and some crowds, which `starts` start.

        watch = FleetWatch(learner, starts, stack, clock, should_stop)
        order = watch.begin(duration_s)             # once everybody is ready
        reports = watch.wait_for_crowds(order)      # at its end, or once told to stop
        learner.tell(FINISH)
        report = watch.wait_for_learner()

    All that it starts ends with `stack`. Raises WallFleetError: a process died for a reason of its own, a crowd was killed a
    fourth time, or `should_stop` said so before the beginning.
    """

    def __init__(
        self,
        learner: FleetProcess,
        starts: Sequence[Callable[[], FleetProcess]],
        stack: contextlib.ExitStack,
        clock: Clock,
        should_stop: Callable[[], bool],
    ):
        self._learner, self._starts, self._stack = learner, tuple(starts), stack
        self._clock, self._should_stop = clock, should_stop
        self._crowds = [self._start(index) for index in range(len(self._starts))]
        self._starting: set[int] = set()  # crowds that were started again and aren't ready
        self._early: Any | None = None  # what the learner said while the crowds were waited for
        self.num_restarts = 0
        self.lasted_s = 0.0

    def begin(self, duration_s: float) -> WallOrder:
        """Waits until everybody is ready, and tells them to start in a moment."""
        for process in (self._learner, *self._crowds):
            while process.poll() != READY:
                if self._should_stop():
                    raise WallFleetError("the wall-clock fleet was stopped before it began")
                self._clock.sleep_s(_LOOK_S)
        order = WallOrder(self._clock.now_ns() + round(_LEAD_S * 1e9), duration_s)
        for process in (self._learner, *self._crowds):
            process.tell_order(order)
        return order

    def wait_for_crowds(self, order: WallOrder) -> list[Any]:
        """What each said last, a report."""
        reports: dict[int, Any] = {}
        is_stopping = False
        while len(reports) < len(self._crowds):
            if self._should_stop() and not is_stopping:
                is_stopping = True
                self.lasted_s = (self._clock.now_ns() - order.start_ns) / 1e9
                self._learner.stop()
                for index, crowd in enumerate(self._crowds):
                    if index not in self._starting:  # or it would die of the signal, which it can't hear yet
                        crowd.stop()
            for index in range(len(self._crowds)):
                if index not in reports and (said := self._listen(index, order, is_stopping)) is not None:
                    reports[index] = said
            self._early = self._early or self._learner.poll()
            self._clock.sleep_s(_LOOK_S)
        if not is_stopping:
            self.lasted_s = order.duration_s
        return [reports[index] for index in range(len(self._crowds))]

    def wait_for_learner(self) -> Any:
        """Its report."""
        while self._early is None:
            self._early = self._learner.poll()
            self._clock.sleep_s(_LOOK_S)
        return self._early

    def _listen(self, index: int, order: WallOrder, is_stopping: bool) -> Any | None:
        """A crowd's report, if there is one by now."""
        process = self._crowds[index]
        try:
            said = process.poll()
        except WallFleetError:
            if is_stopping or not process.was_killed or self.num_restarts >= _MAX_RESTARTS:
                raise
            self.num_restarts += 1
            self._starting.add(index)
            self._crowds[index] = self._start(index)
            return None
        if said == READY:  # it was started again
            self._starting.discard(index)
            process.tell_order(order)
            if is_stopping:
                process.stop()
            return None
        return said

    def _start(self, index: int) -> FleetProcess:
        return self._stack.enter_context(self._starts[index]())
