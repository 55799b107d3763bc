"""A pi0.5 small enough to be compiled many times, with the language model frozen in bfloat16 as at full size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.pi05.config import ExpertConfig, Pi05Config, VisionConfig
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.fake import SyntheticBatches
from sop_jax.specs.records import CameraSpec

DIM, HORIZON, IMAGE = 4, 4, 16
DEPTH = 5  # deeper stacks than 4 are loops in the program, as at full size
_EXPERT = ExpertConfig(width=32, depth=DEPTH, mlp_dim=48, num_heads=4, num_kv_heads=1, head_dim=8)
CONFIG = Pi05Config(
    vision=VisionConfig(width=16, depth=DEPTH, mlp_dim=40, num_heads=2, patch_size=8, image_size=IMAGE),
    language=dataclasses.replace(_EXPERT, width=24, mlp_dim=56),
    expert=_EXPERT,
    vocab_size=64 + 256,
    cameras=("head", "hand"),
    state_dim=DIM,
    action_dim=DIM,
    model_action_dim=8,
    horizon=HORIZON,
    tokenizer="hash",
    max_tokens=8,
    dtype="float32",
    from_scratch=True,
    freeze_language=True,
    remat=False,
)
MODEL = Pi05Policy(CONFIG)
NORM = identity_norm_stats(DIM, DIM, HORIZON)


def make_params(model: Pi05Policy = MODEL):
    """Reproducible parameters; the frozen ones in bfloat16, as a base policy stores them."""
    flat = flatten_params(jax.jit(model.init_params)(jax.random.key(0)))
    return unflatten_params(
        {path: leaf if model.is_trained(path) else leaf.astype(jnp.bfloat16) for path, leaf in flat.items()}
    )


def make_batches(batch_size: int, tasks=("fold", "stock")) -> SyntheticBatches:
    cameras = tuple(CameraSpec(name, IMAGE, IMAGE) for name in CONFIG.cameras)
    return SyntheticBatches(BatchSpec(cameras, DIM, DIM, HORIZON), MODEL.tokenize, tasks, batch_size)


def with_uneven_masks(batch, seed: int = 0):
    """The same batch, with chunks that teach in part, examples of different weight, and one that teaches nothing."""
    rng = np.random.default_rng(seed)
    mask = (rng.random(batch.action_mask.shape) < 0.7).astype(np.float32)
    mask[0] = 0
    weight = rng.uniform(0.5, 2.0, batch.weight.shape).astype(np.float32)
    return dataclasses.replace(batch, action_mask=mask, weight=weight)
