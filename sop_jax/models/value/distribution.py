"""A value in [-1, 0] as a distribution over equally spaced bins.

Legend: `B` batch, `V` bins.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOWEST, HIGHEST = -1.0, 0.0
"""The values of the first and of the last bin."""


def bin_values(num_bins: int) -> Float[Array, "{num_bins}"]:
    """The value that each bin stands for."""
    return jnp.linspace(LOWEST, HIGHEST, num_bins)


def two_hot(values: Float[Array, "B"], num_bins: int) -> Float[Array, "B {num_bins}"]:
    """All weight on the two bins beside each value, so that their mean is the value; values outside go to the last bin."""
    place = (values.clip(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST) * (num_bins - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(place[:, None] - jnp.arange(num_bins)[None]))


def expected_value(logits: Float[Array, "B V"]) -> Float[Array, "B"]:
    """The mean of the distribution."""
    return jax.nn.softmax(logits, axis=-1) @ bin_values(logits.shape[-1])


def cross_entropy(logits: Float[Array, "B V"], values: Float[Array, "B"]) -> Float[Array, "B"]:
    """Against the two-hot distribution of `values`, in nats."""
    return -jnp.sum(two_hot(values, logits.shape[-1]) * jax.nn.log_softmax(logits, axis=-1), axis=-1)
