"""Camera frames as observations carry them: cropped around the centre to the wanted proportions, then made smaller."""

import numpy as np

from sop_jax.robots.cropping import crop_to_proportions


def fit_image(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] of a frame uint8 [h, w, 3] that is at least as large; never stretched.

    Whole pixels are averaged where the frame is a multiple of the image, or nearly; the rest is picked.
    """
    if frame.shape[:2] == (height, width):
        return frame.copy()
    cropped = crop_to_proportions(frame, height, width)
    factor = max(1, min(cropped.shape[0] // height, cropped.shape[1] // width))
    rows, columns = cropped.shape[0] // factor, cropped.shape[1] // factor
    blocks = cropped[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    sums = blocks.sum(axis=(1, 3), dtype=np.uint32)
    smaller = ((sums + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    return np.ascontiguousarray(smaller[_pick(rows, height)][:, _pick(columns, width)])


def _pick(have: int, want: int) -> np.ndarray:
    """Indices of the `want` pixels, out of `have`, that lie nearest to the wanted centres."""
    return np.minimum(((np.arange(want) + 0.5) * have / want).astype(np.int64), have - 1)
