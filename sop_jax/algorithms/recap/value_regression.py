"""How a value function learns: cross-entropy of its bins against the returns that episodes came to.

Legend: `B` batch, `T` frames of an episode, `H` horizon.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray

from sop_jax.algorithms.algorithm import Lesson, Phase
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import label_masked
from sop_jax.algorithms.recap.returns import JUDGED
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.models.value.distribution import cross_entropy, expected_value
from sop_jax.models.value.model import ValueConfig, ValueModel
from sop_jax.replay.items import FrameLabels
from sop_jax.sampling.batch_source import BatchSource, Draw, LoadedBatch, never
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest


@dataclasses.dataclass(frozen=True)
class ValueRegression:
    """An `Algorithm` for a `ReturnModel`: every frame of a judged episode teaches, except in episodes that are held out."""

    held_out_share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.held_out_share < 1:
            raise ConfigError(f"ValueRegression.held_out_share must lie in [0, 1), got {self.held_out_share}")

    @property
    def name(self) -> str:
        return "value_regression"

    @property
    def teaches_online(self) -> bool:
        return True

    def is_held_out(self, episode_id: str) -> bool:
        """Drawn by the episode's name: the same on every machine, whatever else the store holds."""
        digest = hashlib.blake2b(f"held-out/{episode_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < self.held_out_share * 2**64

    def label_frames(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int, images: EpisodeImages | None = None
    ) -> FrameLabels:
        del images
        masks = self.action_masks(manifest, arrays, horizon)
        return label_masked(masks, np.ones(len(masks), np.float32))

    def action_masks(self, manifest: EpisodeManifest, arrays: EpisodeArrays, horizon: int) -> Bool[np.ndarray, "T H"]:
        teaches = manifest.outcome in JUDGED and not self.is_held_out(manifest.episode_id)
        return np.full((arrays.num_frames, horizon), teaches)

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


@dataclasses.dataclass(frozen=True)
class ReturnModel:
    """A value model as a `PolicyModel` whose chunk is one number, the return: so the learner trains it as it does a policy,
    on any mesh, with checkpoints."""

    value: ValueModel

    @property
    def config(self) -> ValueConfig:
        return self.value.config

    @property
    def horizon(self) -> int:
        return 1

    @property
    def action_dim(self) -> int:
        return 1

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.value.cameras

    def init_params(self, key: PRNGKeyArray) -> Params:
        return self.value.init_params(key)

    def loss(self, params: Params, norm: NormStats, batch: TrainBatch, key: PRNGKeyArray) -> Float[Array, "B 1"]:
        del key
        logits = self.value.logits(params, norm, batch.observation)
        return cross_entropy(logits, jnp.asarray(batch.actions)[:, 0, 0])[:, None]

    def sample_actions(
        self,
        params: Params,
        norm: NormStats,
        observation: ObservationBatch,
        key: PRNGKeyArray,
        num_steps: int | None = None,
        **options: Any,
    ) -> Float[Array, "B 1 1"]:
        del key, num_steps, options
        return expected_value(self.value.logits(params, norm, observation))[:, None, None]

    def is_trained(self, path: tuple[str, ...]) -> bool:
        return self.value.is_trained(path)

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        return self.value.tokenize(instructions)


class ReturnBatches:
    """A loader's batches with each frame's return in place of its chunk: actions [B, 1, 1]. Implements `BatchSource`.

    `returns` maps an episode to the normalised returns of its frames, float32 [T].
    """

    def __init__(self, batches: BatchSource, returns: Mapping[str, Float32[np.ndarray, "T"]]):
        self._batches = batches
        self._returns = returns

    def next(self, should_stop: Callable[[], bool] = never) -> LoadedBatch:
        loaded = self._batches.next(should_stop)
        wanted = [self._returns[name][frame] for name, frame in zip(loaded.episode_ids, loaded.frames, strict=True)]
        batch = dataclasses.replace(
            loaded.batch,
            actions=np.array(wanted, np.float32)[:, None, None],
            action_mask=np.ones((len(wanted), 1), np.float32),
        )
        return dataclasses.replace(loaded, batch=batch)

    def record_losses(self, draws: Sequence[Draw], per_example: Float32[np.ndarray, "B"]) -> None:
        self._batches.record_losses(draws, per_example)

    def wait_share(self) -> float:
        return self._batches.wait_share()

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._batches.load_state(state)

    def stop(self) -> None:
        self._batches.stop()
