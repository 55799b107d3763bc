"""RECAP: every frame teaches its chunk, and the instruction says whether it was better than expected.

The policy learns with "Advantage: positive" or "Advantage: negative" behind the instruction, and 30% of the time with
neither; it acts with "positive". So failures are kept and used: they teach what "negative" means. The value function that
tells the two apart is trained beforehand and frozen while the policy learns.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.algorithms.algorithm import Lesson, Phase
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import chunk_masks, is_demonstration, label_masked, until_handover
from sop_jax.algorithms.recap.returns import JUDGED
from sop_jax.algorithms.recap.value_function import ValueFunction, load_value_function
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.items import FrameLabels
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Source

POSITIVE, NEGATIVE = "Advantage: positive", "Advantage: negative"


@dataclasses.dataclass(frozen=True)
class RecapConfig:
    """What counts as good, and how it is told.

    value_function: directory of the value function (`sop pretrain --value-of`), as seen from the working directory; only
        intake reads it.
    positive_share: of a task's frames in the value function's held-out episodes, the share that its threshold calls positive.
    thresholds: "task=advantage" for tasks whose threshold is set by hand.
    demonstrations_positive: demonstrations that succeeded are positive whatever the value function says, as in the paper's
        fine-tuning; off, they are judged like the rest, as in its pre-training. Those that failed are judged always.
    indicator_dropout: how often a lesson goes without the indicator.
    collecting_guidance, evaluating_guidance: beta, the scale of classifier-free guidance while acting.
    """

    value_function: str = ""
    positive_share: float = 0.3
    thresholds: tuple[str, ...] = ()
    demonstrations_positive: bool = True
    indicator_dropout: float = 0.3
    collecting_guidance: float = 1.0
    evaluating_guidance: float = 1.5

    def __post_init__(self) -> None:
        for name in ("positive_share", "indicator_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"RecapConfig.{name} must lie in [0, 1], got {getattr(self, name)}")
        for phase in Phase:
            Conditioning(POSITIVE, self.guidance(phase))
        self.threshold_of("")

    def guidance(self, phase: Phase) -> float:
        return self.collecting_guidance if phase is Phase.COLLECTING else self.evaluating_guidance

    def threshold_of(self, task: str) -> float | None:
        """The threshold set by hand, None if there is none. Raises ConfigError if one can't be read."""
        found = None
        for text in self.thresholds:
            name, _, number = text.partition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if not (name and math.isfinite(value)):
                raise ConfigError(f'RecapConfig.thresholds must be "task=number" each, got {text!r}')
            found = value if name == task else found
        return found


@dataclasses.dataclass(frozen=True)
class Recap:
    """An `Algorithm`. A frame's label is its indicator: 1 positive, 0 negative. The value function is read when the first
    episode is labelled, so learner and robots do without it."""

    config: RecapConfig = RecapConfig()

    @property
    def name(self) -> str:
        return "recap"

    @property
    def teaches_online(self) -> bool:
        return True

    @functools.cached_property
    def value_function(self) -> ValueFunction:
        """Raises ConfigError if there is none where the config says, InvalidBundleError if it is damaged."""
        if not self.config.value_function:
            raise ConfigError(
                "RECAP labels with a value function, and RecapConfig.value_function names none. Make one with `sop pretrain "
                "--value-of POLICY --store STORE --output DIRECTORY`"
            )
        return load_value_function(pathlib.Path(self.config.value_function))

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels:
        masks = self.action_masks(manifest, arrays, horizon)
        if not len(arrays.image_frames):  # nothing to judge by, and no frame that could be sampled
            return label_masked(np.zeros_like(masks), np.zeros(len(masks), np.float32))
        return label_masked(masks, self._indicators(manifest, arrays, images).astype(np.float32))

    def action_masks(self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int) -> Bool[np.ndarray, "T H"]:
        """Every action up to the next handover, whoever took it and however it ended, unless the end says nothing (aborted,
        error).

        A label judges who acts at the chunk's first frame. Beyond a handover it would call a correction negative because of
        what it corrects, and the policy's own actions positive because of the help before them.
        """
        judged = chunk_masks(np.full(arrays.num_frames, manifest.outcome in JUDGED), horizon, manifest.outcome)
        return judged & until_handover(arrays.intervention, horizon)

    def make_lesson(self, instruction: str, label: float, rng: np.random.Generator) -> Lesson:
        if rng.random() < self.config.indicator_dropout:
            return Lesson(instruction, 1.0)
        return Lesson(Conditioning(POSITIVE if label > 0 else NEGATIVE).apply(instruction), 1.0)

    def conditioning(self, phase: Phase) -> Conditioning:
        return Conditioning(POSITIVE, self.config.guidance(phase))

    def loss(
        self, model: PolicyModel, params: Any, norm: Any, batch: TrainBatch, key: Array
    ) -> tuple[Float[Array, ""], Float[Array, "B"]]:
        return imitation_loss(model, params, norm, batch, key)

    def loss_weight(self, batch: TrainBatch) -> Float[Array, ""]:
        return taught_weight(batch)

    def threshold(self, task: str) -> float:
        """The advantage above which a frame of this task is positive."""
        given = self.config.threshold_of(task)
        return self.value_function.task(task).threshold(self.config.positive_share) if given is None else given

    def _indicators(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, images: EpisodeImages | None
    ) -> Bool[np.ndarray, "T"]:
        """I_t = [A_t > threshold], but corrections are right where they were made."""
        if manifest.outcome not in JUDGED:
            return np.zeros(arrays.num_frames, bool)
        if is_demonstration(manifest) and self.config.demonstrations_positive:
            return np.ones(arrays.num_frames, bool)
        if images is None:
            raise ValueError(f"episode {manifest.episode_id}: RECAP judges images, and was given none")
        values = self.value_function.values(manifest, arrays, images)
        better = self.value_function.advantages(manifest, arrays, values) > self.threshold(manifest.task)
        # All of a demonstration's frames are flagged as interventions; here it is judged.
        corrected = arrays.intervention & (manifest.source == Source.ONLINE)
        return better | corrected
