"""Things on a frame that no tracked object covers yet."""

from collections.abc import Sequence

import numpy as np

from sam2_jax.processing.measures import region_similarity

SAME = 0.5
"""A mask is a tracked object's if their IoU is so high."""
COVERED = 0.5
"""A mask of which so much lies in tracked objects is a part of them."""


def new_masks(candidates: Sequence[np.ndarray], tracked: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """Of masks bool [H, W], best first, those that are of nothing tracked yet nor of one another.

    tracked: the masks that objects have on the frame. most: so many at most.
    """
    found: list[np.ndarray] = []
    for mask in candidates:
        if len(found) >= most:
            break
        others = [*tracked, *found]
        if not mask.any() or any(region_similarity(mask, other) >= SAME for other in others):
            continue
        covered = np.zeros(mask.shape, bool)
        for other in others:
            covered |= other
        if np.count_nonzero(mask & covered) < COVERED * np.count_nonzero(mask):
            found.append(mask)
    return found
