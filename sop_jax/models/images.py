"""Camera images as floats of the size a policy wants. Legend: `B` batch, `h w` pixels, `P` patches, `F` patch features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from sop_jax.models.pytrees import Leaf


def resize_with_pad(images: UInt8[Leaf, "B h w 3"], size: int) -> UInt8[Array, "B {size} {size} 3"]:
    """Bilinear to `size` x `size` pixels, keeping the aspect ratio; black bars fill the rest. No change if it fits."""
    _, height, width, _ = images.shape
    if (height, width) == (size, size):
        return jnp.asarray(images)
    ratio = max(height, width) / size
    inner = (int(height / ratio), int(width / ratio))
    resized = jax.image.resize(jnp.asarray(images, jnp.float32), (images.shape[0], *inner, 3), "bilinear")
    resized = jnp.round(resized).clip(0, 255).astype(jnp.uint8)
    (top, bottom), (left, right) = [((size - n) // 2, size - n - (size - n) // 2) for n in inner]
    return jnp.pad(resized, ((0, 0), (top, bottom), (left, right), (0, 0)))


def to_unit_range(images: UInt8[Leaf, "..."]) -> Float[Array, "..."]:
    """Bytes 0 .. 255 to -1 .. 1."""
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def patchify(images: UInt8[Leaf, "B h w 3"], patch: int) -> Float[Array, "B P F"]:
    """Square patches, row by row, each flattened and in -1 .. 1."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    grid = jnp.asarray(images).reshape(batch, rows, patch, columns, patch * channels)
    patches = grid.transpose(0, 1, 3, 2, 4).reshape(batch, rows * columns, patch * patch * channels)
    return to_unit_range(patches)
