"""Boxes: their two forms, boxes of masks, non-maximum suppression."""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_float32, read_number, shown

# No picture's corner is farther, in pixels; areas then fit float32.
_FARTHEST = 1e9


def xyxy_to_xywh(boxes: Any) -> np.ndarray:
    """Boxes [..., 4] as x, y, width, height from x0, y0, x1, y1; the numbers' type is kept."""
    boxes = _boxes(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_xyxy(boxes: Any) -> np.ndarray:
    """Boxes [..., 4] as x0, y0, x1, y1 from x, y, width, height; the inverse of `xyxy_to_xywh`."""
    boxes = _boxes(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """COCO's box (x, y, width, height) in pixels around a boolean mask [H, W]; zeros if it is empty.

    Its last column and row lie inside: one pixel has width 1.
    """
    if not mask.any():
        return 0, 0, 0, 0
    x0, y0, x1, y1 = mask_to_boxes(mask).tolist()
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def mask_to_boxes(masks: Any) -> np.ndarray:
    """Boxes int64 [..., 4] around boolean masks [..., H, W]: first and last column and row that are inside.

    That is (x0, y0, x1, y1) with x1 and y1 inclusive, as transformers has it; zeros if a mask is empty.
    """
    masks = read_array("masks", masks, "[..., height, width]").astype(bool, copy=False)
    if masks.ndim < 2:
        raise ValueError(f"masks must be [..., height, width]; got shape {masks.shape}")
    if 0 in masks.shape:
        return np.zeros((*masks.shape[:-2], 4), np.int64)
    x0, x1 = _first_and_last(masks.any(axis=-2))
    y0, y1 = _first_and_last(masks.any(axis=-1))
    return np.stack([x0, y0, x1, y1], axis=-1)


def _first_and_last(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices int64 [...] of the first and the last true value of each line [..., N]; zeros if none is."""
    last = line.shape[-1] - 1 - line[..., ::-1].argmax(axis=-1)
    return line.argmax(axis=-1), np.where(line.any(axis=-1), last, 0)


def non_maximum_suppression(boxes: Any, scores: Any, threshold: float) -> np.ndarray:
    """Indices int64 of the boxes to keep, by falling score; of equal scores the earlier box goes first.

    A box goes if its IoU with a kept one of higher score exceeds the threshold. boxes: [N, 4] as x0, y0, x1,
    y1, their area (x1 - x0)(y1 - y0); scores: [N]. Equal to torchvision's `nms`, in float32 like it. Raises
    ValueError for other shapes and for NaN.
    """
    boxes, scores = read_float32("boxes", boxes, "[N, 4]"), read_float32("scores", scores, "[N]")
    threshold = read_number("threshold", threshold, -_FARTHEST, _FARTHEST)
    if scores.ndim != 1 or boxes.shape != (len(scores), 4):
        raise ValueError(f"boxes must be [N, 4] and scores [N]; got shapes {boxes.shape} and {scores.shape}")
    if np.isnan(boxes).any() or np.isnan(scores).any():
        raise ValueError("boxes and scores must be numbers; got NaN")
    if boxes.size and np.abs(boxes).max() > _FARTHEST:
        raise ValueError(f"boxes must be numbers of at most {_FARTHEST:g} in size; got {shown(boxes)}")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        common = np.maximum(sides, 0).prod(axis=1)
        union = areas[best] + areas[rest] - common
        with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area do not overlap
            rest = rest[~(common / union > np.float32(threshold))]
    return np.array(kept, np.int64)


def _boxes(boxes: Any) -> np.ndarray:
    boxes = read_array("boxes", boxes, "[..., 4]", "uif")
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be [..., 4]; got shape {boxes.shape}")
    return boxes
