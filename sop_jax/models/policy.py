"""The interface of all policies, and what they share: functional use of an NNX module, and input checks.

Legend: `B` batch, `S` state dimensions, `A` action dimensions, `H` horizon, `L` text tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from sop_jax.models.batch import BarePrompt, ObservationBatch, TrainBatch
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.normalization import NormStats
from sop_jax.models.pytrees import Params
from sop_jax.specs.chunking import Guidance


@runtime_checkable
class PolicyModel(Protocol):
    """A policy as pure functions of its parameters. The object itself is static: hashable, equal if its config is equal.

        model = create_model(PRESETS["compact"])
        params = model.init_params(jax.random.key(0))
        loss = jax.jit(model.loss)(params, norm, batch, key)
        chunk = jax.jit(model.sample_actions)(params, norm, observation, key)

    Raw units go in and come out; `norm` is the pytree with which the policy was trained.
    """

    @property
    def config(self) -> Any: ...

    @property
    def horizon(self) -> int: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that a batch must hold, by name."""
        ...

    def init_params(self, key: PRNGKeyArray) -> Params: ...

    def loss(self, params: Params, norm: NormStats, batch: TrainBatch, key: PRNGKeyArray) -> Float[Array, "B H"]:
        """Loss of each action of the chunk, averaged over action dimensions; neither masked nor weighted."""
        ...

    def sample_actions(
        self,
        params: Params,
        norm: NormStats,
        observation: ObservationBatch,
        key: PRNGKeyArray,
        num_steps: int | None = None,
        *,
        action_prefix: ActionPrefix | None = None,
        guidance: Guidance | None = None,
        bare_prompt: BarePrompt | None = None,
    ) -> Float[Array, "B H A"]:
        """A chunk of absolute targets, one per control tick; `num_steps` Euler steps (None = the config's).

        With a `bare_prompt` every step follows v_u + g (v_c - v_u) (classifier-free guidance): both prompts are read, and
        both velocities computed, side by side in one batch.

        With an `action_prefix` the chunk continues the previous one: pulled towards it by `guidance`, or, without guidance,
        as the model was trained to (ValueError if it was not). A prefix of which nothing is known gives a plain sample.
        """
        ...

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """Whether post-training may change the parameter at this path; False = frozen."""
        ...

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        """Instructions as (tokens, mask). Host side: call it outside jit."""
        ...


def abstract_params(model: PolicyModel) -> Params:
    """Shapes and dtypes of the model's parameters; allocates nothing."""
    return jax.eval_shape(model.init_params, jax.random.key(0))


def split_network(network: nnx.Module) -> Params:
    """The parameters of an NNX module as a nested plain dict."""
    return nnx.to_pure_dict(nnx.split(network)[1])


def merge_network(graphdef: nnx.GraphDef[Any], params: Params) -> Any:
    """The NNX module back from its structure and its parameters."""
    return nnx.merge(graphdef, nnx.State(params))


def check_inputs(model: PolicyModel, norm: NormStats, observation: ObservationBatch) -> None:
    """Raises ValueError if shapes, cameras or statistics do not fit the model. Costs nothing at run time under jit."""
    missing = [name for name in model.cameras if name not in observation.images or name not in observation.image_mask]
    if missing:
        raise ValueError(
            f"the policy needs cameras {list(model.cameras)}, the batch lacks {missing} (it has images of "
            f"{sorted(observation.images)}). Set `cameras` in the model's config to the robot's cameras."
        )
    expected = (model.horizon, model.action_dim)
    if norm.action_mean.shape != expected:
        raise ValueError(
            f"the policy's chunks are {expected} (horizon, action_dim) but the normalisation statistics are for "
            f"{norm.action_mean.shape}. Compute the statistics with the model's own horizon."
        )
    if observation.state.shape[-1] != norm.state_mean.shape[-1]:
        raise ValueError(
            f"the batch's state has {observation.state.shape[-1]} dimensions, the normalisation statistics "
            f"{norm.state_mean.shape[-1]}. Use statistics of the same robot."
        )


def with_bare_prompt(observation: ObservationBatch, bare: BarePrompt) -> ObservationBatch:
    """Twice the batch: every example with its own prompt, then every example with its bare one."""
    doubled: ObservationBatch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), observation)
    return dataclasses.replace(
        doubled,
        tokens=jnp.concatenate([observation.tokens, bare.tokens]),
        token_mask=jnp.concatenate([observation.token_mask, bare.token_mask]),
    )
