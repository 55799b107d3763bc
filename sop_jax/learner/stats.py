"""What the learner's batches looked like between two log lines.

Legend: `B` batch.
"""

import collections
import dataclasses

import numpy as np
from jaxtyping import Float32

from sop_jax.sampling.batch_source import LoadedBatch
from sop_jax.specs.clock import age_s
from sop_jax.specs.records import Source


@dataclasses.dataclass(frozen=True)
class SettledStep:
    """One finished step on the host. `step` counts from 1; `learner_version` is the last publication when it was sampled."""

    step: int
    loaded: LoadedBatch
    learner_version: int
    loss: float
    grad_norm: float
    learning_rate: float
    per_example: Float32[np.ndarray, "B"]


class StepStats:
    """Sums over a window of steps, written out as the flat values of one "learner_step" event:

    loss, grad_norm (means), learning_rate, steps_per_s, num_skipped (steps without a finite gradient);
    elapsed_s: what the window took;
    wait_share: share of the time spent blocked on the next batch (the device may still be computing meanwhile);
    loss/<task>/<source>: mean loss of that buffer's examples; absent if none was drawn.
    online_share/<task>: share of the task's examples that came from its online buffer; requested_online_share/<task>: what
        the sampler had asked for. The difference was held back by a rate limiter.
    staleness_versions, staleness_versions_max: learner version minus acting version, over frames that a policy acted on.
    staleness_s: mean age of the online frames' episodes since they ended, seconds; without those whose robot's clock knew
        no date.
    intervention_share: share of examples in which a human acted.
    """

    def __init__(self, now_ns: int):
        self._reset(now_ns)

    def _reset(self, now_ns: int) -> None:
        self._since_ns = now_ns
        self._num_steps = 0
        self._num_skipped = 0
        self._waited_s = 0.0
        self._means: dict[str, list[float]] = collections.defaultdict(list)
        self._versions_max = 0

    def skip(self) -> None:
        """Counts a step whose gradient wasn't finite."""
        self._num_steps += 1
        self._num_skipped += 1

    def add(self, settled: SettledStep, now_ns: int) -> None:
        loaded, means = settled.loaded, self._means
        self._num_steps += 1
        self._waited_s += loaded.wait_s
        means["loss"].append(settled.loss)
        means["grad_norm"].append(settled.grad_norm)
        for draw, loss in zip(loaded.draws, settled.per_example, strict=True):
            means[f"loss/{draw.task}/{draw.source.value}"].append(float(loss))
        for name, draws in (("online_share", loaded.draws), ("requested_online_share", loaded.requested)):
            for draw in draws:
                means[f"{name}/{draw.task}"].append(float(draw.source is Source.ONLINE))
        means["intervention_share"].append(float(np.mean(loaded.intervention)))
        acted = loaded.policy_versions[loaded.policy_versions >= 0]
        if len(acted):
            behind = np.maximum(settled.learner_version - acted, 0)
            means["staleness_versions"].append(float(behind.mean()))
            self._versions_max = max(self._versions_max, int(behind.max()))
        ended_ns = [
            int(ended)
            for draw, ended in zip(loaded.draws, loaded.ended_ns, strict=True)
            if draw.source is Source.ONLINE
        ]
        ages_s = [age for ended in ended_ns if (age := age_s(ended, now_ns)) is not None]
        if ages_s:
            means["staleness_s"].append(float(np.mean(ages_s)))

    def flush(self, learning_rate: float, now_ns: int) -> dict[str, float | int]:
        """The window's values; starts the next window."""
        elapsed_s = (now_ns - self._since_ns) / 1e9
        values: dict[str, float | int] = {name: sum(found) / len(found) for name, found in sorted(self._means.items())}
        values["learning_rate"] = learning_rate
        values["elapsed_s"] = elapsed_s
        values["steps_per_s"] = self._num_steps / elapsed_s if elapsed_s > 0 else 0.0
        values["wait_share"] = min(1.0, self._waited_s / elapsed_s) if elapsed_s > 0 else 0.0
        values["num_skipped"] = self._num_skipped
        values["staleness_versions_max"] = self._versions_max
        self._reset(now_ns)
        return values
