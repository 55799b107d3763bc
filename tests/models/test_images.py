import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sop_jax.models.images import patchify, resize_with_pad, resize_with_pad_on_host, to_unit_range


def test_patches_run_row_by_row():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    patches = np.asarray(patchify(image, 2))
    assert patches.shape == (1, 4, 12)
    top_right = image[0, :2, 2:].reshape(-1) / 127.5 - 1
    np.testing.assert_allclose(patches[0, 1], top_right, atol=1e-6)


def test_bytes_cover_minus_one_to_one():
    np.testing.assert_allclose(to_unit_range(np.array([0, 255], np.uint8)), [-1, 1])


def test_patches_times_kernel_are_a_strided_convolution():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    kernel = rng.normal(size=(4, 4, 3, 5)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        to_unit_range(image), kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(patchify(image, 4) @ kernel.reshape(-1, 5), expected.reshape(2, 4, 5), atol=1e-4)


def test_fitting_images_are_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(resize_with_pad(image, 8), image)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (8, 16), (30, 21), (48, 64), (16, 8), (1, 40), (3, 3)])
def test_the_host_resizes_as_the_model_does(size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found, expected = resize_with_pad_on_host(images, 8), np.asarray(resize_with_pad(images, 8))
    assert (found.shape, found.dtype) == (expected.shape, np.uint8)
    off = np.abs(found.astype(int) - expected)
    assert off.max() <= 1  # a value between two levels may be rounded the other way
    assert (off > 0).mean() < 0.02


def test_wide_images_get_black_bars_above_and_below():
    image = np.full((1, 8, 16, 3), 200, np.uint8)
    resized = np.asarray(resize_with_pad(image, 8))
    assert resized.shape == (1, 8, 8, 3)
    assert resized.dtype == jnp.uint8
    np.testing.assert_array_equal(resized[0, :, 0, 0], [0, 0, 200, 200, 200, 200, 0, 0])
