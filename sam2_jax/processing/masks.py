"""Mask logits and masks: upscaling to the photo, boxes, run lengths."""

from typing import Any

import numpy as np


def upscale(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize logits [..., h, w] to float32 [..., height, width], bilinear, without antialias.

    Equal to torch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    logits = np.asarray(logits, np.float32)
    rows = _bilinear(logits.shape[-2], height)
    columns = _bilinear(logits.shape[-1], width)
    return _mix(_mix(logits, -2, *rows), -1, *columns)


def _bilinear(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Index of the lower neighbour and weight of the upper one, for each target pixel."""
    centre = np.maximum((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0)
    low = centre.astype(np.int64)
    return low, (centre - low).astype(np.float32)


def _mix(x: np.ndarray, axis: int, low: np.ndarray, weight: np.ndarray) -> np.ndarray:
    weight = weight[:, None] if axis == -2 else weight
    high = np.minimum(low + 1, x.shape[axis] - 1)
    return x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Box (x, y, width, height) in pixels around a boolean mask [H, W]; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths of a boolean mask [H, W] as COCO has them, uncompressed: column by column, zeros first.

    Returns {"size": [H, W], "counts": [...]}, ready for JSON.
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
    leading = [0] if flat.size and flat[0] else []
    return {"size": [int(n) for n in mask.shape], "counts": [*leading, *counts.tolist()]}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Boolean mask [H, W] from run lengths; the inverse of `encode_rle`.

    Raises ValueError if the runs do not fill the mask.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"rle counts must sum to {height} x {width} = {height * width}; got {counts.sum()}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width, order="F")
