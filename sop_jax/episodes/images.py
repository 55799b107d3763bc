"""JPEGs: one image in, bytes out, and back."""

from collections.abc import Sequence

import numpy as np
import simplejpeg

from sop_jax.episodes.jpeg_header import KnownHeaders, find_fault
from sop_jax.episodes.rejection import reject
from sop_jax.specs.records import CameraSpec

DEFAULT_QUALITY = 90
_UNREADABLE = (ValueError, RuntimeError, KeyError)  # KeyError: a colour subsampling that the library has no name for
_FIX = "The camera's encoder is broken, or the index names other bytes; set the episode aside."


def encode_image(image: np.ndarray, quality: int = DEFAULT_QUALITY) -> bytes:
    """JPEG of a uint8 RGB image [height, width, 3].

    Colour keeps its full resolution (4:4:4): on small images 4:2:0 saves 30% of the bytes and costs 6 dB, and products are
    told apart by their colours.
    """
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "444")


def decode_images(jpegs: Sequence[bytes], cameras: Sequence[CameraSpec], where: str = "") -> dict[str, np.ndarray]:
    """Camera name -> uint8 [height, width, 3], one JPEG for each camera, in the manifest's order.

    Raises InvalidEpisodeError (`where` names the episode) if a JPEG is broken or of another size; nothing is decoded, and no
    memory taken, before its header was looked at.
    """
    images = {}
    for camera, jpeg in zip(cameras, jpegs, strict=True):
        _check_header(jpeg, camera, where)
        images[camera.name] = _decode(jpeg, camera, where, None)
    return images


def decode_into(
    places: Sequence[np.ndarray],
    jpegs: Sequence[bytes],
    cameras: Sequence[CameraSpec],
    known: KnownHeaders,
    where: str = "",
) -> None:
    """As `decode_images`, but into `places`: contiguous uint8 [height, width, 3] each. After an error they hold anything.

    `known`: headers that passed before aren't read again.
    """
    for place, camera, jpeg in zip(places, cameras, jpegs, strict=True):
        if not known.begin(jpeg, camera):
            _check_header(jpeg, camera, where)
            known.add(jpeg, camera)
        _decode(jpeg, camera, where, place)


def _decode(jpeg: bytes, camera: CameraSpec, where: str, place: np.ndarray | None) -> np.ndarray:
    """Releases the GIL while it decodes, so it scales with threads."""
    try:
        return simplejpeg.decode_jpeg(jpeg, "RGB", buffer=place)
    except _UNREADABLE as error:
        raise reject(where, f"JPEG of {camera.name}", expected="a whole JPEG", got=str(error), fix=_FIX) from error


def check_jpeg(jpeg: bytes | memoryview, camera: CameraSpec, where: str) -> None:
    """Reads a JPEG's header and end. Raises InvalidEpisodeError unless it is a plain colour image of the camera's size."""
    _check_header(jpeg, camera, where)
    if bytes(jpeg[-2:]) != b"\xff\xd9":
        raise reject(where, f"JPEG of {camera.name}", expected="an end marker", got=bytes(jpeg[-2:]), fix=_FIX)


def _check_header(jpeg: bytes | memoryview, camera: CameraSpec, where: str) -> None:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg)
    except _UNREADABLE as error:
        raise reject(where, f"JPEG of {camera.name}", expected="a JPEG header", got=repr(error), fix=_FIX) from error
    if (height, width) != (camera.height, camera.width) or colours not in ("YCbCr", "RGB"):
        expected = f"YCbCr or RGB, {camera.height}x{camera.width}"
        raise reject(where, f"JPEG of {camera.name}", expected=expected, got=f"{colours}, {height}x{width}", fix=_FIX)
    if fault := find_fault(jpeg):
        raise reject(where, f"JPEG of {camera.name}", expected="a sequential one of a few scans", got=fault, fix=_FIX)
