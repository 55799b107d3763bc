"""Real-time chunking inside a policy: the next chunk continues the one that the robot still executes.

Two ways. *Guided* (Black et al. 2025, arXiv 2506.07339) needs no training: every step of the flow is pulled towards the
previous chunk (`flow.guide`), fully over the frozen actions and ever less over the rest that is known. *Trained* (arXiv
2512.05964) gives the frozen actions clean, with their own time at the clean end, to a model that was trained so
(`flow.hold`, `draw_prefix`).

Legend: `B` batch, `N` draws, `H` horizon, `A` action dimensions. Counts of actions are from the start of the chunk.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sop_jax.models.pytrees import Leaf, register_record
from sop_jax.specs.chunking import Schedule


@register_record
@dataclasses.dataclass(frozen=True)
class ActionPrefix:
    """A batch of `specs.chunking.ChunkPrefix`: absolute targets in raw units, and how many of them count."""

    actions: Float[Leaf, "B H A"]
    num_frozen: Int[Leaf, " B"]
    num_known: Int[Leaf, " B"]


def soft_mask(prefix: ActionPrefix, schedule: Schedule) -> Float[Array, "B H"]:
    """How much each action is held to the previous chunk: 1 while frozen, then falling, 0 from `num_known` on.

    Equation 5 of 2506.07339 with H - s = num_known and d = num_frozen; "linear" leaves out its exponential.
    """
    step = jnp.arange(prefix.actions.shape[1])[None]
    known = jnp.asarray(prefix.num_known)[:, None]
    frozen = jnp.minimum(jnp.asarray(prefix.num_frozen)[:, None], known)
    fall = ((known - step) / (known - frozen + 1)).clip(0.0, 1.0)
    if schedule == "exponential":
        fall = fall * jnp.expm1(fall) / (math.e - 1)
    return jnp.where(step < frozen, 1.0, fall)


def is_frozen(prefix: ActionPrefix, max_frozen: int) -> Bool[Array, "B H"]:
    """The actions that a trained model is given clean: never more than it was trained for."""
    num_frozen = jnp.minimum(jnp.asarray(prefix.num_frozen), max_frozen)
    return jnp.arange(prefix.actions.shape[1])[None] < num_frozen[:, None]


def draw_prefix(key: PRNGKeyArray, batch: int, horizon: int, max_delay: int) -> Bool[Array, "B H"]:
    """Training: the first d actions of each example, d uniform in 0 .. max_delay."""
    delay = jax.random.randint(key, (batch, 1), 0, max_delay + 1)
    return jnp.arange(horizon)[None] < delay


def mean_of_open(error: Float[Array, "B N H"], given: Bool[Array, "B N H"], max_delay: int) -> Float[Array, "B H"]:
    """Training: each action's mean error over the draws that don't give it away (`draw_prefix`), over the probability that
    there is such a draw; 0 where there is none.

    Action h is open in a draw with p = (min(h, max_delay) + 1) / (max_delay + 1), in one of N or more with 1 - (1 - p)^N.
    Without this divisor a chunk's first actions would count for less than the others, in expectation by that factor, and
    examples in which nothing else teaches would look as if they had been learnt.
    """
    _, num_draws, horizon = error.shape
    open_in_one = (np.minimum(np.arange(horizon), max_delay) + 1) / (max_delay + 1)
    probability = jnp.asarray(1 - (1 - open_in_one) ** num_draws, error.dtype)[None]
    num_open = jnp.sum(~given, axis=1)
    return jnp.where(given, 0.0, error).sum(axis=1) / (jnp.maximum(num_open, 1) * probability)
