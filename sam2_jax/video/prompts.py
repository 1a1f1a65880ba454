"""Masks as prompts of a clip: an object as it is on a frame."""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array


def read_mask(mask: Any) -> np.ndarray:
    """Return a mask [height, width] as booleans; without any pixel it says that the object is absent.

    Raises ValueError for other shapes and for other numbers than 0 and 1.
    """
    expected = "one mask [height, width] of booleans, or of 0 and 1"
    array = read_array("mask", mask, expected)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"mask must be {expected}; got shape {array.shape}")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"mask must be {expected}; got other numbers: of logits, logits > 0 makes a mask")
    return array.astype(bool)
