"""Camera images as floats of the size a policy wants. Legend: `B` batch, `h w` pixels, `P` patches, `F` patch features."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

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


def resize_with_pad_on_host(images: UInt8[np.ndarray, "B h w 3"], size: int) -> UInt8[np.ndarray, "B {size} {size} 3"]:
    """As `resize_with_pad` (a few pixels may be rounded the other way), without a compilation for every size there is."""
    _, height, width, _ = images.shape
    if (height, width) == (size, size):
        return images
    ratio = max(height, width) / size
    rows, columns = int(height / ratio), int(width / ratio)
    top, left = (size - rows) // 2, (size - columns) // 2
    resized = np.zeros((len(images), size, size, 3), np.uint8)
    if rows and columns:
        down, across = _triangle_weights(height, rows), _triangle_weights(width, columns)
        for place, image in zip(
            resized, images, strict=True
        ):  # one at a time: as floats they take four times the memory
            flat = (down @ image.reshape(height, -1).astype(np.float32)).reshape(rows, width, 3)
            inner = np.matmul(across, flat)
            place[top : top + rows, left : left + columns] = inner.round().clip(0, 255)
    return resized


def to_unit_range(images: UInt8[Leaf, "..."]) -> Float[Array, "..."]:
    """Bytes 0 .. 255 to -1 .. 1."""
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def _triangle_weights(have: int, want: int) -> Float32[np.ndarray, "{want} {have}"]:
    """What each of `have` pixels in a row counts in each of `want`: a triangle, as wide as the larger of the two kinds."""
    step = have / want
    centres = (np.arange(want) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(have)) / max(step, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def patchify(images: UInt8[Leaf, "B h w 3"], patch: int) -> Float[Array, "B P F"]:
    """Square patches, row by row, each flattened and in -1 .. 1."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    grid = jnp.asarray(images).reshape(batch, rows, patch, columns, patch * channels)
    patches = grid.transpose(0, 1, 3, 2, 4).reshape(batch, rows * columns, patch * patch * channels)
    return to_unit_range(patches)
