"""Small models and batches for the tests of this folder."""

import dataclasses

import jax
import numpy as np

from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import NormStats, identity_norm_stats
from sop_jax.models.pi05.config import ExpertConfig, LoraConfig, Pi05Config, VisionConfig
from sop_jax.models.policy import PolicyModel

COMPACT = CompactConfig(
    cameras=("head", "hand_left"),
    image_size=16,
    state_dim=5,
    action_dim=4,
    horizon=3,
    max_tokens=12,
    text_width=8,
    patch_width=16,
    patch_features=4,
    camera_features=8,
    state_features=8,
    head_width=32,
)
_EXPERT = ExpertConfig(width=16, depth=2, mlp_dim=24, num_heads=4, num_kv_heads=2, head_dim=4)
PI05 = Pi05Config(
    vision=VisionConfig(width=12, depth=2, mlp_dim=16, num_heads=2, patch_size=8, image_size=16),
    language=dataclasses.replace(_EXPERT, width=20),
    expert=_EXPERT,
    vocab_size=64 + 256,
    cameras=("head", "hand_left"),
    state_dim=5,
    action_dim=4,
    model_action_dim=6,
    horizon=3,
    normalization="quantile",
    state_input="tokens",
    tokenizer="hash",
    max_tokens=12,
    num_draws=2,
    num_steps=4,
    dtype="float32",
    from_scratch=True,
    freeze_language=True,
    remat=False,
)
PI0 = dataclasses.replace(PI05, head="pi0", state_input="suffix", normalization="mean_std")
LORA = dataclasses.replace(
    PI05,
    language=dataclasses.replace(PI05.language, lora=LoraConfig(rank=2, alpha=6.0)),
    expert=dataclasses.replace(PI05.expert, lora=LoraConfig(rank=3, alpha=3.0)),
)
MODELS = {
    "compact": COMPACT,
    "pi05_tokens": PI05,
    "pi05_continuous": dataclasses.replace(PI05, state_input="continuous", remat=True, loss_on_idle_dims=False),
    "pi0": PI0,
}


def norm_for(model: PolicyModel) -> NormStats:
    return identity_norm_stats(model.config.state_dim, model.action_dim, model.horizon)


def make_observation(model: PolicyModel, instructions: list[str], seed: int = 0, size: int = 16) -> ObservationBatch:
    rng = np.random.default_rng(seed)
    batch = len(instructions)
    tokens, token_mask = model.tokenize(instructions)
    return ObservationBatch(
        images={name: rng.integers(0, 256, (batch, size, size, 3), np.uint8) for name in model.cameras},
        image_mask={name: np.ones(batch, bool) for name in model.cameras},
        state=rng.uniform(-0.9, 0.9, (batch, model.config.state_dim)).astype(np.float32),
        tokens=tokens,
        token_mask=token_mask,
    )


def make_batch(model: PolicyModel, batch: int = 3, seed: int = 0) -> TrainBatch:
    rng = np.random.default_rng(seed + 1)
    shape = (batch, model.horizon, model.action_dim)
    return TrainBatch(
        observation=make_observation(model, [f"put can {i} on the left shelf" for i in range(batch)], seed),
        actions=rng.uniform(-1, 1, shape).astype(np.float32),
        action_mask=np.ones(shape[:2], np.float32),
        weight=np.ones(batch, np.float32),
    )


def randomize(params, seed: int = 0, scale: float = 0.2):
    """Every leaf to noise, so that no zero initialisation hides a term."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([rng.normal(0, scale, leaf.shape).astype(np.float32) for leaf in leaves])
