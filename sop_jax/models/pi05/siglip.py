"""The image tower: SigLIP's vision transformer, named and laid out as in big_vision and openpi.

Legend: `B` images, `h w` pixels, `P` patches, `D` width, `E` width of the language model.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from sop_jax.models.images import patchify
from sop_jax.models.pi05.config import Remat, VisionConfig
from sop_jax.models.pi05.layers import scan_layers, stack_layers
from sop_jax.models.pytrees import Leaf


class PatchEmbedding(nnx.Module):
    """A convolution with stride = patch size, as a matrix product."""

    def __init__(self, patch_size: int, width: int, rngs: nnx.Rngs):
        self.patch_size = patch_size
        shape = (patch_size, patch_size, 3, width)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal(in_axis=(0, 1, 2))(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, images: UInt8[Leaf, "B h w 3"]) -> Float[Array, "B P D"]:
        kernel = self.kernel[...]
        patches = patchify(images, self.patch_size)
        return patches @ kernel.reshape(-1, kernel.shape[-1]) + self.bias[...][None, None]


class Attention(nnx.Module):
    """Self-attention of every patch with every patch."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        heads = (config.num_heads, config.width // config.num_heads)
        self.query = nnx.LinearGeneral(config.width, heads, dtype=dtype, rngs=rngs)
        self.key = nnx.LinearGeneral(config.width, heads, dtype=dtype, rngs=rngs)
        self.value = nnx.LinearGeneral(config.width, heads, dtype=dtype, rngs=rngs)
        self.out = nnx.LinearGeneral(heads, config.width, axis=(-2, -1), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        return self.out(nnx.dot_product_attention(self.query(x), self.key(x), self.value(x)))


class Mlp(nnx.Module):
    """Two layers with GELU (tanh approximation)."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.Dense_0 = nnx.Linear(config.width, config.mlp_dim, dtype=dtype, rngs=rngs)
        self.Dense_1 = nnx.Linear(config.mlp_dim, config.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        return self.Dense_1(nnx.gelu(self.Dense_0(x)))


class EncoderBlock(nnx.Module):
    """Normalise, attend, add; normalise, MLP, add."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.LayerNorm_0 = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.MultiHeadDotProductAttention_0 = Attention(config, dtype, rngs)
        self.LayerNorm_1 = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.MlpBlock_0 = Mlp(config, dtype, rngs)

    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        x = x + self.MultiHeadDotProductAttention_0(self.LayerNorm_0(x))
        return x + self.MlpBlock_0(self.LayerNorm_1(x))


class Encoder(nnx.Module):
    """The stack of blocks and the last normalisation."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, remat: Remat, rngs: nnx.Rngs):
        self.remat: Remat = remat
        self.encoderblock = stack_layers(lambda rngs: EncoderBlock(config, dtype, rngs), config.depth, rngs)
        self.encoder_norm = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        x, _ = scan_layers(self.encoderblock, x, None, lambda block, x, _: (block(x), None), self.remat)
        return self.encoder_norm(x)


class Siglip(nnx.Module):
    """Images to tokens of the language model's width."""

    def __init__(
        self, config: VisionConfig, out_width: int, dtype: jnp.dtype, remat: Remat, from_scratch: bool, rngs: nnx.Rngs
    ):
        self.dtype = dtype
        self.embedding = PatchEmbedding(config.patch_size, config.width, rngs)
        posemb = nnx.initializers.normal(0.5 if from_scratch else config.width**-0.5)
        self.pos_embedding = nnx.Param(posemb(rngs.params(), (1, config.num_tokens, config.width)))
        self.Transformer = Encoder(config, dtype, remat, rngs)
        head_init = nnx.initializers.lecun_normal() if from_scratch else nnx.initializers.zeros
        self.head = nnx.Linear(config.width, out_width, dtype=dtype, kernel_init=head_init, rngs=rngs)

    def __call__(self, images: UInt8[Leaf, "B h w 3"]) -> Float[Array, "B P E"]:
        x = self.embedding(images) + self.pos_embedding[...]
        return self.head(self.Transformer(x.astype(self.dtype)))
