"""The adaptive sampler of SOP (arXiv 2601.03044): tasks evenly, online against offline data by recent loss.

For task m at learner step j, with the window W of learner steps:

    mean_on^m = mean of l_on^{m,i} over i in j-W .. j-1, the same for off
    w_on^m    = exp(alpha * mean_on^m) / (exp(alpha * mean_on^m) + exp(mean_off^m)), clipped to [0.2, 0.8]

What the paper leaves open is decided in SamplerConfig's docstring.
"""

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from sop_jax.sampling.batch_source import Draw
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Source

_SOURCES = (Source.ONLINE, Source.OFFLINE)
STATE_VERSION = 1


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How tasks and buffers are mixed.

    mode: "adaptive" is the paper's sampler; "fixed" asks for `fixed_online_share` always (0 = demonstrations only, 1 =
        online only, as far as the limiter gives), for ablations.
    alpha: the boost of online losses, > 1. The paper gives no value. With losses relative to their mean, 1.25 asks for 56%
        online at equal losses, 73% where the online loss is twice the offline one, and reaches the clip at 80% where it is
        three times: the clipped range is used and not jumped over.
    window: W, in learner steps. Steps in which a buffer gave no example of a task don't count in its mean.
    min_share, max_share: the clip of w_on.
    min_losses: cold start (not given in the paper): until both buffers of a task have this many losses within the window,
        its share is `initial_share`.
    loss_scale: "relative" divides both means by their average before the formula, so that a loss of 0.02 and one of 2 weigh
        alike, between tasks and over training; the formula's argument is then at most 2 alpha. "raw" is the formula to the
        letter: with flow-matching losses far below 1 it stays near 1/2 whatever the losses say.
    task_weights: task -> weight, empty for the paper's uniform 1/M.
    fixed_online_shares: task -> share, in mode "fixed", of the tasks for which it isn't `fixed_online_share`.
    """

    mode: Literal["adaptive", "fixed"] = "adaptive"
    alpha: float = 1.25
    window: int = 200
    min_share: float = 0.2
    max_share: float = 0.8
    min_losses: int = 10
    initial_share: float = 0.5
    fixed_online_share: float = 0.5
    loss_scale: Literal["relative", "raw"] = "relative"
    task_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fixed_online_shares: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in ("adaptive", "fixed") or self.loss_scale not in ("relative", "raw"):
            raise ConfigError(
                "SamplerConfig: mode must be 'adaptive' or 'fixed' and loss_scale 'relative' or 'raw', got "
                f"{self.mode!r} and {self.loss_scale!r}"
            )
        if not (math.isfinite(self.alpha) and self.alpha > 1):
            raise ConfigError(f"SamplerConfig: alpha must be > 1 (the paper's condition), got {self.alpha}")
        if not 0 <= self.min_share <= self.initial_share <= self.max_share <= 1:
            raise ConfigError(
                "SamplerConfig: expected 0 <= min_share <= initial_share <= max_share <= 1, got "
                f"{self.min_share}, {self.initial_share}, {self.max_share}"
            )
        for share in (self.fixed_online_share, *self.fixed_online_shares.values()):
            if not 0 <= share <= 1:
                raise ConfigError(f"SamplerConfig: fixed_online_share must lie in [0, 1], got {share}")
        if not 1 <= self.min_losses <= self.window:
            raise ConfigError(
                f"SamplerConfig: expected 1 <= min_losses <= window, got {self.min_losses} and {self.window}"
            )
        if any(not (math.isfinite(weight) and weight > 0) for weight in self.task_weights.values()):
            raise ConfigError(f"SamplerConfig: task_weights must be positive, got {dict(self.task_weights)}")


class AdaptiveSampler:
    """Plans the draws of a batch and learns from the losses that come back.

        draws = sampler.plan(batch_size, rng)
        sampler.record(draws, per_example)        # once per learner step

    Thread-safe. Its randomness is the caller's generator, so its state is the losses alone.
    """

    def __init__(self, config: SamplerConfig, tasks: Sequence[str]):
        if not tasks or len(set(tasks)) != len(tasks):
            raise ConfigError(f"AdaptiveSampler: expected one or more different tasks, got {list(tasks)}")
        if config.task_weights and set(config.task_weights) != set(tasks):
            raise ConfigError(
                f"AdaptiveSampler: task_weights must name every task exactly: expected {sorted(tasks)}, got "
                f"{sorted(config.task_weights)}"
            )
        self.config = config
        self.tasks = tuple(tasks)
        weights = np.array([config.task_weights.get(task, 1.0) for task in tasks], np.float64)
        self._task_shares = weights / weights.sum()
        # One slot per learner step of the window: the mean loss of the step's examples, NaN where there were none.
        self._losses = np.full((len(tasks), len(_SOURCES), config.window), np.nan)
        self._step = 0
        self._shares: dict[str, float] = {}
        self._lock = threading.Lock()

    def plan(self, batch_size: int, rng: np.random.Generator) -> list[Draw]:
        """Draws for one batch, stratified: every task within 1 of its share of the batch, online within 1 of its share of
        the task, and both exact in expectation; in random order, so that any slice of a batch is alike."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        draws: list[Draw] = []
        for task, num in zip(self.tasks, _systematic_counts(self._task_shares, batch_size, rng), strict=True):
            share = self.online_share(task)
            num_online = int(_systematic_counts(np.array([share, 1.0 - share]), int(num), rng)[0])
            draws += [Draw(task, Source.ONLINE)] * num_online + [Draw(task, Source.OFFLINE)] * (int(num) - num_online)
        return [draws[i] for i in rng.permutation(len(draws))]

    def record(self, draws: Sequence[Draw], per_example: Float32[np.ndarray, "B"]) -> None:
        """Takes in the losses of one learner step. Losses that aren't finite are left out. Raises ValueError on unknown
        tasks, and on negative losses under loss_scale "relative"."""
        if len(draws) != len(per_example):
            raise ValueError(f"record: expected one loss per draw, got {len(per_example)} for {len(draws)} draws")
        step: dict[tuple[int, int], list[float]] = {}
        for draw, loss in zip(draws, per_example.tolist(), strict=True):
            if draw.task not in self.tasks:
                raise ValueError(f"record: unknown task {draw.task!r}, expected one of {list(self.tasks)}")
            if self.config.loss_scale == "relative" and loss < 0:
                raise ValueError(
                    f"record: task {draw.task!r} reported a negative loss {loss}: losses relative to their mean must be "
                    ">= 0; set SamplerConfig.loss_scale='raw'"
                )
            if math.isfinite(loss):
                step.setdefault((self.tasks.index(draw.task), _SOURCES.index(draw.source)), []).append(loss)
        with self._lock:
            slot = self._step % self.config.window
            self._losses[:, :, slot] = np.nan
            for (task, source), losses in step.items():
                self._losses[task, source, slot] = math.fsum(losses) / len(losses)
            self._step += 1
            self._shares.clear()

    def online_share(self, task: str) -> float:
        """The share of the task's examples that is asked from its online buffer, w_on^m."""
        with self._lock:
            if task not in self._shares:
                self._shares[task] = self._compute_share(task)
            return self._shares[task]

    def mean_loss(self, task: str, source: Source) -> float:
        """Mean loss over the window, NaN before the first."""
        with self._lock:
            return self._window_mean(task, source)[0]

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact: a sampler that loads it continues identically."""
        with self._lock:
            losses = [[[None if math.isnan(x) else x for x in row] for row in task] for task in self._losses.tolist()]
            return {"version": STATE_VERSION, "tasks": list(self.tasks), "step": self._step, "losses": losses}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError if the state was saved with other tasks or another window."""
        if state.get("version") != STATE_VERSION or list(state["tasks"]) != list(self.tasks):
            raise ConfigError(
                f"sampler state: expected version {STATE_VERSION} and tasks {list(self.tasks)}, got version "
                f"{state.get('version')} and {list(state['tasks'])}; resume with the tasks that the run was started with, or "
                "begin anew in another checkpoint folder"
            )
        losses = np.array([[[math.nan if x is None else x for x in r] for r in t] for t in state["losses"]], np.float64)
        if losses.shape != self._losses.shape:
            raise ConfigError(
                f"sampler state: expected losses [tasks, buffers, window] {self._losses.shape}, got {losses.shape}; "
                "resume with the window that the run was started with"
            )
        with self._lock:
            self._losses, self._step = losses, int(state["step"])
            self._shares.clear()

    def _window_mean(self, task: str, source: Source) -> tuple[float, int]:
        row = self._losses[self.tasks.index(task), _SOURCES.index(source)]
        seen = row[~np.isnan(row)]
        return (math.fsum(seen) / len(seen), len(seen)) if len(seen) else (math.nan, 0)

    def _compute_share(self, task: str) -> float:
        config = self.config
        if config.mode == "fixed":
            return config.fixed_online_shares.get(task, config.fixed_online_share)
        mean_on, num_on = self._window_mean(task, Source.ONLINE)
        mean_off, num_off = self._window_mean(task, Source.OFFLINE)
        if min(num_on, num_off) < config.min_losses:
            return config.initial_share
        if config.loss_scale == "relative":
            mean_on, mean_off = _relative(mean_on, mean_off)
        return float(np.clip(_sigmoid(config.alpha * mean_on - mean_off), config.min_share, config.max_share))


def _relative(mean_on: float, mean_off: float) -> tuple[float, float]:
    """Both divided by their average; (1, 1) where both are 0. Their sum is 2."""
    larger = max(mean_on, mean_off)
    if larger == 0:
        return 1.0, 1.0
    on, off = mean_on / larger, mean_off / larger  # so that neither the sum nor a tiny divisor can overflow
    return 2 * on / (on + off), 2 * off / (on + off)


def _sigmoid(x: float) -> float:
    """exp(x) / (exp(x) + 1), without overflow: the softmax of two exponents is the sigmoid of their difference."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _systematic_counts(shares: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Splits `num` by `shares` (which sum to 1) into integers within 1 of num * share, equal to it in expectation."""
    edges = np.concatenate([[0.0], np.cumsum(shares) * num])
    edges[-1] = num
    return np.diff(np.floor(edges + rng.random()).astype(np.int64))
