"""Two Gemma transformers that share attention: expert 0 is the language model, expert 1 acts (leaf names end in `_1`).

Names, layout and numerics follow openpi. The action expert's normalisations are modulated by a condition (adaRMS).

Legend: `B` batch, `T` tokens now, `S` tokens attended to (cached ones first), `D` width, `N` query heads, `K` key heads,
`h` head dimension, `depth` layers.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sop_jax.models.pi05.config import ExpertConfig, Remat
from sop_jax.models.pi05.layers import scan_layers, stack_layers

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


def rms_normalize(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Unit root mean square over the width, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class RMSNorm(nnx.Module):
    """Unit root mean square, then a learned scale around 1. Its gate is 1."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "B T D"], cond: Array | None) -> tuple[Float[Array, "B T D"], Array | None]:
        del cond
        return (rms_normalize(x) * (1 + self.scale[...][None, None])).astype(x.dtype), None


class AdaRMSNorm(nnx.Module):
    """Scale, shift and gate come from a condition: one per example [B, C], or one per token [B, T, C].

    openpi starts with every gate closed; a model trained from scratch starts with open ones.
    """

    def __init__(self, width: int, from_scratch: bool, rngs: nnx.Rngs):
        kernel_init = nnx.initializers.normal(0.02) if from_scratch else nnx.initializers.zeros
        self.Dense_0 = nnx.Linear(width, 3 * width, kernel_init=kernel_init, rngs=rngs)
        if from_scratch:
            self.Dense_0.bias = nnx.Param(jnp.concatenate([jnp.zeros(2 * width), jnp.ones(width)]))

    def __call__(self, x: Float[Array, "B T D"], cond: Array) -> tuple[Float[Array, "B T D"], Array]:
        modulation = self.Dense_0(cond if cond.ndim == 3 else cond[:, None])
        scale, shift, gate = jnp.split(modulation, 3, axis=-1)
        return (rms_normalize(x) * (1 + scale) + shift).astype(x.dtype), gate.astype(x.dtype)


class Einsum(nnx.Module):
    """One weight called `w`."""

    def __init__(self, shape: tuple[int, ...], init: nnx.Initializer, rngs: nnx.Rngs):
        self.w = nnx.Param(init(rngs.params(), shape))

    def __call__(self, equation: str, x: Array) -> Array:
        return jnp.einsum(equation, x, self.w[...].astype(x.dtype))


class FeedForward(nnx.Module):
    """GeGLU without biases."""

    def __init__(self, config: ExpertConfig, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        self.gating_einsum = nnx.Param(init(rngs.params(), (2, config.width, config.mlp_dim)))
        self.linear = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (config.mlp_dim, config.width)))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gating = self.gating_einsum[...].astype(x.dtype)
        # Two-dimensional matrix products: XLA's CPU backend is twice as slow on the gradients of batched ones.
        rows = x.reshape(-1, x.shape[-1])
        fed = (nnx.gelu(rows @ gating[0]) * (rows @ gating[1])) @ self.linear[...].astype(x.dtype)
        return fed.reshape(x.shape)


class Attention(nnx.Module):
    """Attention over the tokens of both experts and the cache; each expert projects with its own weights."""

    def __init__(self, configs: tuple[ExpertConfig, ...], rngs: nnx.Rngs):
        lecun = nnx.initializers.lecun_normal
        for i, c in enumerate(configs):
            q_init, kv_init = lecun(-2, -1, batch_axis=(0,)), lecun(-2, -1, batch_axis=(0, 1))
            setattr(self, named("q_einsum", i), Einsum((c.num_heads, c.width, c.head_dim), q_init, rngs))
            setattr(self, named("kv_einsum", i), Einsum((2, c.num_kv_heads, c.width, c.head_dim), kv_init, rngs))
            out_shape = (c.num_heads, c.head_dim, c.width)
            setattr(self, named("attn_vec_einsum", i), Einsum(out_shape, lecun((-3, -2), -1), rngs))

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

    def __init__(self, configs: tuple[ExpertConfig, ...], from_scratch: bool, rngs: nnx.Rngs):
        self.attn = Attention(configs, rngs)
        for i, config in enumerate(configs):
            setattr(self, named("pre_attention_norm", i), make_norm(i, config.width, from_scratch, rngs))
            setattr(self, named("pre_ffw_norm", i), make_norm(i, config.width, from_scratch, rngs))
            setattr(self, named("mlp", i), FeedForward(config, rngs))

    def __call__(
        self,
        xs: tuple[Array | None, ...],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        cond: Array | None,
        cache: tuple[Array, Array] | None,
    ) -> tuple[tuple[Array | None, ...], tuple[Array, Array]]:
        normed, gates = self._normalize("pre_attention_norm", xs, cond)
        read, cache = self.attn(normed, positions, mask, cache)
        xs = tuple(add_gated(x, y, gate) for x, y, gate in zip(xs, read, gates, strict=True))
        normed, gates = self._normalize("pre_ffw_norm", xs, cond)
        fed = [None if x is None else getattr(self, named("mlp", i))(x) for i, x in enumerate(normed)]
        return tuple(add_gated(x, y, gate) for x, y, gate in zip(xs, fed, gates, strict=True)), cache

    def _normalize(
        self, name: str, xs: tuple[Array | None, ...], cond: Array | None
    ) -> tuple[tuple[Array | None, ...], tuple[Array | None, ...]]:
        pairs = [(None, None) if x is None else getattr(self, named(name, i))(x, cond) for i, x in enumerate(xs)]
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

    def __init__(
        self,
        configs: tuple[ExpertConfig, ExpertConfig],
        vocab_size: int,
        from_scratch: bool,
        remat: Remat,
        rngs: nnx.Rngs,
    ):
        self.remat: Remat = remat
        self.embedder = Embedder(vocab_size, configs[0].width, from_scratch, rngs)
        self.layers = stack_layers(lambda rngs: Block(configs, from_scratch, rngs), configs[0].depth, rngs)
        for i, config in enumerate(configs):
            setattr(self, named("final_norm", i), make_norm(i, config.width, from_scratch, rngs))

    def __call__(
        self,
        xs: tuple[Array | None, Array | None],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        cond: Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[tuple[Array | None, ...], Cache]:
        """Runs the tokens of either expert or of both (prefix first).

        Args:
            xs: embedded tokens [B, T0, D0] of the language model and [B, T1, D1] of the action expert; None = no tokens.
            positions: for the rotary embedding, of all tokens given now.
            mask: which of the S = cached + given tokens each given token sees.
            cond: condition of the action expert, [B, C] or [B, T1, C]; required with action tokens.
            cache: what an earlier call returned.

        Returns:
            The experts' outputs, and the keys and values of all S tokens.
        """

        def body(block: Block, xs: tuple[Array | None, ...], cache: tuple[Array, Array] | None):
            return block(xs, positions, mask, cond, cache)

        outputs, seen = scan_layers(self.layers, tuple(xs), cache, body, self.remat)
        normed = [
            None if x is None else getattr(self, named("final_norm", i))(x, cond)[0] for i, x in enumerate(outputs)
        ]
        return tuple(normed), seen


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


def make_norm(expert: int, width: int, from_scratch: bool, rngs: nnx.Rngs) -> RMSNorm | AdaRMSNorm:
    return RMSNorm(width) if expert == 0 else AdaRMSNorm(width, from_scratch, rngs)


def add_gated(x: Array | None, y: Array | None, gate: Array | None) -> Array | None:
    if x is None or y is None:
        return None
    return x + y if gate is None else x + y * gate
