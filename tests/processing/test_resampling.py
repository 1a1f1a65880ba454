"""Resizing: what must hold for every size and filter. That it is torch's to the bit: tests/parity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_jax.processing.resampling import BILINEAR, NEAREST, RESAMPLING, resize, resize_nearest

sides = st.integers(1, 70)
FILTERS = pytest.mark.parametrize("resample", RESAMPLING)
TYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32])


@FILTERS
@TYPES
@settings(max_examples=30)
@given(height=sides, width=sides, target=st.tuples(sides, sides), value=st.integers(0, 255))
def test_a_flat_picture_of_any_size_stays_flat(
    resample: int, dtype: type, height: int, width: int, target: tuple[int, int], value: int
) -> None:
    out = resize(np.full((height, width, 3), value, dtype), *target, resample)
    assert out.shape == (*target, 3)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, value, atol=1 if dtype == np.uint8 else 1e-3)


@TYPES
@settings(max_examples=30)
@given(height=sides, width=sides, target=st.tuples(sides, sides), seed=st.integers(0, 99))
def test_resizing_commutes_with_turning_the_picture(
    dtype: type, height: int, width: int, target: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(dtype)
    turned = resize(image.swapaxes(0, 1), *target[::-1]).swapaxes(0, 1)
    # Fixed point rounds after each axis, so the order of axes may move a value by one or two.
    np.testing.assert_allclose(resize(image, *target).astype(int), turned.astype(int), atol=2)


@settings(max_examples=60)
@given(size=st.tuples(sides, sides), target=st.tuples(sides, sides))
def test_nearest_takes_the_pixel_under_the_centre(size: tuple[int, int], target: tuple[int, int]) -> None:
    labels = np.arange(size[0] * size[1]).reshape(size)
    out = resize_nearest(labels, *target)
    for y in {0, target[0] // 2, target[0] - 1}:
        for x in {0, target[1] // 3, target[1] - 1}:
            row, column = (2 * y + 1) * size[0] // (2 * target[0]), (2 * x + 1) * size[1] // (2 * target[1])
            assert out[y, x] == labels[row, column]


@FILTERS
def test_the_picture_itself_is_not_altered(resample: int) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    before = image.copy()
    resize(image, 9, 2, resample)
    np.testing.assert_array_equal(image, before)


def test_shrinking_averages_what_nearest_would_skip() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[::2] = 200
    assert set(np.unique(resize(stripes, 16, 16, NEAREST))) <= {0, 200}
    assert abs(resize(stripes, 16, 16, BILINEAR)[1:-1].astype(int) - 100).max() <= 2
