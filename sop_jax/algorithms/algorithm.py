"""The interface of a post-training algorithm.

Legend: `B` batch, `T` frames of an episode, `H` horizon of an action chunk.
"""

import dataclasses
import enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.intake import Labeler
from sop_jax.replay.items import FrameLabels
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest


class Phase(enum.StrEnum):
    """What a policy acts for: to collect data, or to be measured."""

    COLLECTING = "collecting"
    EVALUATING = "evaluating"


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How one sampled frame is taught: the instruction that the model reads, and the weight of the example (>= 0)."""

    instruction: str
    weight: float


@runtime_checkable
class Algorithm(Protocol):
    """A post-training algorithm, as the stations use it.

        # intake, once per episode: frames that may be sampled, and a float label for each that travels with its item
        labels = algorithm.label_frames(manifest, arrays, horizon, images)
        # the batch builder: which actions of the chunk [t, t+H) teach at frame t; and, from the frame's label, how
        masks = algorithm.action_masks(manifest, arrays, horizon)
        lesson = algorithm.make_lesson(instruction, label, rng)
        # the learner, inside jit
        loss, per_example = algorithm.loss(model, params, norm, batch, key)
        weight = algorithm.loss_weight(batch)
        # actors and evaluation
        conditioning = algorithm.conditioning(Phase.EVALUATING)

    Implementations are frozen and hashable (they are static arguments of jit) and keep no state: what an algorithm learns
    beside the policy (a value function) is given at construction.

    - `teaches_online`: whether an online episode may hold trainable frames. A learner waits for none otherwise.
    - `label_frames`: `images` are decoded when they are read, so an algorithm that needs none costs none. Intake always gives
      them; an algorithm that can't label without raises ValueError where they are missing.
    - `label_frames`, `action_masks`: a frame is trainable exactly if its row of the mask isn't empty; episodes whose outcome
      is ERROR have none. Actions past the episode's end are the last action repeated; the mask says whether they teach.
    - `make_lesson`: `rng` is for lessons that vary (a dropped indicator).
    - `loss`: the scalar to descend, and each example's own mean loss, which the sampler is told. Pure.
    - `loss_weight`: what that scalar is a mean over. The losses of a batch's parts, weighted by their weights, average to
      the loss of the whole: so a batch may be taken in parts. Depends on the batch alone. Pure.
    """

    @property
    def name(self) -> str: ...

    @property
    def teaches_online(self) -> bool: ...

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels: ...

    def action_masks(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int
    ) -> Bool[np.ndarray, "T H"]: ...

    def make_lesson(self, instruction: str, label: float, rng: np.random.Generator) -> Lesson: ...

    def conditioning(self, phase: Phase) -> Conditioning: ...

    def loss(
        self, model: PolicyModel, params: Any, norm: Any, batch: TrainBatch, key: Array
    ) -> tuple[Float[Array, ""], Float[Array, "B"]]: ...

    def loss_weight(self, batch: TrainBatch) -> Float[Array, ""]: ...


def make_labeler(algorithm: Algorithm, horizon: int) -> Labeler:
    """What intake asks of an algorithm, for a policy whose chunks are `horizon` long."""
    return lambda manifest, arrays, images: algorithm.label_frames(manifest, arrays, horizon, images)
