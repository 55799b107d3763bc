"""What the learner asks of the data side: batches in, losses back.

Legend: `B` batch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from sop_jax.models.batch import TrainBatch
from sop_jax.specs.errors import SopError
from sop_jax.specs.records import Source


class BatchStarvedError(SopError):
    """No batch could be filled within the deadline (the message names the tables and what they hold), or before whoever
    waited for it was told to stop. The next call may give it."""


class BatchSourceStoppedError(SopError):
    """`stop` was called while, or before, a batch was asked for."""


def never() -> bool:
    """The question of somebody who waits for as long as it takes."""
    return False


@dataclasses.dataclass(frozen=True)
class Draw:
    """Where one example comes from: the sampler plans draws, and its losses are returned for the same draws."""

    task: str
    source: Source


@dataclasses.dataclass(frozen=True)
class LoadedBatch:
    """One batch on the host and where its examples come from. Every field has one entry per example.

    batch: numpy arrays, ready for `jax.device_put`.
    draws: the buffers that the examples really came from; `requested` are the ones that the sampler asked for. They differ
        where a rate limiter held the online buffer back and the offline one stood in.
    policy_versions: the version that acted at the sampled frame (NO_POLICY on demonstrations; the overruled version on
        interventions). Staleness is the learner's version minus this.
    ended_ns: when the example's episode ended, on the robot's clock; staleness in time and correction latency start here.
    intervention: a human acted at the sampled frame.
    wait_s: how long `next` blocked for this batch.
    """

    batch: TrainBatch
    draws: tuple[Draw, ...]
    requested: tuple[Draw, ...]
    episode_ids: tuple[str, ...]
    frames: Int32[np.ndarray, "B"]
    policy_versions: Int32[np.ndarray, "B"]
    ended_ns: Int64[np.ndarray, "B"]
    intervention: Bool[np.ndarray, "B"]
    wait_s: float = 0.0


@runtime_checkable
class BatchSource(Protocol):
    """Batches for a learner.

        while step < num_steps:
            loaded = batches.next(should_stop)                       # blocks until a batch is there
            state, per_example = train_step(state, loaded.batch)
            batches.record_losses(loaded.draws, per_example)         # once per learner step, in order
        batches.stop()

    On several hosts each has a source of its own, and `record_losses` gets the draws of all hosts' batches, in the same order
    everywhere.

    `next` raises what the loading thread raised, BatchStarvedError after its deadline (a learner never hangs) and as soon as
    `should_stop` says so while it waits (a preempted machine hasn't got the time), and BatchSourceStoppedError after
    `stop`. It starts the loading by itself. `wait_share` is the share of the time between the
    first `next` and the last one's return that was spent waiting in `next`, 0 to 1. `state_dict` is JSON-able and holds
    everything that decides the batches to come and isn't in replay; call `load_state` before the first `next`. `stop` ends
    all threads and may be called twice. `next`, `record_losses`, `state_dict` and `load_state` belong to one thread; `stop`
    may come from another.
    """

    def next(self, should_stop: Callable[[], bool] = never) -> LoadedBatch: ...

    def record_losses(self, draws: Sequence[Draw], per_example: Float32[np.ndarray, "B"]) -> None: ...

    def wait_share(self) -> float: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def stop(self) -> None: ...
