"""Masks as prompts: logits of an earlier prediction, of one object or of several."""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_float32, shown
from sam2_jax.processing.masks import is_binary

MAX_LOGIT = 32.0
"""Logits of an earlier prediction are clamped to this size before they become a mask prompt, as Meta does."""


def clamp(logits: np.ndarray) -> np.ndarray:
    """Limit logits to MAX_LOGIT in size."""
    return np.clip(logits, -MAX_LOGIT, MAX_LOGIT)


def read_mask(mask: Any) -> np.ndarray:
    """Return a mask prompt as clamped float32 [h, w], or raise ValueError."""
    expected = "logits [height, width] of an earlier prediction"
    remedy = (
        "choose one of its masks, prediction.logits[prediction.best]; of a binary mask, 20.0 * mask - 10 "
        "makes logits; Meta's [1, height, width] goes to sam2_jax.meta.SAM2ImagePredictor"
    )
    array = read_array("mask", mask, expected)
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    if not is_float or array.ndim != 2 or array.size == 0:
        found = f"shape {array.shape} and type {array.dtype}"
        raise ValueError(f"mask must be {expected}; got {found}: {remedy}")
    if is_binary(array):
        raise ValueError(f"mask must be {expected}; got 0 and 1: {remedy}")
    if not np.isfinite(array).all():
        raise ValueError("mask must be finite numbers; got NaN or infinity")
    return clamp(read_float32("mask", array, expected))


def read_masks(masks: Any) -> np.ndarray | None:
    """Return mask prompts of several objects as clamped float32 [objects, h, w], None for None, or raise."""
    if masks is None:
        return None
    read = []
    for i, mask in enumerate(masks):
        try:
            read.append(read_mask(mask))
        except ValueError as error:
            raise ValueError(f"object {i}: {error}: each object must have a mask, or none of them") from error
    if len(shapes := {mask.shape for mask in read}) > 1:
        raise ValueError(f"masks must be of one size; got {shown(sorted(shapes))}")
    return np.stack(read)
