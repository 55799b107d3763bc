"""Requests of many robots, gathered into batches of one policy version each."""

import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable
from typing import final

import numpy as np

from sop_jax.models.batch import BarePrompt, ObservationBatch
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.pytrees import Params
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import InferenceTimeoutError, SopError

_LOOK_S = 0.001


class PolicyClosedError(SopError):
    """The shared policy was closed; it answers no more requests."""


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One robot's wish for a chunk: a batch of one, and the weights to compute it with. `future` gets float32 [H, A]."""

    version: int
    params: Params
    observation: ObservationBatch
    seed: int
    prefix: ActionPrefix | None
    bare_prompt: BarePrompt | None
    arrived_ns: int
    deadline_ns: int
    future: "concurrent.futures.Future[np.ndarray]" = dataclasses.field(default_factory=concurrent.futures.Future)


@final
class RequestQueue:
    """Where robots' threads put requests, and the serving thread takes batches.

    A batch goes out as soon as `max_batch` requests of one version wait, or as many as `num_expected(version)` says can come
    at all, or the oldest has waited for `window_ns` of the clock. A request whose deadline has passed, or whose robot has
    given it up, takes no place in a batch. Thread-safe; one thread takes.
    """

    def __init__(self, clock: Clock, max_batch: int, window_ns: int, num_expected: Callable[[int], int]):
        self._clock = clock
        self._max_batch = max_batch
        self._window_ns = window_ns
        self._num_expected = num_expected
        self._waiting: list[Request] = []
        self._closed = False
        self._changed = threading.Condition()

    def put(self, request: Request) -> None:
        """Raises PolicyClosedError."""
        with self._changed:
            if self._closed:
                raise PolicyClosedError("the shared policy is closed; make a new one")
            self._waiting.append(request)
            self._changed.notify()

    def take(self) -> list[Request] | None:
        """The next batch, oldest request first. Blocks until there is one; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                self._forget_lost()
                batch = self._find_ready()
                if batch:
                    taken = set(map(id, batch))
                    self._waiting = [request for request in self._waiting if id(request) not in taken]
                    # From here on a robot can't cancel; one that did in this very moment is left out.
                    batch = [request for request in batch if request.future.set_running_or_notify_cancel()]
                    if batch:
                        return batch
                    continue
                self._changed.wait(_LOOK_S if self._waiting else None)
            return None

    def close(self) -> None:
        """Fails what waits, and wakes the taker."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for request in waiting:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(PolicyClosedError("the shared policy was closed while the request waited"))

    def _forget_lost(self) -> None:
        now_ns = self._clock.now_ns()
        kept = []
        for request in self._waiting:
            if request.future.cancelled():
                continue
            if now_ns >= request.deadline_ns:
                if request.future.set_running_or_notify_cancel():
                    waited_s = (now_ns - request.arrived_ns) / 1e9
                    request.future.set_exception(timed_out(waited_s))
                continue
            kept.append(request)
        self._waiting = kept

    def _find_ready(self) -> list[Request]:
        groups: dict[int, list[Request]] = collections.defaultdict(list)
        for request in self._waiting:
            groups[request.version].append(request)
        now_ns = self._clock.now_ns()
        for version, group in groups.items():  # The version of the oldest request comes first.
            enough = min(self._max_batch, max(1, self._num_expected(version)))
            if len(group) >= enough or now_ns - group[0].arrived_ns >= self._window_ns:
                return group[: self._max_batch]
        return []


def timed_out(waited_s: float) -> InferenceTimeoutError:
    """The error of a request that got no chunk in time."""
    return InferenceTimeoutError(
        f"no chunk after {waited_s:.3f} s: the device has more requests than it can serve, or hangs. Raise "
        "BatchingConfig.deadline_s, or let fewer robots share one policy"
    )
