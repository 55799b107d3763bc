"""The networks of pi0.5 and pi0: prefix (images, text) through the language model, actions through the expert.

The prefix never sees the suffix, so its keys and values are computed once: per observation in sampling, and for all
(noise, t) draws of an observation in the loss.

Legend: `B` batch, `R` rows of the language model, `S` state dimensions, `M` action dimensions inside the model, `H` horizon,
`L` text tokens, `P` prefix tokens, `T` suffix tokens, `D` width of the language model, `C` width of the action expert.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sop_jax.models import flow
from sop_jax.models.batch import ObservationBatch
from sop_jax.models.images import resize_with_pad
from sop_jax.models.pi05.config import Pi05Config
from sop_jax.models.pi05.gemma import Cache, Gemma, make_attention_mask
from sop_jax.models.pi05.norms import Modulations
from sop_jax.models.pi05.siglip import Siglip


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


class Pi05Towers(nnx.Module):
    """Image tower and transformers, and how they read a prefix: what a policy and a value function have in common."""

    state_proj: nnx.Linear

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        self.config = config
        self.PaliGemma = PaliGemma(config, rngs)

    def embed_prefix(
        self,
        observation: ObservationBatch,
        state: Float[Array, "R S"],
        tokens: Int[Array, "R L"],
        token_mask: Bool[Array, "R L"],
    ) -> tuple[Float[Array, "R P D"], Bool[Array, "R P"]]:
        """Image tokens, text tokens, and the state's token if it is continuous; with their mask.

        R is B, or a multiple: all observations with one prompt each, then all with another. Images are embedded once.
        """
        cameras = self.config.cameras
        batch = observation.images[cameras[0]].shape[0]
        num_prompts = tokens.shape[0] // batch
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
        embedded, valid = ([jnp.concatenate([x] * num_prompts) for x in parts] for parts in (embedded, valid))
        embedded.append(self.PaliGemma.llm.embedder(tokens, dtype))
        valid.append(token_mask)
        if self.config.state_input == "continuous":
            embedded.append(self.state_proj(state)[:, None].astype(dtype))
            valid.append(jnp.ones((tokens.shape[0], 1), bool))
        return jnp.concatenate(embedded, axis=1), jnp.concatenate(valid, axis=1)

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


class Pi05Network(Pi05Towers):
    """All parameters, named as openpi names them."""

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        super().__init__(config, rngs)
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
