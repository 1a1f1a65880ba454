"""Masks found by themselves: judged without being drawn, chosen among, and cleaned of small regions.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix B; Meta's SAM2AutomaticMaskGenerator.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from sam2_jax.processing.boxes import mask_to_boxes, non_maximum_suppression
from sam2_jax.processing.components import small_components
from sam2_jax.processing.crops import Box, read_option
from sam2_jax.processing.masks import draw_above, stability_score, upscale, window_above
from sam2_jax.processing.rle import decode_rle, encode_rle


class Proposal(Protocol):
    """A mask as suppression sees it: a box x0, y0, x1, y1 in the picture and the crop it was found in."""

    @property
    def box(self) -> np.ndarray: ...

    @property
    def crop(self) -> Box: ...


Found = TypeVar("Found", bound=Proposal)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mask that the network proposes in a crop.

    logits: float32 [h, w], low-resolution, of the crop. score: the predicted IoU. point: the click (x, y) in
    the picture. stability: how little the mask depends on its threshold (`masks.stability_score`). box: x0,
    y0, x1, y1 in the picture, inclusive. crop: the crop's box in the picture.
    """

    logits: np.ndarray
    score: float
    point: tuple[float, float]
    stability: float
    box: np.ndarray
    crop: Box

    def mask(self, picture_size: tuple[int, int], threshold: float) -> np.ndarray:
        """Draw the mask, bool [H, W], in a picture of (height, width)."""
        x0, y0, x1, y1 = self.crop
        mask = np.zeros(picture_size, bool)
        draw_above(mask[y0:y1, x0:x1], self.logits, threshold)
        return mask

    def rle(self, picture_size: tuple[int, int], threshold: float) -> dict[str, Any]:
        """The mask as compressed run lengths: some kilobytes, where drawn it has a byte for each pixel."""
        return encode_rle(self.mask(picture_size, threshold), compressed=True)


def judge(
    logits: np.ndarray, size: tuple[int, int], threshold: float, offset: float
) -> tuple[float, np.ndarray]:
    """Stability and box [x0, y0, x1, y1], inclusive, of low-resolution logits [h, w] upscaled to a size.

    Both are those of the whole (height, width), of which only the part is computed where something is.
    """
    threshold = read_option("mask_threshold", threshold, "threshold")
    offset = read_option("stability_score_offset", offset, "offset")
    window = window_above(logits, threshold - offset, *size)
    if window is None:
        return 0.0, np.zeros(4, np.int64)
    full = upscale(logits, *size, window)
    inside = full > threshold
    box = np.zeros(4, np.int64)
    if inside.any():
        rows, columns = window
        box = mask_to_boxes(inside) + [columns.start, rows.start] * 2
    return float(stability_score(full, threshold, offset)), box


def best_of_crop(candidates: Sequence[Candidate], threshold: float) -> list[Candidate]:
    """Those, by falling score, whose box does not overlap that of a better one by an IoU above threshold."""
    return _suppress(candidates, [c.score for c in candidates], threshold)


def best_of_crops(found: Sequence[Found], threshold: float) -> list[Found]:
    """The same over all crops, where the mask from the smaller crop is the better one."""
    return _suppress(found, [1 / _area(each.crop) for each in found], threshold)


def _suppress(found: Sequence[Found], scores: Sequence[float], threshold: float) -> list[Found]:
    boxes = np.array([each.box for each in found]).reshape(-1, 4)
    threshold = read_option("box_nms_thresh", threshold, "threshold")
    return [found[i] for i in non_maximum_suppression(boxes, scores, threshold)]


def _area(box: Box) -> int:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def remove_small_regions(mask: np.ndarray, area: float) -> np.ndarray:
    """Fill holes and remove islands of less than `area` pixels of a mask, bool [H, W]; the largest one stays.

    8-connected, holes first, as Meta's `remove_small_regions`. Returns the mask itself if nothing changes.
    """
    area = read_option("min_mask_region_area", area, "area")
    largest = math.ceil(area) - 1
    holes = small_components(~mask, largest)
    filled = mask | holes if holes.any() else mask
    islands = small_components(filled, largest, keep_largest=True)
    return filled & ~islands if islands.any() else filled


def clean(
    rles: Iterable[dict[str, Any]], area: float, threshold: float
) -> list[tuple[int, dict[str, Any], np.ndarray]]:
    """Remove small regions of masks, then those that now overlap: cleaned ones before untouched ones.

    rles: compressed run lengths of masks, of which one at a time is drawn. Returns the index, the run lengths
    and the box [x0, y0, x1, y1], inclusive, of those that stay, in their order.
    """
    cleaned, boxes, untouched = [], [], []
    for rle in rles:
        mask = decode_rle(rle)
        new = remove_small_regions(mask, area)
        untouched.append(float(new is mask))
        cleaned.append(rle if new is mask else encode_rle(new, compressed=True))
        boxes.append(mask_to_boxes(new))
    threshold = read_option("box_nms_thresh", threshold, "threshold")
    kept = non_maximum_suppression(np.array(boxes).reshape(-1, 4), untouched, threshold)
    return [(int(i), cleaned[i], boxes[i]) for i in sorted(kept)]
