"""What a learner is told."""

import dataclasses
from typing import Literal

from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices stand along each axis of the mesh; -1 on `data` means all that are left.

    data: copies of the model, each with its share of the batch. fsdp: parameters, moments and batch are split.
    tensor: the widest layers are split inside one example. Arrays smaller than `min_sharded_bytes` are copied to every
    device: splitting them costs more in messages than it saves in memory.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    min_sharded_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        if self.data != -1 and self.data < 1:
            raise ConfigError(f"MeshConfig.data must be -1 (all devices left) or at least 1, got {self.data}")
        if self.fsdp < 1 or self.tensor < 1:
            raise ConfigError(f"MeshConfig.fsdp and tensor must be at least 1, got {self.fsdp} and {self.tensor}")
        if self.min_sharded_bytes < 0:
            raise ConfigError(f"MeshConfig.min_sharded_bytes must be >= 0, got {self.min_sharded_bytes}")


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """How to train. Steps count from the start of training, across resumes.

    batch_size: examples per step over all hosts.
    accumulate_steps: parts in which a step takes its batch, one after the other; the gradient is that of the whole. Memory
        for activations falls with it, speed hardly.
    remat: what the backward pass computes again instead of keeping it: "none", all but the products with weights ("dots"),
        or each layer whole ("full", the least memory). "policy" leaves it to the policy's own config.
    num_steps: length of the training, and of the cosine schedule.
    learning_rate: peak. "constant" keeps it after the warm-up; "cosine" falls to `final_rate_share` of it at `num_steps`.
    weight_decay: decoupled (AdamW), on all trained parameters.
    clip_norm: gradients are scaled down to this global norm.
    ema_decay: of the average that is published and evaluated; 0 publishes the raw parameters.
    publish_every, checkpoint_every, log_every: in steps. A checkpoint is also made when training stops.
    keep_checkpoints: older ones are removed.
    max_bad_steps: that many steps in a row without a finite gradient stop the training; single ones are skipped.
    publish_in_background: train on while a publication is written; False publishes between two steps (bit-reproducible).
    """

    batch_size: int = 64
    accumulate_steps: int = 1
    remat: Literal["policy", "none", "dots", "full"] = "policy"
    num_steps: int = 10_000
    learning_rate: float = 2e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    final_rate_share: float = 0.1
    adam_b1: float = 0.9
    adam_b2: float = 0.95
    weight_decay: float = 1e-10
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    seed: int = 0
    publish_every: int = 25
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    log_every: int = 25
    max_bad_steps: int = 20
    publish_in_background: bool = True
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        for name in (
            "batch_size", "accumulate_steps", "num_steps", "publish_every", "checkpoint_every", "keep_checkpoints",
            "log_every", "max_bad_steps",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"LearnerConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulate_steps:
            raise ConfigError(
                f"LearnerConfig.batch_size must be a multiple of accumulate_steps={self.accumulate_steps}, got "
                f"{self.batch_size}"
            )
        if self.schedule not in ("constant", "cosine"):
            raise ConfigError(f"LearnerConfig.schedule must be 'constant' or 'cosine', got {self.schedule!r}")
        if not 0 <= self.warmup_steps < self.num_steps:
            raise ConfigError(
                f"LearnerConfig.warmup_steps must be in [0, num_steps={self.num_steps}), got {self.warmup_steps}"
            )
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"LearnerConfig.{name} must be positive, got {getattr(self, name)}")
        for name in ("ema_decay", "adam_b1", "adam_b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"LearnerConfig.{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.final_rate_share <= 1 or self.weight_decay < 0:
            raise ConfigError(
                "LearnerConfig: final_rate_share must be in [0, 1] and weight_decay >= 0, got "
                f"{self.final_rate_share} and {self.weight_decay}"
            )
