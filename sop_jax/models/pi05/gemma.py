"""Two Gemma transformers that share attention: expert 0 is the language model, expert 1 acts (leaf names end in `_1`).

Names, layout and numerics follow openpi. With pi0.5's head a condition modulates the action expert's normalisations
(adaRMS); with pi0's they are plain.

Legend: `B` batch, `T` tokens now, `S` tokens attended to (cached ones first), `D` width, `C` features of the condition, `N`
query heads, `K` key heads, `h` head dimension, `depth` layers, `M` = 3 times the action expert's width.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sop_jax.models.pi05.config import ExpertConfig, Pi05Config, Remat
from sop_jax.models.pi05.layers import map_layers, scan_layers, stack_layers
from sop_jax.models.pi05.lora import Einsum, FeedForward
from sop_jax.models.pi05.norms import AdaRMSNorm, Modulations, RMSNorm

Cache = tuple[Float[Array, "depth B _ K h"], Float[Array, "depth B _ K h"]]
"""Keys and values of every layer, for the tokens so far."""

_MASKED = -2.3819763e38


def make_attention_mask(valid: Bool[Array, "B T"], starts_block: Bool[Array, " T"]) -> Bool[Array, "B T T"]:
    """Which token (row) sees which (column): those of its own block and of earlier blocks; padding neither sees nor is seen.

    `starts_block` is True where a new block begins.
    """
    block = jnp.cumsum(starts_block)
    sees = block[None, :] <= block[:, None]
    return sees[None] & valid[:, :, None] & valid[:, None, :]


def apply_rope(x: Float[Array, "B T N h"], positions: Int[Array, "B T"]) -> Float[Array, "B T N h"]:
    """Rotary position embedding, split-half: the first half of the head dimension pairs with the second."""
    half = x.shape[-1] // 2
    timescale = 10_000.0 ** (2 / x.shape[-1] * jnp.arange(half, dtype=jnp.float32))
    angle = (positions[..., None] / timescale[None, None])[:, :, None]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


class Attention(nnx.Module):
    """Attention over the tokens of both experts and the cache; each expert projects with its own weights."""

    def __init__(self, configs: tuple[ExpertConfig, ...], rngs: nnx.Rngs):
        lecun = nnx.initializers.lecun_normal
        for i, c in enumerate(configs):
            q_init, kv_init = lecun(-2, -1, batch_axis=(0,)), lecun(-2, -1, batch_axis=(0, 1))
            setattr(self, named("q_einsum", i), Einsum((c.num_heads, c.width, c.head_dim), q_init, c.lora, rngs))
            kv_shape, out_shape = (2, c.num_kv_heads, c.width, c.head_dim), (c.num_heads, c.head_dim, c.width)
            setattr(self, named("kv_einsum", i), Einsum(kv_shape, kv_init, c.lora, rngs))
            setattr(self, named("attn_vec_einsum", i), Einsum(out_shape, lecun((-3, -2), -1), c.lora, rngs))

    def __call__(
        self,
        xs: tuple[Array | None, ...],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        cache: tuple[Array, Array] | None,
    ) -> tuple[tuple[Array | None, ...], tuple[Array, Array]]:
        """Returns what each expert's tokens read, and the keys and values of all tokens so far."""
        queries, keys, values = [], [], []
        for i, x in enumerate(xs):
            if x is not None:
                queries.append(getattr(self, named("q_einsum", i))("BTD,NDh->BTNh", x))
                key, value = getattr(self, named("kv_einsum", i))("BSD,cKDh->cBSKh", x)
                keys.append(key)
                values.append(value)
        q = apply_rope(jnp.concatenate(queries, axis=1), positions)
        k, v = apply_rope(jnp.concatenate(keys, axis=1), positions), jnp.concatenate(values, axis=1)
        if cache is not None:
            k, v = jnp.concatenate([cache[0], k], axis=1), jnp.concatenate([cache[1], v], axis=1)
        read = attend(q * q.shape[-1] ** -0.5, k, v, mask)
        outputs: list[Array | None] = []
        start = 0
        for i, x in enumerate(xs):
            if x is None:
                outputs.append(None)
                continue
            own = read[:, start : start + x.shape[1]]
            outputs.append(getattr(self, named("attn_vec_einsum", i))("BTNh,NhD->BTD", own))
            start += x.shape[1]
        return tuple(outputs), (k, v)


class Block(nnx.Module):
    """One layer of both experts."""

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        experts = (config.language, config.expert)
        self.attn = Attention(experts, rngs)
        for i, expert in enumerate(experts):
            setattr(self, named("pre_attention_norm", i), make_norm(i, config, rngs))
            setattr(self, named("pre_ffw_norm", i), make_norm(i, config, rngs))
            setattr(self, named("mlp", i), FeedForward(expert, rngs))

    def modulate(self, cond: Float[Array, "*rows C"]) -> tuple[Float[Array, "*rows M"], Float[Array, "*rows M"]]:
        """What the condition makes of the action expert's two normalisations."""
        attention, feed_forward = (getattr(self, named(name, 1)) for name in ("pre_attention_norm", "pre_ffw_norm"))
        return attention.modulate(cond), feed_forward.modulate(cond)

    def __call__(
        self,
        xs: tuple[Array | None, ...],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        modulation: tuple[Array, Array] | tuple[None, None],
        cache: tuple[Array, Array] | None,
    ) -> tuple[tuple[Array | None, ...], tuple[Array, Array]]:
        normed, gates = self._normalize("pre_attention_norm", xs, modulation[0])
        read, cache = self.attn(normed, positions, mask, cache)
        xs = tuple(add_gated(x, y, gate) for x, y, gate in zip(xs, read, gates, strict=True))
        normed, gates = self._normalize("pre_ffw_norm", xs, modulation[1])
        fed = [None if x is None else getattr(self, named("mlp", i))(x) for i, x in enumerate(normed)]
        return tuple(add_gated(x, y, gate) for x, y, gate in zip(xs, fed, gates, strict=True)), cache

    def _normalize(
        self, name: str, xs: tuple[Array | None, ...], modulation: Array | None
    ) -> tuple[tuple[Array | None, ...], tuple[Array | None, ...]]:
        language, action = xs
        pairs = (
            (None, None) if language is None else getattr(self, name)(language),
            (None, None) if action is None else getattr(self, named(name, 1))(action, modulation),
        )
        return tuple(normed for normed, _ in pairs), tuple(gate for _, gate in pairs)


class Embedder(nnx.Module):
    """The table of token embeddings."""

    def __init__(self, vocab_size: int, width: int, from_scratch: bool, rngs: nnx.Rngs):
        init = nnx.initializers.normal(width**-0.5 if from_scratch else 0.01)
        self.input_embedding = nnx.Param(init(rngs.params(), (vocab_size, width)))

    def __call__(self, tokens: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
        table = self.input_embedding[...]
        return (table[tokens] * jnp.asarray(math.sqrt(table.shape[-1]), table.dtype)).astype(dtype)


class Gemma(nnx.Module):
    """Both experts: the language model reads the prefix, the action expert the suffix."""

    def __init__(self, config: Pi05Config, rngs: nnx.Rngs):
        self.remat: Remat = config.remat
        self.embedder = Embedder(config.vocab_size, config.language.width, config.from_scratch, rngs)
        self.layers = stack_layers(lambda rngs: Block(config, rngs), config.language.depth, rngs)
        for i in range(2):
            setattr(self, named("final_norm", i), make_norm(i, config, rngs))

    def modulate(self, cond: Float[Array, "*rows C"]) -> Modulations:
        """What conditions, one per row, make of every layer's normalisations: all of it in a few matrix products."""
        attention, feed_forward = map_layers(self.layers, lambda block: block.modulate(cond))
        return Modulations(attention, feed_forward, getattr(self, named("final_norm", 1)).modulate(cond))

    def __call__(
        self,
        xs: tuple[Array | None, Array | None],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        cond: Float[Array, "..."] | Modulations | None = None,
        cache: Cache | None = None,
    ) -> tuple[tuple[Array | None, ...], Cache]:
        """Runs the tokens of either expert or of both (prefix first).

        Args:
            xs: embedded tokens [B, T0, D0] of the language model and [B, T1, D1] of the action expert; None = no tokens.
            positions: for the rotary embedding, of all tokens given now.
            mask: which of the S = cached + given tokens each given token sees.
            cond: condition of the action expert, [B, C] or [B, T1, C], or what `modulate` made of it; required with action
                tokens and adaRMS.
            cache: what an earlier call returned.

        Returns:
            The experts' outputs, and the keys and values of all S tokens.
        """
        made, rows = (cond, None) if isinstance(cond, Modulations) else (None, cond)
        if rows is not None and rows.ndim == 2:
            rows = rows[:, None]

        def body(block: Block, xs: tuple[Array | None, ...], per_layer: tuple[Any, Any]):
            cache, modulation = per_layer
            if modulation is None:
                # Made inside the layer, so that training with one condition per token keeps none of it.
                modulation = (None, None) if rows is None else block.modulate(rows)
            return block(xs, positions, mask, modulation, cache)

        given = None if made is None else (made.attention, made.feed_forward)
        (language, action), seen = scan_layers(self.layers, tuple(xs), (cache, given), body, self.remat)
        if language is not None:
            language, _ = getattr(self, named("final_norm", 0))(language)
        if action is not None:
            norm = getattr(self, named("final_norm", 1))
            final = made.final if made is not None else None if rows is None else norm.modulate(rows)
            action, _ = norm(action, final)
        return (language, action), seen


def attend(
    q: Float[Array, "B T N h"], k: Float[Array, "B S K h"], v: Float[Array, "B S K h"], mask: Bool[Array, "B T S"]
) -> Float[Array, "B T N h"]:
    """Grouped-query attention with float32 logits; `q` is already scaled."""
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[-1])
    logits = jnp.einsum("BTKGh,BSKh->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits, _MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKh->BTKGh", weights, v).reshape(q.shape)


def named(name: str, expert: int) -> str:
    """openpi's names: expert 0 has no suffix, so that PaliGemma's checkpoints fit."""
    return name if expert == 0 else f"{name}_{expert}"


def make_norm(expert: int, config: Pi05Config, rngs: nnx.Rngs) -> RMSNorm | AdaRMSNorm:
    """Only pi0.5's action expert is modulated."""
    if expert == 1 and config.head == "pi05":
        return AdaRMSNorm(config.expert.width, jnp.dtype(config.dtype), config.from_scratch, rngs)
    return RMSNorm((config.language, config.expert)[expert].width)


def add_gated(x: Array | None, y: Array | None, gate: Array | None) -> Array | None:
    if x is None or y is None:
        return None
    return x + y if gate is None else x + y * gate
