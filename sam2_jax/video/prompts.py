"""Objects of a clip and masks as prompts: an object as it is on a frame."""

from collections.abc import Hashable
from typing import Any

import numpy as np

from sam2_jax.checks import read_array, shown


def read_id(object_id: Any, name: str = "object_id") -> Hashable:
    """Return an object's id, any int or text. Raises ValueError for anything else."""
    if isinstance(object_id, (str, int, np.integer)) and not isinstance(object_id, bool):
        return object_id
    raise ValueError(f"{name} must be an int or text; got {shown(object_id)}")


def read_mask(mask: Any) -> np.ndarray:
    """Return a mask [height, width] as booleans; without any pixel it says that the object is absent.

    Raises ValueError for other shapes and for other numbers than 0 and 1, or 0 and 255 of uint8.
    """
    expected = "one mask [height, width] of booleans, of 0 and 1, or of 0 and 255 as a picture has it"
    array = read_array("mask", mask, expected)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"mask must be {expected}; got shape {array.shape}")
    values = (0, 1) if array.dtype != np.uint8 or 255 not in array else (0, 255)
    if array.dtype != bool and not np.isin(array, values).all():
        raise ValueError(f"mask must be {expected}; got other numbers: of logits, logits > 0 makes a mask")
    return array.astype(bool)
