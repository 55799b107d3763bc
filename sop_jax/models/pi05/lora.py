"""Weights of the transformers, each with an optional low-rank addition (LoRA, arXiv:2106.09685), as openpi has them.

Legend: `B` batch, `T` tokens, `D` width, `M` hidden width, `R` rows of tokens, `r` rank.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from sop_jax.models.pi05.config import ExpertConfig, LoraConfig

_INIT = nnx.initializers.normal(0.01)
"""openpi's, for both factors: a fresh addition is small, not zero."""

Path = tuple[str, ...]


class Einsum(nnx.Module):
    """One attention weight called `w`, with `lora_a` and `lora_b` beside it."""

    def __init__(self, shape: tuple[int, ...], init: nnx.Initializer, lora: LoraConfig | None, rngs: nnx.Rngs):
        self.w = nnx.Param(init(rngs.params(), shape))
        self.scaling = None if lora is None else lora.scaling
        if lora is not None:
            self.lora_a = nnx.Param(_INIT(rngs.params(), (*shape[:-1], lora.rank)))
            self.lora_b = nnx.Param(_INIT(rngs.params(), (*shape[:-2], lora.rank, shape[-1])))

    def __call__(self, equation: str, x: Array) -> Array:
        result = jnp.einsum(equation, x, self.w[...].astype(x.dtype))
        if self.scaling is None:
            return result
        down, up = lora_equations(equation)
        added = jnp.einsum(down, x, self.lora_a[...].astype(x.dtype))
        return result + jnp.einsum(up, added, self.lora_b[...].astype(x.dtype)) * self.scaling


class FeedForward(nnx.Module):
    """GeGLU without biases."""

    def __init__(self, config: ExpertConfig, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        self.gating_einsum = nnx.Param(init(rngs.params(), (2, config.width, config.mlp_dim)))
        self.linear = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (config.mlp_dim, config.width)))
        self.has_lora = config.lora is not None
        if config.lora is not None:
            rank = config.lora.rank
            self.gating_einsum_lora_a = nnx.Param(_INIT(rngs.params(), (2, config.width, rank)))
            self.gating_einsum_lora_b = nnx.Param(_INIT(rngs.params(), (2, rank, config.mlp_dim)))
            self.linear_lora_a = nnx.Param(_INIT(rngs.params(), (config.mlp_dim, rank)))
            self.linear_lora_b = nnx.Param(_INIT(rngs.params(), (rank, config.width)))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        # Two-dimensional matrix products: XLA's CPU backend is twice as slow on the gradients of batched ones.
        rows = x.reshape(-1, x.shape[-1])
        gate, value = self._project(rows, "gating_einsum", 0), self._project(rows, "gating_einsum", 1)
        return self._project(nnx.gelu(gate) * value, "linear", ...).reshape(x.shape)

    def _project(self, rows: Float[Array, "R _"], name: str, part: Any) -> Float[Array, "R _"]:
        """By one of the weights; its addition is not scaled."""

        def weight(leaf: str) -> Array:
            return getattr(self, leaf)[...].astype(rows.dtype)[part]

        result = rows @ weight(name)
        return result + rows @ weight(f"{name}_lora_a") @ weight(f"{name}_lora_b") if self.has_lora else result


def lora_equations(equation: str) -> tuple[str, str]:
    """The two products that replace `x, weight -> out`: down to the rank `r`, and up from it.

    The last two axes of the weight are factored. An axis before them that `out` lacks (the heads of the attention's
    output) is summed over in both products.
    """
    match = re.fullmatch(r"(.*),(.*)->(.*)", equation)
    if match is None or "r" in equation:
        raise ValueError(f"expected an einsum equation of two operands without axis 'r', got {equation!r}")
    x, weight, out = match.groups()
    inner, outer = weight[-2:]
    reduced = out.replace(outer, "r")
    return f"{x},{weight.replace(outer, 'r')}->{reduced}", f"{reduced},{weight.replace(inner, 'r')}->{out}"


def is_lora(path: Path) -> bool:
    """Whether the leaf is a factor of a low-rank addition."""
    return path[-1].endswith(("lora_a", "lora_b"))


def lora_factors(path: Path, paths: Mapping[Path, Any]) -> tuple[Path, Path] | None:
    """The paths of the factors that belong to a weight, or None if `paths` has none for it."""
    prefix = "" if path[-1] == "w" else f"{path[-1]}_"
    factors = (*path[:-1], f"{prefix}lora_a"), (*path[:-1], f"{prefix}lora_b")
    return factors if all(factor in paths for factor in factors) else None


def add_low_rank(
    path: Path,
    weight: Shaped[np.ndarray, "..."],
    a: Shaped[np.ndarray, "..."],
    b: Shaped[np.ndarray, "..."],
    scaling: float,
    dtype: Any,
) -> Shaped[np.ndarray, "..."]:
    """The weight that alone does what weight and addition do; computed in float32, layer by layer.

    Args:
        path: the weight's, which says what kind it is.
        weight: [depth, ...], as are the factors.
        a: the factor down to the rank.
        b: the factor up from it.
        scaling: alpha / rank; counts for attention weights alone.
        dtype: of the result.
    """
    in_attention = path[-1] == "w"
    factor = scaling if in_attention else 1.0
    merged = np.empty(weight.shape, dtype)
    for layer in range(len(weight)):
        down, up = a[layer].astype(np.float32), b[layer].astype(np.float32)
        if in_attention and path[-2].startswith("attn_vec_einsum"):
            up = up.sum(axis=0, keepdims=True)  # both products sum over the heads (lora_equations)
        merged[layer] = (weight[layer].astype(np.float32) + factor * (down @ up)).astype(dtype)
    return merged
