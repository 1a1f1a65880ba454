"""Meta's array forms of prompts, checked: of one object or of several, in pixels or in parts of the photo.

frame: the (height, width) that coordinates are in, (1, 1) for parts of the photo.
"""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_float32, read_numbers, shown
from sam2_jax.processing.inputs import Size
from sam2_jax.processing.masks import is_binary

# A box may reach beyond the photo; further than so many times its longer side, it was not meant for it.
_FAR = 10


def read_points(points: Any, labels: Any, frame: Size) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Points float32 [N, n, 2] in the frame and labels [N, n]; None and None for none."""
    if points is None:
        if labels is not None:
            raise ValueError("point_labels are given without point_coords: give both or neither")
        return None, None
    if labels is None:
        raise ValueError("point_labels must be given with point_coords: 1 on the object, 0 off it")
    layout = "points [n, 2], or [objects, n, 2], as (x, y)"
    array = read_numbers("point_coords", points, layout)
    if array.ndim not in (2, 3) or array.shape[-1] != 2 or array.size == 0:
        raise ValueError(f"point_coords must be {layout}; got shape {array.shape}")
    kinds = read_array("point_labels", labels, "labels [n], or [objects, n]")
    if kinds.shape != array.shape[:-1]:
        raise ValueError(
            f"point_labels must be one for each point, {array.shape[:-1]}; got shape {kinds.shape}"
        )
    if not np.isin(kinds, (-1, 0, 1, 2, 3)).all():
        raise ValueError(f"point_labels must be 1 (on the object) or 0 (off it); got {shown(labels)}")
    _check_inside("point_coords", array[kinds != -1], frame)
    lead = () if array.ndim == 3 else (1,)
    return array.reshape(*lead, *array.shape), kinds.astype(np.int32).reshape(*lead, *kinds.shape)


def read_boxes(box: Any, frame: Size) -> np.ndarray | None:
    """Boxes float64 [N, 4] in the frame, None for none."""
    if box is None:
        return None
    array = read_numbers("box", box, "[4], [1, 4] or [objects, 4], as (x0, y0, x1, y1)")
    if array.ndim not in (1, 2) or array.shape[-1] != 4 or array.size == 0:
        raise ValueError(f"box must be [4], [1, 4] or [objects, 4]; got shape {array.shape}")
    boxes = array.reshape(-1, 4)
    corners = boxes[:, :2], boxes[:, 2:]
    if (corners[0] >= corners[1]).any():
        raise ValueError(f"box must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1; got {shown(box)}")
    limits = np.array(frame[::-1])
    if (corners[1] <= 0).any() or (corners[0] >= limits).any() or np.abs(boxes).max() > _FAR * limits.max():
        raise ValueError(f"box must cover a part of the photo, {_extent(frame)}; got {shown(box)}")
    return boxes


def read_masks(masks: Any) -> np.ndarray | None:
    """Mask prompts [1, 1 or N, h, w], None for none."""
    if masks is None:
        return None
    array = read_array("mask_input", masks, "logits [1, h, w] or [objects, 1, h, w]", "f")
    is_one_each = (array.ndim == 3 and len(array) == 1) or (array.ndim == 4 and array.shape[1] == 1)
    if not is_one_each or array.size == 0:
        raise ValueError(
            f"mask_input must be logits [1, h, w] or [objects, 1, h, w]; got shape {array.shape}: choose one "
            "of an object's masks, logits[np.argmax(scores)][None]"
        )
    if not np.isfinite(array).all():
        raise ValueError("mask_input must be finite numbers; got NaN or infinity")
    if is_binary(array):
        raise ValueError("mask_input must be logits, such as 20.0 * mask - 10 of a binary mask; got 0 and 1")
    return read_float32("mask_input", array, "logits").reshape(1, -1, *array.shape[-2:])


def _check_inside(name: str, points: np.ndarray, frame: Size) -> None:
    outside = (points < 0) | (points > np.array(frame[::-1]))
    if outside.any():
        x, y = points[outside.any(axis=-1)][0]
        raise ValueError(f"{name} must lie in the photo, {_extent(frame)}; got ({x:g}, {y:g})")


def _extent(frame: Size) -> str:
    if frame == (1, 1):
        return "whose width and height are 1 with normalize_coords=False"
    return f"which is {frame[1]} x {frame[0]} pixels"
