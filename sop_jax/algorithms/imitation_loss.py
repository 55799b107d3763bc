"""The loss of imitation: the model's loss on exactly the actions that teach."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel


def imitation_loss(
    model: PolicyModel, params: Any, norm: Any, batch: TrainBatch, key: Array
) -> tuple[Float[Array, ""], Float[Array, "B"]]:
    """`masked_mean` of the model's loss over the chunk."""
    return masked_mean(model.loss(params, norm, batch, key), jnp.asarray(batch.action_mask), jnp.asarray(batch.weight))


def taught_weight(batch: TrainBatch) -> Float[Array, ""]:
    """What `imitation_loss` is a mean over: the weights of all taught actions together, sum_bh w_b m_bh."""
    return jnp.sum(jnp.asarray(batch.weight) * jnp.asarray(batch.action_mask).sum(axis=1))


def masked_mean(
    per_action: Float[Array, "B H"], action_mask: Float[Array, "B H"], weight: Float[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, "B"]]:
    """Mean loss over the batch's taught actions, and over each example's own.

    total = sum_bh w_b m_bh l_bh / sum_bh w_b m_bh: every taught action counts alike, so a chunk that holds one human action
    doesn't pull as hard as a chunk of sixteen. per_example_b = sum_h m_bh l_bh / sum_h m_bh, unweighted. Both are 0 where
    nothing teaches.
    """
    masked = jnp.where(action_mask > 0, per_action * action_mask, 0.0)
    num_taught = action_mask.sum(axis=1)
    total = _divide(jnp.sum(weight * masked.sum(axis=1)), jnp.sum(weight * num_taught))
    return total, _divide(masked.sum(axis=1), num_taught)


def _divide(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    """0 where the denominator is 0, with a gradient of 0 there."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
