"""Resizing pictures exactly as torch does, in numpy.

Pillow's filters and torch's antialiased `interpolate` share their kernels; they differ in rounding, and
torch's is what the reference's pixels went through.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

NEAREST, LANCZOS, BILINEAR, BICUBIC = (
    int(filter_)
    for filter_ in (
        Image.Resampling.NEAREST,
        Image.Resampling.LANCZOS,
        Image.Resampling.BILINEAR,
        Image.Resampling.BICUBIC,
    )
)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5, as for every antialiased bicubic."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x * -0.5 + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _windowed_sinc(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


_KERNELS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    LANCZOS: (_windowed_sinc, 3),
    BILINEAR: (_triangle, 1),
    BICUBIC: (_cubic, 2),
}
"""Pillow's number of a filter -> its kernel, and that kernel's radius in source pixels."""

RESAMPLING = (NEAREST, *sorted(_KERNELS))
"""The filters that `resize` knows, by Pillow's numbers."""


def resize(image: np.ndarray, height: int, width: int, resample: int = BILINEAR) -> np.ndarray:
    """Resize image [H, W, C], uint8 or float32, to [height, width, C] of the same type, with antialiasing.

    Equal to torch's `interpolate(antialias=True)`: bit for bit for uint8, which it computes with fixed-point
    weights and rounds after each axis, width first; to a few units in the last place for float32, whose
    last bits depend on the machine in torch. resample is one of `RESAMPLING`; nearest is torch's
    "nearest-exact".
    """
    if resample == NEAREST:
        return resize_nearest(image, height, width)
    return _resize_axis(_resize_axis(image, 1, width, resample), 0, height, resample)


def resize_nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize image [H, W, ...] of any type to [height, width, ...], each pixel that under its centre."""
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * (size_in / size), size_in - 1).astype(np.int64)
        for size_in, size in zip(image.shape[:2], (height, width), strict=True)
    )
    return image[rows[:, None], columns]


@lru_cache(maxsize=64)
def _taps(size_in: int, size_out: int, resample: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights [size_out, taps] along one axis, computed in dtype as torch does.

    The kernel is stretched to max(scale, 1) around each target pixel's centre, cut at the border, normalised.
    """
    kernel, radius = _KERNELS[resample]
    scale = dtype(size_in) / dtype(size_out)
    stretch = max(scale, dtype(1))
    support = radius * stretch
    half = dtype(0.5)
    centre = scale * (np.arange(size_out, dtype=dtype) + half)
    low = np.maximum((centre - support + half).astype(np.int64), 0)
    high = np.minimum((centre + support + half).astype(np.int64), size_in)
    index = low[:, None] + np.arange((high - low).max())
    weights: np.ndarray = kernel((index.astype(dtype) - centre[:, None] + half) / stretch).astype(dtype)
    weights[index >= high[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(index, size_in - 1), weights


def _resize_axis(image: np.ndarray, axis: int, size: int, resample: int) -> np.ndarray:
    if image.shape[axis] == size:
        return image
    if image.dtype == np.uint8:
        return _resize_axis_in_fixed_point(image, axis, size, resample)
    index, weights = _taps(image.shape[axis], size, resample, np.float32)
    return _weighted_sum(image, axis, index, weights, np.float32(0))


def _resize_axis_in_fixed_point(image: np.ndarray, axis: int, size: int, resample: int) -> np.ndarray:
    index, weights = _taps(image.shape[axis], size, resample, np.float64)
    bits = 0
    while bits < 22 and 0.5 + weights.max() * 2 ** (bits + 1) < 2**15:
        bits += 1
    integers = np.trunc(weights * 2**bits + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    total = _weighted_sum(image, axis, index, integers, np.int32(2 ** (bits - 1)))
    return np.clip(total >> bits, 0, 255, out=total).astype(np.uint8)


def _weighted_sum(
    image: np.ndarray, axis: int, index: np.ndarray, weights: np.ndarray, start: np.generic
) -> np.ndarray:
    """The sum over taps of image taken at index [size, taps] along axis, times weights of the same shape."""
    shape = [1] * image.ndim
    shape[axis] = len(index)
    total = np.full((*image.shape[:axis], len(index), *image.shape[axis + 1 :]), start)
    for tap in range(index.shape[1]):
        total += image.take(index[:, tap], axis=axis) * weights[:, tap].reshape(shape)
    return total
