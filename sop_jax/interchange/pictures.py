"""Pictures of other projects' datasets become the store's JPEGs.

Legend: `h w` pixels.
"""

import io
import warnings

import numpy as np
from PIL import Image

from sop_jax.episodes.images import check_jpeg, encode_image
from sop_jax.episodes.manifest_codec import MAX_IMAGE_SIDE
from sop_jax.interchange.errors import refuse
from sop_jax.interchange.source import Picture
from sop_jax.robots.cropping import crop_to_proportions
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import CameraSpec


def to_jpeg(picture: Picture, camera: CameraSpec, where: str) -> bytes:
    """The JPEG of a picture, cropped around the centre to the camera's proportions and scaled to its size, never stretched:
    so are a robot's frames. One that is a fitting JPEG already is passed on as it is.

    Raises InvalidDatasetError if it can't be decoded.
    """
    if isinstance(picture, bytes):
        try:
            check_jpeg(picture, camera, where)
        except InvalidEpisodeError:
            picture = decode(picture, where)
        else:
            return picture
    if picture.shape[:2] != (camera.height, camera.width):
        image = Image.fromarray(crop_to_proportions(picture, camera.height, camera.width))
        picture = np.asarray(image.resize((camera.width, camera.height), Image.Resampling.BILINEAR))
    return encode_image(picture)


def decode(encoded: bytes, where: str) -> np.ndarray:
    """uint8 [h, w, 3] of an encoded picture. Raises InvalidDatasetError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of pictures that are large enough to be an attack
            with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
                if max(image.size) > MAX_IMAGE_SIDE:
                    raise ValueError(f"{image.width}x{image.height} pixels")
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise refuse(
            where,
            "picture",
            expected=f"a whole JPEG or PNG of at most {MAX_IMAGE_SIDE} pixels a side",
            got=str(error),
            fix="The file is damaged; fetch the dataset again.",
        ) from error


def size_of(picture: Picture, where: str) -> tuple[int, int]:
    """(height, width). Raises InvalidDatasetError."""
    height, width, _ = (decode(picture, where) if isinstance(picture, bytes) else picture).shape
    return height, width
