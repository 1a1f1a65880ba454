"""Mask logits: upscaling to the photo, stability, one object per pixel; how deep a pixel lies in a mask."""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

from sam2_jax.checks import read_float32, read_number

_BAND = 2**18  # numbers worked on at a time, few enough to stay in a processor's cache


Window = tuple[slice, slice]
"""Rows and columns of a picture."""


def upscale(logits: Any, height: int, width: int, window: Window | None = None) -> np.ndarray:
    """Resize logits [..., h, w] to float32 [..., height, width], bilinear, without antialias.

    Equal to torch's `interpolate(mode="bilinear", align_corners=False)`, to the last bits of float32.
    window: compute only this part of the result.
    """
    logits = _read_logits(logits)
    if 0 in logits.shape[-2:]:
        raise ValueError(f"logits must have pixels; got shape {logits.shape}")
    rows, columns = window or (slice(0, height), slice(0, width))
    left, right, across = (x[columns] for x in _bilinear(logits.shape[-1], width))
    above, below, down = (x[rows] for x in _bilinear(logits.shape[-2], height))
    out = np.empty((*logits.shape[:-2], len(above), len(left)), np.float32)
    if not out.size:
        return out
    first = above[0]
    logits = logits[..., first : below[-1] + 1, :]
    wide = logits.take(left, axis=-1) * (1 - across) + logits.take(right, axis=-1) * across
    step = max(1, _BAND * len(above) // out.size)
    for start in range(0, len(above), step):
        band = slice(start, start + step)
        lower = down[band, None]
        np.multiply(wide.take(above[band] - first, axis=-2), 1 - lower, out=out[..., band, :])
        out[..., band, :] += wide.take(below[band] - first, axis=-2) * lower
    return out


def window_above(logits: np.ndarray, level: float, height: int, width: int) -> Window | None:
    """The part of the picture outside of which no logit exceeds level, once [h, w] are upscaled to its size.

    Upscaled logits are means of their neighbours. None if there is no such part.
    """
    above = logits > level - 1e-3  # for a mean may be rounded up
    window = []
    for axis, size in ((1, height), (0, width)):
        inside = np.flatnonzero(above.any(axis=axis))
        if not inside.size:
            return None
        first, second, _ = _bilinear(len(logits[0]) if axis == 0 else len(logits), size)
        start, stop = np.searchsorted(second, inside[0]), np.searchsorted(first, inside[-1], side="right")
        if start >= stop:  # a picture so small that no pixel of it is near
            return None
        window.append(slice(int(start), int(stop)))
    return window[0], window[1]


def draw_above(blank: np.ndarray, logits: np.ndarray, level: float) -> None:
    """Mark in blank, bool [H, W], where logits [h, w], upscaled to its size, exceed a level."""
    height, width = blank.shape
    if window := window_above(logits, level, height, width):
        blank[window] = upscale(logits, height, width, window) > level


@lru_cache(maxsize=8)
def _bilinear(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the two neighbours and weight of the second, for each target pixel.

    As in torch, the scale and the source coordinate are float32: seen at 1800 pixels, that is 1e-5 of a
    pixel.
    """
    scale = np.float64(np.float32(size_in) / np.float32(size_out))
    centre = np.maximum((np.arange(size_out) + 0.5) * scale - 0.5, 0).astype(np.float32)
    first = centre.astype(np.int64)
    return first, np.minimum(first + 1, size_in - 1), centre - first.astype(np.float32)


def stability_score(logits: Any, threshold: float = 0.0, offset: float = 1.0) -> np.ndarray:
    """How little a mask changes with its threshold: float32 [...], 0 to 1, from logits [..., H, W].

    The area above threshold + offset over the area above threshold - offset, hence their IoU. Where even the
    latter is empty the score is 0; transformers has NaN there.
    """
    logits = _read_logits(logits)
    threshold, offset = read_level("threshold", threshold), read_level("offset", offset)
    inner = np.count_nonzero(logits > threshold + offset, axis=(-2, -1))
    outer = np.count_nonzero(logits > threshold - offset, axis=(-2, -1))
    return np.asarray(inner, np.float32) / np.maximum(outer, 1).astype(np.float32)


def read_level(name: str, value: Any) -> float:
    """Return a logit that masks are compared with, 0 for None; raises ValueError for what is none."""
    level = 0.0 if value is None else read_number(name, value)
    return read_number(name, level, -1e9, 1e9)


def _read_logits(logits: Any) -> np.ndarray:
    expected = "[..., height, width]"
    array = logits if isinstance(logits, np.ndarray) and logits.dtype == np.float32 else None
    array = read_float32("logits", logits, expected) if array is None else array
    if array.ndim < 2:
        raise ValueError(f"logits must be {expected}; got shape {array.shape}")
    return array


def is_binary(mask: np.ndarray) -> bool:
    """Whether numbers are the 0 and 1 of a mask, with a 1 among them; logits hardly ever are."""
    is_one = mask == 1
    return bool(is_one.any() and (is_one | (mask == 0)).all())


def depth_inside(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a boolean mask [H, W] from the nearest outside it, the border being outside.

    float64 [H, W], in pixels, 0 outside the mask.
    """
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def apply_non_overlapping_constraints(logits: Any, mask_threshold: float = 0.0) -> np.ndarray:
    """Leave each pixel to the object of the highest logit: a new array like logits [P, M, H, W].

    Each of the M masks is shared out among the P objects for itself; of equals the first object wins. The
    others' logits are lowered to -10, or to mask_threshold - 10 where that is less, so that no pixel is in
    two masks at mask_threshold; transformers lowers to -10 always. Raises ValueError for other shapes.
    """
    logits = _read_logits(logits)
    mask_threshold = read_level("mask_threshold", mask_threshold)
    if logits.ndim != 4:
        raise ValueError(
            f"masks must be [objects, masks, height, width] to be kept apart; got shape {logits.shape}"
        )
    if len(logits) < 2:
        return logits.copy()
    objects = np.arange(len(logits))[:, None, None, None]
    limit = logits.dtype.type(min(-10.0, mask_threshold - 10.0))
    return np.where(logits.argmax(axis=0) == objects, logits, np.minimum(logits, limit))
