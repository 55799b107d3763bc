"""Behaviour cloning: imitate demonstrations that succeeded; if asked, also the policy's own successes (filtered cloning)."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.algorithms.algorithm import Lesson, Phase
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import chunk_masks, is_demonstration, label_masked
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.items import FrameLabels
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome


@dataclasses.dataclass(frozen=True)
class BehaviourCloningConfig:
    """online_successes: also imitate online episodes that succeeded, whoever acted. Off, online frames don't teach at all:
    the control against which online training is measured."""

    online_successes: bool = False


@dataclasses.dataclass(frozen=True)
class BehaviourCloning:
    """Every frame of a demonstration teaches its whole chunk. An `Algorithm`."""

    config: BehaviourCloningConfig = BehaviourCloningConfig()

    @property
    def name(self) -> str:
        return "behaviour_cloning"

    @property
    def teaches_online(self) -> bool:
        return self.config.online_successes

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels:
        del images
        masks = self.action_masks(manifest, arrays, horizon)
        return label_masked(masks, np.ones(len(masks), np.float32))

    def action_masks(self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int) -> Bool[np.ndarray, "T H"]:
        worked = self.config.online_successes and manifest.outcome == Outcome.SUCCESS
        teaches = np.full(arrays.num_frames, is_demonstration(manifest) or worked)
        return chunk_masks(teaches, horizon, manifest.outcome)

    def make_lesson(self, instruction: str, label: float, rng: np.random.Generator) -> Lesson:
        del rng
        return Lesson(instruction, label)

    def conditioning(self, phase: Phase) -> Conditioning:
        del phase
        return Conditioning()

    def loss(
        self, model: PolicyModel, params: Any, norm: Any, batch: TrainBatch, key: Array
    ) -> tuple[Float[Array, ""], Float[Array, "B"]]:
        return imitation_loss(model, params, norm, batch, key)

    def loss_weight(self, batch: TrainBatch) -> Float[Array, ""]:
        return taught_weight(batch)
