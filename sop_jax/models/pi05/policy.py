"""The pi0.5 and pi0 policies: `models.policy.PolicyModel` over the networks of `network.py`.

Legend: `B` batch, `N` draws, `S` state dimensions, `A` action dimensions (`M` inside the model), `H` horizon, `L` text
tokens, `P` prefix tokens, `D` width of the language model.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from sop_jax.models import flow
from sop_jax.models.batch import BarePrompt, ObservationBatch, TrainBatch
from sop_jax.models.chunking import ActionPrefix, draw_prefix, is_frozen, mean_of_open, soft_mask
from sop_jax.models.normalization import NormStats, decode_actions, encode_actions, normalize_state
from sop_jax.models.pi05.config import NUM_STATE_BINS, Pi05Config
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.pi05.network import Pi05Network, repeat_prefix
from sop_jax.models.pi05.prompt import append_state
from sop_jax.models.policy import check_inputs, merge_network, split_network
from sop_jax.models.pytrees import Leaf, Params
from sop_jax.models.text import HashTokenizer, PaliGemmaTokenizer, Tokenizer
from sop_jax.specs.chunking import Guidance

TOKENIZER_VARIABLE = "SOP_PALIGEMMA_TOKENIZER"
"""Environment variable with the path of PaliGemma's SentencePiece model."""


@dataclasses.dataclass(frozen=True)
class Pi05Policy:
    """`PolicyModel` of a `Pi05Config`."""

    config: Pi05Config

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def action_dim(self) -> int:
        return self.config.action_dim

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.config.cameras

    @functools.cached_property
    def _graphdef(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: Pi05Network(self.config, nnx.Rngs(0))))[0]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises MissingDependencyError if PaliGemma's vocabulary is needed and not on this machine."""
        if self.config.tokenizer == "hash":
            return HashTokenizer(self.config.vocab_size, self.config.max_tokens, NUM_STATE_BINS)
        path, with_state = os.environ.get(TOKENIZER_VARIABLE, ""), self.config.state_input == "tokens"
        return PaliGemmaTokenizer(path, self.config.max_tokens, with_state)

    def init_params(self, key: PRNGKeyArray) -> Params:
        return split_network(Pi05Network(self.config, nnx.Rngs(params=key)))

    def loss(self, params: Params, norm: NormStats, batch: TrainBatch, key: PRNGKeyArray) -> Float[Array, "B H"]:
        shape = (batch.actions.shape[0] * self.config.num_draws, self.horizon, self.config.model_action_dim)
        max_delay = self.config.max_training_delay
        noise_key, time_key, *given_key = jax.random.split(key, 3 if max_delay else 2)
        noise = jax.random.normal(noise_key, shape)
        time, given = flow.sample_time(time_key, shape[:1]), None
        if max_delay:  # a time per action, and those that are given are clean
            given = draw_prefix(given_key[0], *shape[:2], max_delay)
            time = jnp.where(given, 0.0, time[:, None])
        error = self.squared_error(params, norm, batch, noise, time)
        error = error.sum(-1) / jnp.maximum(self._learnt_dims(norm).sum(), 1)
        error = error.reshape(-1, self.config.num_draws, self.horizon)
        return error.mean(1) if given is None else mean_of_open(error, given.reshape(error.shape), max_delay)

    def squared_error(
        self,
        params: Params,
        norm: NormStats,
        batch: TrainBatch,
        noise: Float[Leaf, "BN H M"],
        time: Float[Leaf, "..."],
    ) -> Float[Array, "BN H M"]:
        """What `loss` averages, for given draws, `num_draws` in a row per example; 0 on dimensions without loss.

        `time` is [BN], or [BN, H] for a time per action.
        """
        check_inputs(self, norm, batch.observation)
        network = merge_network(self._graphdef, params)
        actions = encode_actions(norm, batch.observation.state, batch.actions, self.config.normalization)
        actions = jnp.repeat(self._pad(actions), self.config.num_draws, axis=0)
        learnt = self._learnt_dims(norm)
        noise, time = jnp.asarray(noise) * learnt, jnp.asarray(time)
        noisy, target = flow.interpolate(noise, actions, time.reshape(*time.shape, *[1] * (3 - time.ndim)))
        prefix = repeat_prefix(
            network.read_prefix(*self._embed(network, norm, batch.observation)), self.config.num_draws
        )
        return jnp.where(learnt, jnp.square(network.velocity(prefix, noisy, time) - target), 0.0)

    def sample_actions(
        self,
        params: Params,
        norm: NormStats,
        observation: ObservationBatch,
        key: PRNGKeyArray,
        num_steps: int | None = None,
        use_cache: bool = True,
        *,
        action_prefix: ActionPrefix | None = None,
        guidance: Guidance | None = None,
        bare_prompt: BarePrompt | None = None,
        noise: Float[Leaf, "B H M"] | None = None,
    ) -> Float[Array, "B H A"]:
        """As in `PolicyModel`; from `noise`, if given, instead of a draw.

        Without the cache, every Euler step computes the prefix and the modulations again: slower, for comparison.
        """
        check_inputs(self, norm, observation)
        network = merge_network(self._graphdef, params)
        embedded, valid, state = self._embed(network, norm, observation, bare_prompt)
        num_steps = num_steps or self.config.num_steps
        shape = (observation.state.shape[0], self.horizon, self.config.model_action_dim)
        prefix = network.read_prefix(embedded, valid, state) if use_cache else None
        table = network.modulate_steps(num_steps) if use_cache else None
        learnt = self._learnt_dims(norm)

        def velocity(x: Array, time: Array) -> Array:
            times = jnp.broadcast_to(time, x.shape[: max(1, time.ndim)])  # [B], or [B, H] where a prefix is held clean
            if prefix is None:
                return network.velocity_uncached(embedded, valid, x, times, state) * learnt
            modulations = None if table is None else table.at(jnp.round((1.0 - time) * num_steps).astype(jnp.int32))
            return network.velocity(prefix, x, times, modulations) * learnt

        noise = flow.start_noise(key, shape, self.config.noise_scale) if noise is None else noise
        followed: flow.Velocity = velocity
        if bare_prompt is not None:
            followed = flow.guide_prompt(velocity, jnp.asarray(bare_prompt.guidance)[:, None, None])
        start: tuple[flow.Velocity, Array] = followed, jnp.asarray(noise) * learnt
        if action_prefix is not None:
            start = self._continue(*start, norm, observation, action_prefix, guidance)
        chunk = flow.integrate(*start, num_steps)
        return decode_actions(
            norm, jnp.asarray(observation.state), chunk[..., : self.action_dim], self.config.normalization
        )

    def is_trained(self, path: tuple[str, ...]) -> bool:
        if path[:2] != ("PaliGemma", "llm") or is_lora(path):
            return True
        # The action expert's names end in "_1"; outside `llm` the same ending means something else (LayerNorm_1).
        acts = any(name.endswith("_1") for name in path[2:])
        if (self.config.expert if acts else self.config.language).lora is not None:
            return False
        return acts or not self.config.freeze_language

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        return self.tokenizer.encode(instructions)

    def _continue(
        self,
        velocity: flow.Velocity,
        noise: Float[Array, "B H M"],
        norm: NormStats,
        observation: ObservationBatch,
        action_prefix: ActionPrefix,
        guidance: Guidance | None,
    ) -> tuple[flow.Velocity, Float[Array, "B H M"]]:
        """The velocity and the start of a chunk that continues another."""
        actions = jnp.asarray(action_prefix.actions)
        target = self._pad(encode_actions(norm, observation.state, actions, self.config.normalization))
        if guidance is not None:
            known_dims = self._pad(jnp.asarray(norm.action_is_active, jnp.float32)[None, None])
            weight = soft_mask(action_prefix, guidance.schedule)[..., None] * known_dims
            return flow.guide(velocity, target, weight, guidance.max_weight), noise
        if not self.config.max_training_delay:
            raise ValueError(
                "this policy was not trained to continue a chunk (its config has max_training_delay = 0); use chunking mode "
                "'guided', or train it with max_training_delay above 0"
            )
        held = is_frozen(action_prefix, self.config.max_training_delay)
        return flow.hold(velocity, held), jnp.where(held[..., None], target, noise)

    def _embed(
        self, network: Any, norm: NormStats, observation: ObservationBatch, bare: BarePrompt | None = None
    ) -> tuple[Array, Array, Array]:
        """Embedded prefix, which of its tokens are valid, and the normalised state; twice the batch with bare prompts."""
        state = normalize_state(norm, observation.state, self.config.normalization)
        tokens, mask = jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask)
        if bare is not None:
            state = jnp.concatenate([state, state])
            tokens, mask = jnp.concatenate([tokens, bare.tokens]), jnp.concatenate([mask, bare.token_mask])
        if self.config.state_input == "tokens":
            tokens, mask = append_state(self.tokenizer, state, tokens, mask)
        return *network.embed_prefix(observation, state, tokens, mask), state

    def _learnt_dims(self, norm: NormStats) -> Bool[Array, "1 1 M"]:
        """The dimensions inside the model that carry noise and loss."""
        if self.config.loss_on_idle_dims:
            return jnp.ones((1, 1, self.config.model_action_dim), bool)
        padding = self.config.model_action_dim - self.action_dim
        return jnp.pad(jnp.asarray(norm.action_is_active), (0, padding))[None, None]

    def _pad(self, actions: Float[Array, "B H A"]) -> Float[Array, "B H M"]:
        return jnp.pad(actions, ((0, 0), (0, 0), (0, self.config.model_action_dim - self.action_dim)))
