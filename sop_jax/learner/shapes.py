"""A learner's inputs as shapes alone: for estimates and for compiling ahead of time.

Legend: `B` batch, `A` action dimensions, `H` horizon, `L` text tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.normalization import NormStats, identity_norm_stats
from sop_jax.models.policy import PolicyModel, abstract_params
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.models.registry import create_model

_TOKENS_PER_NUMBER = 4  # a blank and three digits
_CLOSING_TOKENS = 6


def without_vocabulary(model: PolicyModel) -> PolicyModel:
    """The same model with prompts of the same length, for a machine that lacks PaliGemma's vocabulary file."""
    config = model.config
    if getattr(config, "tokenizer", "hash") == "hash":
        return model
    longer = (_TOKENS_PER_NUMBER - 1) * config.state_dim + _CLOSING_TOKENS if config.state_input == "tokens" else 0
    return create_model(dataclasses.replace(config, tokenizer="hash", max_tokens=config.max_tokens + longer))


def stored_params(model: PolicyModel) -> Params:
    """The parameters' shapes as a base policy stores them: frozen ones in the type that the model computes in."""
    frozen_dtype = jnp.dtype(getattr(model.config, "dtype", "float32"))
    flat = {
        path: leaf if model.is_trained(path) else jax.ShapeDtypeStruct(leaf.shape, frozen_dtype)
        for path, leaf in flatten_params(abstract_params(model)).items()
    }
    return unflatten_params(flat)


def abstract_batch(model: PolicyModel, image_size: int, batch_size: int) -> TrainBatch:
    """The shapes of a batch of images of `image_size` pixels square."""

    def shape(dtype: Any, *dims: int) -> Any:
        return jax.ShapeDtypeStruct((batch_size, *dims), dtype)

    num_tokens = model.config.max_tokens
    observation = _unchecked(
        ObservationBatch,
        images={name: shape(jnp.uint8, image_size, image_size, 3) for name in model.cameras},
        image_mask={name: shape(jnp.bool_) for name in model.cameras},
        state=shape(jnp.float32, model.config.state_dim),
        tokens=shape(jnp.int32, num_tokens),
        token_mask=shape(jnp.bool_, num_tokens),
    )
    return _unchecked(
        TrainBatch,
        observation=observation,
        actions=shape(jnp.float32, model.horizon, model.action_dim),
        action_mask=shape(jnp.float32, model.horizon),
        weight=shape(jnp.float32),
    )


def example_norm(model: PolicyModel) -> NormStats:
    """Statistics of the right shape, which change nothing."""
    return identity_norm_stats(model.config.state_dim, model.action_dim, model.horizon)


def _unchecked(cls: type, **fields: Any) -> Any:
    """A record of shapes; its own constructor asks for arrays (checked while the tests run)."""
    record = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(record, name, value)
    return record
