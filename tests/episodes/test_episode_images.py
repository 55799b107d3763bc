"""JPEGs keep colours and sizes."""

import numpy as np
import pytest

from sop_jax.episodes.images import check_jpeg, decode_images, encode_image
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import CameraSpec

HEAD = CameraSpec("head", 16, 24)


def half_and_half() -> np.ndarray:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :13] = (200, 30, 40)
    image[:, 13:] = (20, 60, 220)
    return image


def test_colours_survive_to_the_pixel():
    decoded = decode_images([encode_image(half_and_half())], [HEAD])["head"]
    assert decoded.dtype == np.uint8
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded.astype(int) - half_and_half()).max() <= 24  # 4:2:0 would smear the edge by more than 80


def test_transposed_views_are_encoded_as_they_look():
    view = half_and_half().transpose(1, 0, 2)
    decoded = decode_images([encode_image(view)], [CameraSpec("head", 24, 16)])["head"]
    assert np.abs(decoded.astype(int) - view).mean() < 6


def test_lower_quality_is_smaller():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert len(encode_image(image, 30)) < len(encode_image(image, 90))


def test_broken_and_misshapen_jpegs_are_refused():
    jpeg = encode_image(half_and_half())
    check_jpeg(jpeg, HEAD, "e")
    with pytest.raises(InvalidEpisodeError, match="episode e: JPEG of head: expected a whole JPEG"):
        decode_images([jpeg[:-30]], [HEAD], "e")
    with pytest.raises(InvalidEpisodeError, match="episode e: JPEG of head: expected a JPEG header"):
        decode_images([jpeg[: len(jpeg) // 2]], [HEAD], "e")
    with pytest.raises(InvalidEpisodeError, match=r"JPEG of head: expected YCbCr or RGB, 16x16, got 'YCbCr, 16x24'"):
        decode_images([jpeg], [CameraSpec("head", 16, 16)], "e")
    with pytest.raises(ValueError, match="zip"):
        decode_images([jpeg], [HEAD, HEAD])
