"""J and F, by which tracked masks are compared with true ones: of regions, and of their contours.

Source: Perazzi et al. 2016, A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation,
with the tolerance and the boundaries of the DAVIS 2017 challenge (arXiv:1704.00675).
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from sam2_jax.checks import read_array

TOLERANCE = 0.008
"""How far apart contours may be, of the picture's diagonal; in pixels, rounded up."""


class Measures(NamedTuple):
    """J (regions), F (contours), each from 0 to 1, and their mean."""

    j: float
    f: float

    @property
    def jf(self) -> float:
        """The mean of both."""
        return (self.j + self.f) / 2


def region_similarity(mask: Any, truth: Any) -> float:
    """J: the intersection over union of two masks, bool [H, W]; 1 if both are empty.

    Raises ValueError for masks of other shapes, or of two.
    """
    return _region_similarity(*_read_masks(mask, truth))


def contour_accuracy(mask: Any, truth: Any) -> float:
    """F: how well the contours of two masks, bool [H, W], agree within a tolerance; 1 if both are empty.

    The harmonic mean of the share of the mask's contour that lies near the true one, and the reverse. Raises
    ValueError as `region_similarity`.
    """
    return _contour_accuracy(*_read_masks(mask, truth))


class ClipMeasures:
    """J and F of a clip's objects, frame by frame, as semi-supervised benchmarks count them.

    Frames count for an object from the first on where the truth or the prediction has it. Objects that only
    the prediction has count for nothing. The benchmarks leave out a clip's first frame, whose masks are
    given, and its last.
    """

    def __init__(self) -> None:
        self._frames: dict[Hashable, list[Measures]] = {}
        self._true: dict[Hashable, None] = {}

    def add(self, masks: Mapping[Any, Any], truths: Mapping[Any, Any]) -> None:
        """Count a frame. masks, truths: bool [H, W] of each object; none or an empty one where it is absent.

        Raises ValueError for masks of different shapes.
        """
        found = {key: _read_mask("masks", mask) for key, mask in masks.items()}
        true = {key: _read_mask("truths", truth) for key, truth in truths.items()}
        shapes = {mask.shape for mask in (*found.values(), *true.values())}
        if len(shapes) > 1:
            raise ValueError(f"masks and truths must be of one shape; got {sorted(shapes)}")
        present = [key for key, truth in true.items() if truth.any()]
        self._true |= dict.fromkeys(present)
        for key in (*present, *(key for key, mask in found.items() if mask.any())):
            self._frames.setdefault(key, [])
        empty = np.zeros(shapes.pop() if shapes else (1, 1), bool)
        for key, measures in self._frames.items():
            mask, truth = found.get(key, empty), true.get(key, empty)
            measures.append(Measures(_region_similarity(mask, truth), _contour_accuracy(mask, truth)))

    def objects(self) -> dict[Hashable, Measures]:
        """Of each object that the truth has, the means over its frames."""
        return {key: mean(self._frames[key]) for key in self._true}


def mean(measures: Any) -> Measures:
    """The mean of several; NaN of none."""
    found = np.array(list(measures), np.float64).reshape(-1, 2)
    if not len(found):
        return Measures(math.nan, math.nan)
    j, f = found.mean(axis=0).tolist()
    return Measures(j, f)


def _read_mask(name: str, mask: Any) -> np.ndarray:
    array = read_array(name, mask, "bool [height, width]")
    if array.ndim != 2:
        raise ValueError(f"{name} must be bool [height, width]; got shape {array.shape}")
    return array.astype(bool, copy=False)


def _read_masks(mask: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = _read_mask("mask", mask), _read_mask("truth", truth)
    if first.shape != second.shape:
        raise ValueError(f"mask and truth must be of one shape; got {first.shape} and {second.shape}")
    return first, second


def _region_similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def _contour_accuracy(mask: np.ndarray, truth: np.ndarray) -> float:
    radius = math.ceil(TOLERANCE * math.hypot(*mask.shape))
    found, true = _contour(mask), _contour(truth)
    if not found.any() or not true.any():
        return 1.0 if found.any() == true.any() else 0.0
    # Away from both contours there is nothing to see.
    window = ndimage.find_objects((found | true).astype(np.uint8))[0]
    found, true = found[window], true[window]
    precision, recall = _share_near(found, true, radius), _share_near(true, found, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contour(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour, if they have one."""
    contour = np.zeros(mask.shape, bool)
    contour[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    contour[:-1] |= mask[:-1] ^ mask[1:]
    contour[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return contour


def _share_near(contour: np.ndarray, other: np.ndarray, radius: int) -> float:
    """The share of a contour's pixels that lie within a radius of another contour's."""
    distance = ndimage.distance_transform_edt(~other)
    return np.count_nonzero(contour & (distance <= radius)) / np.count_nonzero(contour)
