"""Layers stacked on a leading axis and run by `jax.lax.scan`: one layer is compiled, however deep the model."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

from sop_jax.models.pi05.config import Remat
from sop_jax.models.placement import split_by_batch

Layer = TypeVar("Layer", bound=nnx.Module)

_UNROLL_UP_TO = 4


def stack_layers(make: Callable[[nnx.Rngs], Layer], depth: int, rngs: nnx.Rngs) -> Layer:
    """`depth` layers, each with its own random numbers, as one module whose parameters have a leading [depth] axis."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def create(rngs: nnx.Rngs) -> Layer:
        return make(rngs)

    return create(rngs)


def map_layers(layers: Layer, body: Callable[[Layer], Any]) -> Any:
    """`body(layer)` of every layer at once, stacked: for what needs no other layer's result."""
    graphdef, state = nnx.split(layers)
    return jax.vmap(lambda layer_state: body(nnx.merge(graphdef, layer_state)))(state)


def scan_layers(
    layers: nnx.Module, carry: Any, per_layer: Any, body: Callable[[Any, Any, Any], tuple[Any, Any]], remat: Remat
) -> tuple[Any, Any]:
    """Runs `body(layer, carry, per_layer[i]) -> (carry, output)` through the stack; outputs are stacked.

    Shallow stacks are unrolled: XLA's CPU backend runs loops with less parallelism. `remat` is `Pi05Config.remat`.
    """
    graphdef, state = nnx.split(layers)
    depth = jax.tree.leaves(state)[0].shape[0]

    def step(carry: Any, xs: Any) -> tuple[Any, Any]:
        layer_state, inputs = xs
        return body(nnx.merge(graphdef, layer_state), split_by_batch(carry), inputs)

    if remat:
        policies = jax.checkpoint_policies
        # Products with weights have no batch dimensions; those of attention have, and are recomputed.
        policy = policies.dots_with_no_batch_dims_saveable if remat == "dots" else policies.nothing_saveable
        step = jax.checkpoint(step, policy=policy, prevent_cse=False)
    return jax.lax.scan(step, carry, (state, per_layer), unroll=depth <= _UNROLL_UP_TO)
