"""Normalisations of the two transformers: plain, and modulated by a condition (adaRMS).

Legend: `B` batch, `T` tokens, `D` width, `C` features of the condition, `M` = 3 D, `depth` layers.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sop_jax.models.pytrees import Leaf, register_record


@register_record
@dataclasses.dataclass(frozen=True)
class Modulations:
    """What a condition makes of the action expert's normalisations: scale, shift and gate of every one, concatenated.

    They depend on the condition alone. Between the layer axis and the last one they have the condition's axes: [B or 1,
    T or 1], or in a table the rows.
    """

    attention: Float[Leaf, "depth *rows M"]
    feed_forward: Float[Leaf, "depth *rows M"]
    final: Float[Leaf, "*rows M"]

    def at(self, rows: Int[Array, "*b"]) -> "Modulations":
        """From a table of rows: one row for all [], one per example [B], or one per token [B, T]."""

        def spread(table: Leaf, axis: int) -> Array:
            taken = jnp.take(jnp.asarray(table), rows, axis=axis)
            return jnp.expand_dims(taken, tuple(range(axis + rows.ndim, axis + 2)))

        return Modulations(spread(self.attention, 1), spread(self.feed_forward, 1), spread(self.final, 0))


def rms_normalize(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Unit root mean square over the width, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class RMSNorm(nnx.Module):
    """Unit root mean square, then a learned scale around 1. Its gate is 1."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "B T D"], modulation: None = None) -> tuple[Float[Array, "B T D"], None]:
        del modulation
        return (rms_normalize(x) * (1 + self.scale[...][None, None])).astype(x.dtype), None


class AdaRMSNorm(nnx.Module):
    """Unit root mean square; scale, shift and gate come from a condition.

    openpi starts with every gate closed; a model trained from scratch starts with open ones. The modulation has the
    activations' dtype, as openpi's; the product with the normalised input is in float32.
    """

    def __init__(self, width: int, dtype: jnp.dtype, from_scratch: bool, rngs: nnx.Rngs):
        kernel_init = nnx.initializers.normal(0.02) if from_scratch else nnx.initializers.zeros
        self.Dense_0 = nnx.Linear(width, 3 * width, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        if from_scratch:
            self.Dense_0.bias = nnx.Param(jnp.concatenate([jnp.zeros(2 * width), jnp.ones(width)]))

    def modulate(self, cond: Float[Array, "*rows C"]) -> Float[Array, "*rows M"]:
        """Scale, shift and gate, in this order."""
        return self.Dense_0(cond)

    def __call__(
        self, x: Float[Array, "B T D"], modulation: Float[Array, "_ _ M"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "_ _ D"]]:
        """Normalised, and the gate of what is then computed; axes of the modulation that are 1 hold for all."""
        scale, shift, gate = jnp.split(modulation, 3, axis=-1)
        return (rms_normalize(x) * (1 + scale) + shift).astype(x.dtype), gate.astype(x.dtype)
