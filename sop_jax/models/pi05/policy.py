"""The pi0.5 and pi0 policies: prefix (images, instruction) through the language model, actions through the expert.

The prefix never sees the suffix, so its keys and values are computed once: per observation in sampling, and for all
(noise, t) draws of an observation in the loss.

Legend: `B` batch, `N` draws, `S` state dimensions, `A` action dimensions (`M` inside the model), `H` horizon, `L` text
tokens, `P` prefix tokens, `T` suffix tokens, `D` width of the language model, `C` width of the action expert.
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
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray

from sop_jax.models import flow
from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.images import resize_with_pad
from sop_jax.models.normalization import NormStats, decode_actions, encode_actions, normalize_state
from sop_jax.models.pi05.config import NUM_STATE_BINS, Pi05Config
from sop_jax.models.pi05.gemma import Cache, Gemma, make_attention_mask
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.pi05.norms import Modulations
from sop_jax.models.pi05.siglip import Siglip
from sop_jax.models.policy import check_inputs, merge_network, split_network
from sop_jax.models.pytrees import Params
from sop_jax.models.text import HashTokenizer, PaliGemmaTokenizer, Tokenizer

TOKENIZER_VARIABLE = "SOP_PALIGEMMA_TOKENIZER"
"""Environment variable with the path of PaliGemma's SentencePiece model."""


@dataclasses.dataclass(frozen=True)
class Prefix:
    """What the action tokens read: the cache, and which of its tokens are valid."""

    cache: Cache
    valid: Bool[Array, "B P"]
    state: Float[Array, "B S"] | None = None
    """Normalised; only pi0's head reads it, in its suffix."""


class PaliGemma(nnx.Module):
    """The image tower, and the language model with the action expert beside it."""

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        self.img = Siglip(config.vision, config.language.width, dtype, config.remat, config.from_scratch, rngs)
        self.llm = Gemma(config, rngs)


class Pi05Network(nnx.Module):
    """All parameters, named as openpi names them."""

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        self.config = config
        self.PaliGemma = PaliGemma(config, rngs)
        width = config.expert.width
        self.action_in_proj = nnx.Linear(config.model_action_dim, width, rngs=rngs)
        if config.head == "pi05":
            self.time_mlp_in = nnx.Linear(width, width, rngs=rngs)
            self.time_mlp_out = nnx.Linear(width, width, rngs=rngs)
        else:
            self.state_proj = nnx.Linear(config.model_action_dim, width, rngs=rngs)
            self.action_time_mlp_in = nnx.Linear(2 * width, width, rngs=rngs)
            self.action_time_mlp_out = nnx.Linear(width, width, rngs=rngs)
        self.action_out_proj = nnx.Linear(width, config.model_action_dim, rngs=rngs)
        if config.state_input == "continuous":
            self.state_proj = nnx.Linear(config.state_dim, config.language.width, rngs=rngs)

    def embed_prefix(
        self,
        observation: ObservationBatch,
        state: Float[Array, "B S"],
        tokens: Int[Array, "B L"],
        token_mask: Bool[Array, "B L"],
    ) -> tuple[Float[Array, "B P D"], Bool[Array, "B P"]]:
        """Image tokens, text tokens, and the state's token if it is continuous; with their mask."""
        batch, cameras = state.shape[0], self.config.cameras
        dtype = jnp.dtype(self.config.dtype)
        images = [resize_with_pad(observation.images[name], self.config.vision.image_size) for name in cameras]
        # An example's cameras stay side by side, so that on a mesh no image changes its device.
        seen = self.PaliGemma.img(jnp.stack(images, axis=1).reshape(-1, *images[0].shape[1:]))
        seen = seen.reshape(batch, len(cameras), *seen.shape[1:])
        embedded = [seen[:, i] for i in range(len(cameras))]
        valid = [
            jnp.broadcast_to(jnp.asarray(observation.image_mask[name])[:, None], (batch, seen.shape[2]))
            for name in cameras
        ]
        embedded.append(self.PaliGemma.llm.embedder(tokens, dtype))
        valid.append(token_mask)
        if self.config.state_input == "continuous":
            embedded.append(self.state_proj(state)[:, None].astype(dtype))
            valid.append(jnp.ones((batch, 1), bool))
        return jnp.concatenate(embedded, axis=1), jnp.concatenate(valid, axis=1)

    def embed_time(self, time: Float[Array, "*t"]) -> Float[Array, "*t C"]:
        """pi0.5's condition of the expert."""
        cond = nnx.swish(self.time_mlp_in(flow.embed_time(time, self.config.expert.width)))
        return nnx.swish(self.time_mlp_out(cond))

    def embed_suffix(
        self, noisy: Float[Array, "B H M"], time: Float[Array, "..."], state: Float[Array, "B S"] | None = None
    ) -> tuple[Float[Array, "B T C"], Float[Array, "... C"] | None]:
        """Action tokens, and the expert's condition; `time` is [B], or [B, H] for a time per action.

        pi0's head mixes time into the action tokens instead, and puts one token with the normalised state before them.
        """
        tokens, dtype = self.action_in_proj(noisy), jnp.dtype(self.config.dtype)
        if self.config.head == "pi05":
            return tokens.astype(dtype), self.embed_time(time)
        embedded = flow.embed_time(time, self.config.expert.width)
        embedded = jnp.broadcast_to(embedded if time.ndim == 2 else embedded[:, None], tokens.shape)
        mixed = nnx.swish(self.action_time_mlp_in(jnp.concatenate([tokens, embedded], axis=-1)))
        assert state is not None  # pi0's prefix always carries it
        padded = jnp.pad(state, ((0, 0), (0, self.config.model_action_dim - state.shape[1])))
        tokens = jnp.concatenate([self.state_proj(padded)[:, None], self.action_time_mlp_out(mixed)], axis=1)
        return tokens.astype(dtype), None

    def modulate_steps(self, num_steps: int) -> Modulations | None:
        """The modulations of every Euler step, row i for the step that starts at t = 1 - i / num_steps; None without adaRMS.

        They depend on time alone, so that one table serves all steps and examples; the last row is for t = 0.
        """
        if self.config.head != "pi05":
            return None
        return self.PaliGemma.llm.modulate(self.embed_time(1.0 - jnp.arange(num_steps + 1) / num_steps))

    def read_prefix(
        self,
        embedded: Float[Array, "B P D"],
        valid: Bool[Array, "B P"],
        state: Float[Array, "B S"] | None = None,
    ) -> Prefix:
        """Runs the language model once; images and text see each other. `state` is normalised."""
        mask = make_attention_mask(valid, jnp.zeros(valid.shape[1], bool))
        _, cache = self.PaliGemma.llm((embedded, None), jnp.cumsum(valid, axis=1) - 1, mask)
        return Prefix(cache, valid, state)

    def velocity(
        self,
        prefix: Prefix,
        noisy: Float[Array, "B H M"],
        time: Float[Array, "..."],
        modulations: Modulations | None = None,
    ) -> Float[Array, "B H M"]:
        """The flow at `noisy`, reading the prefix from its cache.

        `modulations` are those of `time`, if they have been computed already (rows of `modulate_steps`).
        """
        tokens, cond = self.embed_suffix(noisy, time, prefix.state)
        num = tokens.shape[1]
        positions, mask = suffix_attention(prefix.valid, noisy.shape[1], num - noisy.shape[1])
        cond = cond if modulations is None else modulations
        outputs, _ = self.PaliGemma.llm((None, tokens), positions[:, -num:], mask[:, -num:], cond, prefix.cache)
        return self._project(outputs[1], noisy.shape[1])

    def velocity_uncached(
        self,
        embedded: Float[Array, "B P D"],
        valid: Bool[Array, "B P"],
        noisy: Float[Array, "B H M"],
        time: Float[Array, "..."],
        state: Float[Array, "B S"] | None = None,
    ) -> Float[Array, "B H M"]:
        """The same flow with prefix and suffix in one pass: the reference that `velocity` must equal."""
        tokens, cond = self.embed_suffix(noisy, time, state)
        positions, mask = suffix_attention(valid, noisy.shape[1], tokens.shape[1] - noisy.shape[1])
        outputs, _ = self.PaliGemma.llm((embedded, tokens), positions, mask, cond)
        return self._project(outputs[1], noisy.shape[1])

    def _project(self, output: Array | None, horizon: int) -> Float[Array, "B H M"]:
        assert output is not None  # the call above gave action tokens
        return self.action_out_proj(output[:, -horizon:].astype(jnp.float32))


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
        check_inputs(self, norm, batch.observation)
        network = merge_network(self._graphdef, params)
        actions = encode_actions(norm, batch.observation.state, batch.actions, self.config.normalization)
        actions = jnp.repeat(self._pad(actions), self.config.num_draws, axis=0)
        noise_key, time_key = jax.random.split(key)
        learnt = self._learnt_dims(norm)
        noise = jax.random.normal(noise_key, actions.shape) * learnt
        time = flow.sample_time(time_key, actions.shape[:1])
        noisy, target = flow.interpolate(noise, actions, time[:, None, None])
        prefix = repeat_prefix(
            network.read_prefix(*self._embed(network, norm, batch.observation)), self.config.num_draws
        )
        error = jnp.square(network.velocity(prefix, noisy, time) - target)
        error = jnp.where(learnt, error, 0.0).sum(-1) / jnp.maximum(learnt.sum(), 1)
        return error.reshape(-1, self.config.num_draws, self.horizon).mean(1)

    def sample_actions(
        self,
        params: Params,
        norm: NormStats,
        observation: ObservationBatch,
        key: PRNGKeyArray,
        num_steps: int | None = None,
        use_cache: bool = True,
    ) -> Float[Array, "B H A"]:
        """As in `PolicyModel`. Without the cache, every Euler step computes the prefix and the modulations again: slower, for
        comparison."""
        check_inputs(self, norm, observation)
        network = merge_network(self._graphdef, params)
        embedded, valid, state = self._embed(network, norm, observation)
        num_steps = num_steps or self.config.num_steps
        shape = (valid.shape[0], self.horizon, self.config.model_action_dim)
        prefix = network.read_prefix(embedded, valid, state) if use_cache else None
        table = network.modulate_steps(num_steps) if use_cache else None
        learnt = self._learnt_dims(norm)

        def velocity(x: Array, time: Array) -> Array:
            times = jnp.broadcast_to(time, shape[:1])
            if prefix is None:
                return network.velocity_uncached(embedded, valid, x, times, state) * learnt
            modulations = None if table is None else table.at(jnp.round((1.0 - time) * num_steps).astype(jnp.int32))
            return network.velocity(prefix, x, times, modulations) * learnt

        chunk = flow.integrate(velocity, jax.random.normal(key, shape) * learnt, num_steps)
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

    def _embed(self, network: Any, norm: NormStats, observation: ObservationBatch) -> tuple[Array, Array, Array]:
        """Embedded prefix, which of its tokens are valid, and the normalised state."""
        state = normalize_state(norm, observation.state, self.config.normalization)
        tokens, mask = jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask)
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


def suffix_attention(
    valid: Bool[Array, "B P"], horizon: int, num_state_tokens: int = 0
) -> tuple[Int[Array, "B PT"], Bool[Array, "B PT PT"]]:
    """Positions and mask of prefix and suffix together.

    The actions are one block that sees what comes before and itself; so is the state before them (pi0).
    """
    num = num_state_tokens + horizon
    valid = jnp.concatenate([valid, jnp.ones((valid.shape[0], num), bool)], axis=1)
    token = jnp.arange(valid.shape[1]) - valid.shape[1]
    starts_block = (token == -num) | (token == -horizon)
    return jnp.cumsum(valid, axis=1) - 1, make_attention_mask(valid, starts_block)


def repeat_prefix(prefix: Prefix, num_draws: int) -> Prefix:
    """Each example `num_draws` times in a row."""
    keys, values = (jnp.repeat(x, num_draws, axis=1) for x in prefix.cache)
    state = None if prefix.state is None else jnp.repeat(prefix.state, num_draws, axis=0)
    return Prefix((keys, values), jnp.repeat(prefix.valid, num_draws, axis=0), state)


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
