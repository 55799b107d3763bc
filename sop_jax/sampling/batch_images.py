"""The images of a batch while it is filled: one array per camera, into whose rows the JPEGs are decoded.

Legend: `B` batch, `h w` pixels.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt8

from sop_jax.sampling.batch_spec import BatchSpec

Images = tuple[np.ndarray | None, ...]
"""uint8 [h, w, 3] for each of the policy's cameras, None where the episode lacks the camera."""


@dataclasses.dataclass(frozen=True)
class BatchImages:
    """pixels, masks: one for each of the policy's cameras, in its order. Threads may fill different rows at once."""

    pixels: tuple[UInt8[np.ndarray, "B h w 3"], ...]
    masks: tuple[Bool[np.ndarray, "B"], ...]

    @classmethod
    def empty(cls, spec: BatchSpec, num: int) -> "BatchImages":
        """Rows to be filled; until then they hold anything."""
        return cls(
            tuple(np.empty((num, camera.height, camera.width, 3), np.uint8) for camera in spec.cameras),
            tuple(np.empty(num, bool) for _ in spec.cameras),
        )

    def put(self, row: int, images: Images) -> None:
        """Copies images into a row; black where the camera is missing."""
        for pixels, mask, image in zip(self.pixels, self.masks, images, strict=True):
            pixels[row] = 0 if image is None else image
            mask[row] = image is not None

    def views(self, row: int) -> Images:
        """The row's images, without copying; None for a missing camera."""
        return tuple(pixels[row] if mask[row] else None for pixels, mask in zip(self.pixels, self.masks, strict=True))

    def open(self, row: int, has_camera: tuple[bool, ...]) -> list[np.ndarray]:
        """Says which cameras a row will have (`EpisodeNumbers.has_camera`); returns where to decode them."""
        places: list[np.ndarray] = []
        for pixels, mask, has in zip(self.pixels, self.masks, has_camera, strict=True):
            mask[row] = has
            if has:
                places.append(pixels[row])
            else:
                pixels[row] = 0
        return places
