"""The state as text in pi0.5's prompt.

Legend: `B` batch, `S` state dimensions, `L` text tokens, `P` tokens of the state and of what closes the prompt.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sop_jax.models.pi05.config import NUM_STATE_BINS
from sop_jax.models.text import Tokenizer


def discretize_state(state: Float[Array, "B S"]) -> Int[Array, "B S"]:
    """Bins 0 .. 255 of equal width over [-1, 1]; values outside go to the outermost bins (openpi writes -1 below)."""
    edges = jnp.linspace(-1.0, 1.0, NUM_STATE_BINS + 1)[:-1]
    return (jnp.searchsorted(edges, state, side="right") - 1).clip(0)


def append_state(
    tokenizer: Tokenizer, state: Float[Array, "B S"], tokens: Int[Array, "B L"], mask: Bool[Array, "B L"]
) -> tuple[Int[Array, "B PL"], Bool[Array, "B PL"]]:
    """Appends the normalised state's tokens, and what closes the prompt.

    Padding stays between the parts: masked tokens are never seen and advance no position, so the result is that of the
    prompt without gaps.
    """
    bins, (ids, id_mask) = discretize_state(state), tokenizer.number_tokens(NUM_STATE_BINS)
    closing = tokenizer.closing_tokens()
    batch = state.shape[0]
    parts = [tokens, jnp.asarray(ids)[bins].reshape(batch, -1), jnp.broadcast_to(closing[None], (batch, len(closing)))]
    masks = [mask, jnp.asarray(id_mask)[bins].reshape(batch, -1), jnp.ones((batch, len(closing)), bool)]
    return jnp.concatenate(parts, axis=1), jnp.concatenate(masks, axis=1)
