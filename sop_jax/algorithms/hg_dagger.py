"""HG-DAgger: imitate the human's corrections, with the demonstrations mixed in.

The loss is masked per action inside a chunk. A chunk that straddles a takeover or a handback teaches exactly the human's
actions: dropping such chunks, as implementations commonly do, loses every correction shorter than the horizon.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.algorithms.algorithm import Lesson, Phase
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import chunk_masks, label_masked
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.items import FrameLabels
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome, Source


@dataclasses.dataclass(frozen=True)
class HgDaggerConfig:
    """What is imitated, and how strongly.

    correction_weight: weight of an example whose chunk holds corrections; demonstrations have 1.
    lookback_frames: how far ahead of a takeover an observation may lie and still learn from it (None = as far as the chunk
        reaches, H-1 frames; 0 = only frames where the human acts).
    autonomous_success_weight: weight of the policy's own chunks in episodes that succeeded; 0 leaves them out, which is
        HG-DAgger proper. Above 0 the policy also imitates what worked, which keeps the online buffer filled when
        corrections become rare, at the price of imitating its own detours.
    rewind_frames: with autonomous_success_weight, the policy's last actions before each takeover that aren't imitated: they
        led to the correction.
    """

    correction_weight: float = 1.0
    lookback_frames: int | None = None
    autonomous_success_weight: float = 0.0
    rewind_frames: int = 15

    def __post_init__(self) -> None:
        if not (math.isfinite(self.correction_weight) and self.correction_weight > 0):
            raise ConfigError(f"HgDaggerConfig: correction_weight must be positive, got {self.correction_weight}")
        if not (math.isfinite(self.autonomous_success_weight) and self.autonomous_success_weight >= 0):
            raise ConfigError(
                f"HgDaggerConfig: autonomous_success_weight must be >= 0, got {self.autonomous_success_weight}"
            )
        if self.rewind_frames < 0 or (self.lookback_frames is not None and self.lookback_frames < 0):
            raise ConfigError(
                "HgDaggerConfig: rewind_frames and lookback_frames must be >= 0, got "
                f"{self.rewind_frames} and {self.lookback_frames}"
            )


@dataclasses.dataclass(frozen=True)
class HgDagger:
    """Corrections are kept whatever the episode's outcome (ERROR excepted): a human's action is right where it was made,
    even if the task then failed. An `Algorithm`."""

    config: HgDaggerConfig = HgDaggerConfig()

    @property
    def name(self) -> str:
        return "hg_dagger"

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels:
        del images
        masks = self.action_masks(manifest, arrays, horizon)
        if manifest.source == Source.OFFLINE:
            return label_masked(masks, np.ones(len(masks), np.float32))
        corrected = chunk_masks(arrays.intervention, horizon, manifest.outcome).any(axis=1)
        weights = np.where(corrected, self.config.correction_weight, self.config.autonomous_success_weight)
        return label_masked(masks, weights.astype(np.float32))

    def action_masks(self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int) -> Bool[np.ndarray, "T H"]:
        """The human's actions only, in every chunk that holds one; in the other chunks nothing, or the policy's actions
        where its successes are imitated."""
        if manifest.outcome == Outcome.ERROR:
            return np.zeros((arrays.num_frames, horizon), bool)
        if manifest.source == Source.OFFLINE:
            return chunk_masks(np.ones(arrays.num_frames, bool), horizon, manifest.outcome)
        masks = chunk_masks(arrays.intervention, horizon, manifest.outcome)
        corrected = masks.any(axis=1, keepdims=True)
        if self.config.lookback_frames is not None:
            masks &= masks[:, : self.config.lookback_frames + 1].any(axis=1, keepdims=True)
        if self.config.autonomous_success_weight > 0 and manifest.outcome == Outcome.SUCCESS:
            worked = ~(arrays.intervention | _before_takeovers(arrays.intervention, self.config.rewind_frames))
            masks |= chunk_masks(worked, horizon, manifest.outcome) & ~corrected
        return masks

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


def _before_takeovers(intervention: Bool[np.ndarray, "T"], num_frames: int) -> Bool[np.ndarray, "T"]:
    """The `num_frames` frames before each takeover (frames of an earlier intervention included)."""
    before = np.zeros(len(intervention), bool)
    takeovers = np.flatnonzero(intervention & ~np.concatenate([[False], intervention[:-1]]))
    for frame in takeovers:
        before[max(0, frame - num_frames) : frame] = True
    return before
