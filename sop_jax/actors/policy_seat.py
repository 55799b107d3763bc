"""One robot's place at a policy that several robots share.

Legend: `H` horizon, `A` action dimensions.
"""

import concurrent.futures
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol, final

import numpy as np

from sop_jax.actors.request_queue import Request, timed_out
from sop_jax.actors.robot_policy import EpisodeGuard
from sop_jax.models.pytrees import Params
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.clock import Clock
from sop_jax.specs.records import Observation, RobotSpec

_LOOK_S = 0.02


class SharedPolicy(Protocol):
    """What a seat needs of the policy behind it (`batched_policy.BatchedPolicy`)."""

    weights_base: str
    norm_stats: str
    clock: Clock

    @property
    def horizon(self) -> int: ...

    @property
    def num_compilations(self) -> int: ...

    @property
    def trained_template(self) -> Params: ...

    def submit(
        self, seat: "PolicySeat", observation: Observation, seed: int, prefix: ChunkPrefix | None
    ) -> Request: ...

    def warm_up(self, spec: RobotSpec, instruction: str) -> None: ...

    def move_seat(self, seat: "PolicySeat", params: Mapping[str, Any], version: int) -> None: ...

    def leave_seat(self, seat: "PolicySeat") -> None: ...


@final
class PolicySeat:
    """Implements `RobotPolicy` (see there for its use) with a `BatchedPolicy`, which gives out seats.

    `infer` blocks the robot's own thread. A coroutine awaits `asyncio.wrap_future(seat.submit(observation, seed))` instead.
    One thread or coroutine at a time uses a seat.
    """

    def __init__(self, shared: SharedPolicy, version: int):
        self._shared = shared
        self._guard = EpisodeGuard()
        self._ready: dict[int, np.ndarray] = {}
        self.version = version

    @property
    def horizon(self) -> int:
        return self._shared.horizon

    @property
    def weights_base(self) -> str:
        return self._shared.weights_base

    @property
    def norm_stats(self) -> str:
        return self._shared.norm_stats

    @property
    def num_compilations(self) -> int:
        """Of all batch sizes of the shared policy."""
        return self._shared.num_compilations

    @property
    def trained_template(self) -> Params:
        return self._shared.trained_template

    @property
    def in_episode(self) -> bool:
        return self._guard.is_closed

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray:
        if self._ready:
            return self._ready.pop(seed)
        request = self._shared.submit(self, observation, seed, prefix)
        clock, future = self._shared.clock, request.future
        while not concurrent.futures.wait([future], timeout=_LOOK_S).done:
            now_ns = clock.now_ns()
            if now_ns >= request.deadline_ns and not future.done():
                future.cancel()
                raise timed_out((now_ns - request.arrived_ns) / 1e9)
        return future.result()

    def lay_ready(self, seed: int, chunk: np.ndarray) -> None:
        """The answer to the next `infer`, which will have this seed (`BatchedPolicy.answer`)."""
        self._ready = {seed: chunk}

    def submit(
        self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None
    ) -> "concurrent.futures.Future[np.ndarray]":
        """The chunk to come. A request that waits past its deadline fails with InferenceTimeoutError."""
        return self._shared.submit(self, observation, seed, prefix).future

    def warm_up(self, spec: RobotSpec, instruction: str = "warm up") -> None:
        self._shared.warm_up(spec, instruction)

    def episode(self) -> contextlib.AbstractContextManager[None]:
        return self._guard.hold()

    def swap(self, params: Mapping[str, Any], version: int) -> None:
        self._guard.check_open(self.version, version)
        self._shared.move_seat(self, params, version)

    def close(self) -> None:
        """Leaves the seat: its version needn't be kept any longer."""
        self._shared.leave_seat(self)
