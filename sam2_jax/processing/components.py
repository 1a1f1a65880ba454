"""Connected components of masks: small holes filled, small sprinkles removed."""

import math

import numpy as np
from scipy import ndimage

# Diagonal neighbours touch; masks of a stack do not.
_EIGHT_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_EIGHT_NEIGHBOURS[1] = True


def label_components(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the 8-connected components of boolean masks [..., H, W].

    Returns labels int32 [..., H, W], which are 0 outside and begin at 1 for the whole stack, and the areas in
    pixels int64 [labels] by label; the first is 0, that of the outside. Raises ValueError for fewer
    dimensions.
    """
    masks = np.asarray(masks, bool)
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
    max_hole_area: float = 0.0,
    max_sprinkle_area: float = 0.0,
) -> np.ndarray:
    """Clean mask logits [..., h, w] of small components; returns a new float32 array of that shape.

    A hole, an 8-connected component of the background (logits <= mask_threshold) of at most max_hole_area
    pixels, becomes mask_threshold + 10. Then a sprinkle, a component of what was foreground before the
    filling, of at most max_sprinkle_area pixels, becomes mask_threshold - 10. Components at the border count
    as well. An area of 0 turns its half off. Areas are in pixels of these logits, which Meta's
    `SAM2Transforms` takes at the network's low resolution. Raises ValueError for negative areas.
    """
    for name, area in {"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}.items():
        if not area >= 0:
            raise ValueError(f"{name} must be an area in pixels, or 0 for none; got {area}")
    logits = np.asarray(logits, np.float32)
    foreground = logits > mask_threshold
    cleaned = logits.copy()
    if max_hole_area > 0:
        cleaned[_small_components(~foreground, max_hole_area)] = mask_threshold + 10
    if max_sprinkle_area > 0:
        cleaned[_small_components(foreground, max_sprinkle_area)] = mask_threshold - 10
    return cleaned


def _small_components(masks: np.ndarray, max_area: float) -> np.ndarray:
    """The pixels of the masks, bool [..., H, W], in components of at most max_area."""
    labels, areas = label_components(masks)
    small = areas <= max_area
    small[0] = False
    return small[labels]
