"""HG-DAgger: imitate the human's corrections, with the demonstrations mixed in.

The loss is masked per action inside a chunk. A chunk that straddles a takeover or a handback teaches exactly the human's
actions: dropping such chunks, as implementations commonly do, loses every correction shorter than the horizon.
"""

import dataclasses
import math
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.algorithms.algorithm import Lesson, Phase
from sop_jax.algorithms.corrections import (
    Balance,
    RecoveryConfig,
    balance_frames,
    find_recovery,
    find_takeovers,
    mean_taught,
)
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import chunk_masks, is_demonstration, label_masked
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.items import FrameLabels
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome, Source

Teaches = Literal["corrections", "corrections_without_recovery"]


@dataclasses.dataclass(frozen=True)
class HgDaggerConfig:
    """What is imitated, and how strongly.

    correction_weight: weight of an example whose chunk holds corrections; demonstrations that succeeded have 1. Those that
        failed aren't imitated: nobody was corrected in them.
    lookback_frames: how far ahead of a takeover an observation may lie and still learn from it (None = as far as the chunk
        reaches, H-1 frames; 0 = only frames where the human acts).
    autonomous_success_weight: weight of the policy's own chunks in episodes that succeeded; 0 leaves them out, which is
        HG-DAgger proper. Above 0 the policy also imitates what worked, which keeps the online buffer filled when
        corrections become rare, at the price of imitating its own detours.
    rewind_frames: the policy's last actions before each takeover led to it: with autonomous_success_weight they aren't
        imitated. As many frames before a request are no place to recover to.
    teaches: which of the human's frames are corrections: all of them (as RaC does: the way back teaches too), or those after
        the robot was taken back to where it was before ("corrections_without_recovery", see `recovery`).
    failures_teach: whether corrections teach in episodes that didn't end in success although a human acted.
    balance: what counts alike among corrections. "frames": every frame, so long turns count more. "takeovers" or "episodes":
        each takeover, or each episode's corrections together, as much as `balanced_frames` frames do, however long they
        are. A short one then pulls hard: one of 6 frames among 60 has examples of weight 10.
    recovery: when a human has taken the robot back.
    """

    correction_weight: float = 1.0
    lookback_frames: int | None = None
    autonomous_success_weight: float = 0.0
    rewind_frames: int = 15
    teaches: Teaches = "corrections"
    failures_teach: bool = True
    balance: Balance = "frames"
    balanced_frames: int = 60
    recovery: RecoveryConfig = dataclasses.field(default_factory=RecoveryConfig)

    def __post_init__(self) -> None:
        if self.teaches not in get_args(Teaches):
            raise ConfigError(f"HgDaggerConfig.teaches must be one of {get_args(Teaches)}, got {self.teaches!r}")
        if self.balance not in get_args(Balance):
            raise ConfigError(f"HgDaggerConfig.balance must be one of {get_args(Balance)}, got {self.balance!r}")
        if self.balanced_frames < 1:
            raise ConfigError(f"HgDaggerConfig.balanced_frames must be >= 1, got {self.balanced_frames}")
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
    """Corrections are kept whatever the episode's outcome (ERROR excepted), unless the config says otherwise: a human's
    action is right where it was made, even if the task then failed. An `Algorithm`."""

    config: HgDaggerConfig = HgDaggerConfig()

    @property
    def name(self) -> str:
        return "hg_dagger"

    @property
    def teaches_online(self) -> bool:
        return True

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels:
        del images
        masks = self.action_masks(manifest, arrays, horizon)
        if is_demonstration(manifest):
            return label_masked(masks, np.ones(len(masks), np.float32))
        config, human = self.config, arrays.intervention
        counts = balance_frames(self._corrections(manifest, arrays), human, config.balance, config.balanced_frames)
        touched = chunk_masks(human, horizon, manifest.outcome).any(axis=1)
        weights = np.where(
            touched, config.correction_weight * mean_taught(masks, counts), config.autonomous_success_weight
        )
        return label_masked(masks, weights.astype(np.float32))

    def action_masks(self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int) -> Bool[np.ndarray, "T H"]:
        """All of a demonstration. Else corrections only, in every chunk that a human acts in; in the other chunks nothing, or
        the policy's actions where its successes are imitated."""
        if manifest.outcome == Outcome.ERROR:
            return np.zeros((arrays.num_frames, horizon), bool)
        if is_demonstration(manifest):
            return chunk_masks(np.ones(arrays.num_frames, bool), horizon, manifest.outcome)
        masks = chunk_masks(self._corrections(manifest, arrays), horizon, manifest.outcome)
        if self.config.lookback_frames is not None:
            masks &= masks[:, : self.config.lookback_frames + 1].any(axis=1, keepdims=True)
        if self.config.autonomous_success_weight > 0 and manifest.outcome == Outcome.SUCCESS:
            worked = ~(arrays.intervention | _before_takeovers(manifest, arrays, self.config.rewind_frames))
            touched = chunk_masks(arrays.intervention, horizon, manifest.outcome).any(axis=1, keepdims=True)
            masks |= chunk_masks(worked, horizon, manifest.outcome) & ~touched
        return masks

    def _corrections(self, manifest: EpisodeManifest, arrays: EpisodeArrays) -> Bool[np.ndarray, "T"]:
        """The frames of an episode that is no demonstration whose action is a correction that teaches."""
        # Who acts alone from first to last corrects nobody: that is a demonstration that failed.
        failed_alone = manifest.source == Source.OFFLINE and arrays.intervention.all()
        if failed_alone or (manifest.outcome != Outcome.SUCCESS and not self.config.failures_teach):
            return np.zeros(arrays.num_frames, bool)
        if self.config.teaches == "corrections":
            return arrays.intervention
        recovery = find_recovery(manifest, arrays, self.config.rewind_frames, self.config.recovery)
        return arrays.intervention & ~recovery

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


def _before_takeovers(manifest: EpisodeManifest, arrays: EpisodeArrays, num_frames: int) -> Bool[np.ndarray, "T"]:
    """From `num_frames` frames before each request on, to the takeover (frames of an earlier intervention included)."""
    before = np.zeros(arrays.num_frames, bool)
    asked = {event.takeover_frame: event.asked_frame for event in manifest.takeovers}
    for takeover, _ in find_takeovers(arrays.intervention):
        before[max(0, asked.get(takeover, takeover) - num_frames) : takeover] = True
    return before
