"""What changes while training."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from sop_jax.models.pytrees import Params, register_record


@register_record
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The trained leaves and all that belongs to them; a checkpoint holds exactly this. Frozen leaves never enter it.

    params: float32, whatever the base stores. ema: their running average, or None without one.
    step: learner steps done.
    """

    params: Params
    ema: Params | None
    opt_state: Any
    step: Int32[Array, ""] | Any

    @property
    def published(self) -> Params:
        """What robots act with."""
        return self.params if self.ema is None else self.ema


def init_state(trained: Params, optimizer: optax.GradientTransformation, ema_decay: float) -> TrainState:
    """A fresh state from the trained leaves; under `jax.eval_shape` its shapes only."""
    params = jax.tree.map(lambda leaf: jnp.copy(to_master(leaf)), trained)
    return TrainState(
        params=params,
        ema=jax.tree.map(jnp.copy, params) if ema_decay > 0 else None,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
    )


def to_master(leaf: Any) -> Any:
    """Floating leaves are trained in float32, because steps are smaller than bfloat16 can add."""
    return jnp.asarray(leaf, jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.asarray(leaf)
