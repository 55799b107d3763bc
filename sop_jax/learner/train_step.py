"""One learner step as a pure function, and its compiled form.

Legend: `B` batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.gradients import loss_and_gradient
from sop_jax.learner.optimizer import make_optimizer, make_schedule
from sop_jax.learner.sharding import batch_sharding, replicated, tree_shardings
from sop_jax.learner.state import TrainState
from sop_jax.models.batch import TrainBatch
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, register_record
from sop_jax.weights.partition import merge_params


@register_record
@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a step measured. `is_finite` False: the gradient wasn't, and the parameters stayed as they were."""

    loss: Float32[Array, ""]
    grad_norm: Float32[Array, ""]
    learning_rate: Float[Array, ""]
    is_finite: Bool[Array, ""]
    per_example: Float32[Array, "B"]


CompiledStep = Callable[[TrainState, Params, Any, TrainBatch], tuple[TrainState, StepResult]]
"""(state, frozen, norm, batch) -> (next state, result). Donates `state`: the argument can't be used afterwards."""


def train_step(
    model: PolicyModel,
    algorithm: Algorithm,
    config: LearnerConfig,
    state: TrainState,
    frozen: Params,
    norm: Any,
    batch: TrainBatch,
) -> tuple[TrainState, StepResult]:
    """Descends the algorithm's loss once. Random numbers come from (config.seed, state.step) only."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss_of(params: Params, batch: TrainBatch, key: Array) -> tuple[Array, Array]:
        return algorithm.loss(model, merge_params(params, frozen), norm, batch, key)

    loss, per_example, grads = loss_and_gradient(
        loss_of, algorithm.loss_weight, state.params, batch, key, config.accumulate_steps, config.mesh.min_sharded_bytes
    )
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = make_optimizer(config).update(grads, state.opt_state, state.params)
    params = cast(Params, optax.apply_updates(state.params, updates))
    ema = None
    if state.ema is not None:
        ema = cast(Params, optax.incremental_update(params, state.ema, 1.0 - config.ema_decay))

    is_finite = jnp.isfinite(grad_norm) & jnp.isfinite(loss)
    learned = TrainState(params=params, ema=ema, opt_state=opt_state, step=state.step)
    learned = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), learned, state)
    result = StepResult(
        loss=loss.astype(jnp.float32),
        grad_norm=grad_norm.astype(jnp.float32),
        learning_rate=jnp.asarray(make_schedule(config)(state.step)),
        is_finite=is_finite,
        per_example=per_example.astype(jnp.float32),
    )
    return dataclasses.replace(learned, step=state.step + 1), result


def compile_step(
    model: PolicyModel, algorithm: Algorithm, config: LearnerConfig, mesh: Mesh, state: TrainState, frozen: Params
) -> CompiledStep:
    """`train_step` for arrays that lie on `mesh` as `tree_shardings` says; `state` and `frozen` give the shapes."""
    state_shardings = tree_shardings(mesh, state, config.mesh.min_sharded_bytes)
    frozen_shardings = tree_shardings(mesh, frozen, config.mesh.min_sharded_bytes)
    everywhere = replicated(mesh)
    scalar = jnp.zeros((), jnp.float32)
    like = StepResult(scalar, scalar, scalar, jnp.zeros((), bool), jnp.zeros(1, jnp.float32))
    result_shardings = jax.tree.map(lambda leaf: batch_sharding(mesh) if leaf.ndim else everywhere, like)

    def step(state: TrainState, frozen: Params, norm: Any, batch: TrainBatch) -> tuple[TrainState, StepResult]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return train_step(model, algorithm, config, state, frozen, norm, batch)

    return jax.jit(
        step,
        in_shardings=(state_shardings, frozen_shardings, everywhere, batch_sharding(mesh)),
        out_shardings=(state_shardings, result_shardings),
        donate_argnums=0,
    )


def compile_copy(mesh: Mesh, dtypes: Any) -> Callable[[Params], Params]:
    """Copies parameters on the device, cast to `dtypes`, so that they outlive the donation of the state they came from.

    With several hosts every host gets the whole of each array; on one host they stay as they lie.
    """

    def copy(params: Params) -> Params:
        return jax.tree.map(lambda leaf, dtype: jnp.copy(leaf).astype(dtype), params, dtypes)

    return jax.jit(copy, out_shardings=replicated(mesh) if jax.process_count() > 1 else None)
