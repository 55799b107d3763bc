"""The gradient of a batch, taken whole or in parts.

Legend: `B` batch, `K` parts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sop_jax.learner.sharding import join_parts, lay_like_state, split_in_parts
from sop_jax.models.batch import TrainBatch
from sop_jax.models.pytrees import Params

LossOf = Callable[[Params, TrainBatch, PRNGKeyArray], tuple[Array, Array]]
"""(trained parameters, batch, key) -> (loss [], loss of each example [B])."""


def loss_and_gradient(
    loss_of: LossOf,
    weight_of: Callable[[TrainBatch], Float[Array, ""]],
    params: Params,
    batch: TrainBatch,
    key: PRNGKeyArray,
    num_parts: int,
    min_sharded_bytes: int,
) -> tuple[Float[Array, ""], Float[Array, "B"], Params]:
    """Loss, loss of each example, and gradient of `loss_of`.

    In parts, the loss and the gradient are those of the whole batch; only the random numbers differ: part k draws from
    `fold_in(key, k)`. Part k holds the examples k, k + K, k + 2K ..., whatever the mesh.
    """
    if num_parts == 1:
        (loss, per_example), grads = jax.value_and_grad(loss_of, has_aux=True)(params, batch, key)
        return loss, per_example, lay_like_state(grads, min_sharded_bytes)
    total = weight_of(batch)

    def add(sums: tuple[Array, Params], part: tuple[Array, TrainBatch]) -> tuple[tuple[Array, Params], Array]:
        index, rows = part
        share = jnp.where(total > 0, weight_of(rows) / jnp.where(total > 0, total, 1.0), 0.0)

        def shared_loss(params: Params) -> tuple[Array, Array]:
            loss, per_example = loss_of(params, rows, jax.random.fold_in(key, index))
            return loss * share, per_example

        (loss, per_example), grads = jax.value_and_grad(shared_loss, has_aux=True)(params)
        grads = jax.tree.map(jnp.add, sums[1], lay_like_state(grads, min_sharded_bytes))
        return (sums[0] + loss, lay_like_state(grads, min_sharded_bytes)), per_example

    zeros = lay_like_state(jax.tree.map(jnp.zeros_like, params), min_sharded_bytes)
    parts: Any = (jnp.arange(num_parts), split_in_parts(batch, num_parts))
    (loss, grads), per_example = jax.lax.scan(add, (jnp.zeros(()), zeros), parts)
    return loss, join_parts(per_example), grads
