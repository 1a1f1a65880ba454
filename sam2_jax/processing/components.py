"""Connected components of masks: small holes filled, small sprinkles removed."""

import math
from typing import Any

import numpy as np
from scipy import ndimage

from sam2_jax.checks import read_array, read_float32, read_number, shown
from sam2_jax.processing.masks import read_level

# Diagonal neighbours touch; masks of a stack do not.
_EIGHT_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_EIGHT_NEIGHBOURS[1] = True


def label_components(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the 8-connected components of boolean masks [..., H, W].

    Returns labels int32 [..., H, W], which are 0 outside and begin at 1 for the whole stack, and the areas in
    pixels int64 [labels] by label; the first is 0, that of the outside. Raises ValueError for fewer
    dimensions.
    """
    masks = read_array("masks", masks, "[..., height, width]").astype(bool, copy=False)
    if masks.ndim < 2:
        raise ValueError(f"masks must be [..., height, width]; got shape {masks.shape}")
    stack = masks.reshape(math.prod(masks.shape[:-2]), *masks.shape[-2:])
    labels, count = ndimage.label(stack, _EIGHT_NEIGHBOURS)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    return labels.reshape(masks.shape), areas


def fill_holes_and_remove_sprinkles(
    logits: np.ndarray,
    mask_threshold: float = 0.0,
    max_hole_area: float | None = 0.0,
    max_sprinkle_area: float | None = 0.0,
) -> np.ndarray:
    """Clean mask logits [..., h, w] of small components; returns a new float32 array of that shape.

    A hole, an 8-connected component of the background (logits <= mask_threshold) of at most max_hole_area
    pixels, becomes mask_threshold + 10. Then a sprinkle, a component of what was foreground before the
    filling, of at most max_sprinkle_area pixels, becomes mask_threshold - 10. Components at the border count
    as well. An area of 0 or None turns its half off. Areas are in pixels of these logits, which Meta's
    `SAM2Transforms` takes at the network's low resolution. Raises ValueError for what is no area.
    """
    mask_threshold = read_level("mask_threshold", mask_threshold)
    max_hole_area = read_area("max_hole_area", max_hole_area)
    max_sprinkle_area = read_area("max_sprinkle_area", max_sprinkle_area)
    logits = read_float32("logits", logits, "[..., height, width]")
    foreground = logits > mask_threshold
    cleaned = logits.copy()
    if max_hole_area > 0:
        cleaned[small_components(~foreground, max_hole_area)] = mask_threshold + 10
    if max_sprinkle_area > 0:
        cleaned[small_components(foreground, max_sprinkle_area)] = mask_threshold - 10
    return cleaned


def small_components(masks: np.ndarray, max_area: float, keep_largest: bool = False) -> np.ndarray:
    """The pixels of the masks, bool [..., H, W], in components of at most max_area.

    keep_largest: if all components are as small, all but the largest.
    """
    labels, areas = label_components(masks)
    small = areas <= max_area
    small[0] = False
    if keep_largest and small[1:].all() and len(small) > 1:
        small[areas.argmax()] = False
    return small[labels]


def read_area(name: str, value: Any) -> float:
    """Return an area in pixels, 0 for None; raises ValueError for what is none."""
    area = 0.0 if value is None else read_number(name, value)
    if area < 0:
        raise ValueError(f"{name} must be an area in pixels, or 0 for none; got {shown(value)}")
    return area
