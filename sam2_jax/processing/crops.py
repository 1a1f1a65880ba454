"""Automatic mask generation: a picture's crops and their point grids, and which of the masks found to keep.

Arguments and results are those of transformers' `Sam2ImageProcessor`, in numpy.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_float32, read_number, read_whole, shown
from sam2_jax.processing.boxes import mask_to_boxes, non_maximum_suppression
from sam2_jax.processing.images import MAX_PIXELS, to_rgb
from sam2_jax.processing.masks import stability_score
from sam2_jax.processing.rle import decode_rle, encode_rle

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the picture; x1 and y1 are the first outside."""

MAX_POINTS_PER_SIDE, MAX_LAYERS, MAX_POINTS = 1024, 8, 10**7
"""A million clicks on a crop, 87,381 crops, ten million clicks in an array: more is not meant."""

# What the numbers of mask generation may be, by the generator's names of them: whole or not, and the limits.
_WHOLE: dict[str, tuple[int, int]] = {
    "points_per_side": (1, MAX_POINTS_PER_SIDE),
    "points_per_batch": (1, 2**53),
    "crop_n_layers": (0, MAX_LAYERS),
}
_REAL: dict[str, dict[str, float]] = {
    "pred_iou_thresh": {"most": 1},
    "stability_score_thresh": {"most": 1},
    "stability_score_offset": {"least": 0, "most": 1e4},
    "mask_threshold": {"least": -1e4, "most": 1e4},
    "box_nms_thresh": {"least": 0, "most": 1},
    "crop_nms_thresh": {"least": 0, "most": 1},
    "crop_overlap_ratio": {"least": 0, "below": 1},
    "crop_n_points_downscale_factor": {"least": 1, "most": MAX_POINTS_PER_SIDE},
    "min_mask_region_area": {"least": 0},
    "max_hole_area": {"least": 0},
    "max_sprinkle_area": {"least": 0},
}

_PADDING = -10
_EDGE = 20  # pixels: a box that comes so near to a crop's edge is thought to be cut off by it


def read_option(option: str, value: Any, name: str | None = None) -> Any:
    """Return a number of mask generation, an int where it counts something, else a float.

    option: what the generator calls it; name: what the caller calls it. Raises ValueError for other values.
    """
    name = name or option
    return (
        read_whole(name, value, *_WHOLE[option])
        if option in _WHOLE
        else read_number(name, value, **_REAL[option])
    )


def generate_crop_boxes(
    image: Any,
    target_size: int | tuple[int, int],
    crop_n_layers: int = 0,
    overlap_ratio: float = 512 / 1500,
    points_per_crop: int = 32,
    crop_n_points_downscale_factor: float = 1,
    device: Any = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    """Cut a picture into overlapping crops, each with a grid of points to prompt the network with.

    image: one picture, as `to_rgb` reads it. target_size: the network's input, a side or (height, width).
    Layer i of crop_n_layers + 1 has 2^i x 2^i crops, the first being the whole picture. overlap_ratio: by how
    much of the picture's short side two crops of layer 1 overlap; in layer i by 2^(1-i) of that.
    points_per_crop: points on a side of the grid; layer i has crop_n_points_downscale_factor^i times fewer,
    at least 1. device is accepted for transformers' sake. max_pixels: as of `to_rgb`.

    Returns crop boxes float32 [crops, 4] as x0, y0, x1, y1; points float32 [1, points, crops, 2] as x, y in
    pixels of the network's input, to which every crop is stretched; the crops, uint8 [h, w, 3] each, views of
    the picture; and labels int64 [1, points, crops]: 1, or -10 as the coordinates where a layer has fewer
    points than another. Raises ValueError for wrong numbers and for crops of less than a pixel.
    """
    if isinstance(image, (list, tuple)):
        raise ValueError(f"image must be one picture; got a {type(image).__name__}: call once for each")
    crop_n_layers = read_option("crop_n_layers", crop_n_layers)
    overlap_ratio = read_option("crop_overlap_ratio", overlap_ratio, "overlap_ratio")
    points_per_crop = read_option("points_per_side", points_per_crop, "points_per_crop")
    downscale_factor = read_option("crop_n_points_downscale_factor", crop_n_points_downscale_factor)
    height, width = _read_target(target_size)
    picture = to_rgb(image, max_pixels=max_pixels)
    layers = [layer_boxes(picture.shape[:2], layer, overlap_ratio) for layer in range(crop_n_layers + 1)]
    boxes = [box for layer in layers for box in layer]
    grids = []
    for layer, members in enumerate(layers):
        grid = layer_grid(points_per_crop, downscale_factor, layer)
        grids += [grid * (width, height)] * len(members)

    most = max(map(len, grids))
    if most * len(boxes) > MAX_POINTS:
        raise ValueError(
            f"crop_n_layers and points_per_crop must ask for at most {MAX_POINTS:,} points; got "
            f"{len(boxes):,} crops of {most:,}"
        )
    points = np.full((1, most, len(boxes), 2), _PADDING, np.float32)
    labels = np.full((1, most, len(boxes)), _PADDING, np.int64)
    for i, grid in enumerate(grids):
        points[0, : len(grid), i] = grid
        labels[0, : len(grid), i] = 1
    cropped = [picture[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
    return np.array(boxes, np.float32), points, cropped, labels


def layer_boxes(size: tuple[int, ...], layer: int, overlap_ratio: float) -> list[Box]:
    """Boxes of the 2^layer x 2^layer crops of a picture of (height, width), column by column."""
    height, width = size
    if layer == 0:
        return [(0, 0, width, height)]
    count = 2**layer
    overlap = int(overlap_ratio * min(size) * (2 / count))
    crop_height, crop_width = (math.ceil((overlap * (count - 1) + side) / count) for side in size)
    lefts = [(crop_width - overlap) * i for i in range(count)]
    tops = [(crop_height - overlap) * i for i in range(count)]
    if lefts[-1] >= width or tops[-1] >= height:
        raise ValueError(
            f"crop_n_layers must be less than {layer} for a picture of {width} x {height} pixels: "
            f"it cannot be cut into {count} x {count} crops"
        )
    return [(x, y, min(x + crop_width, width), min(y + crop_height, height)) for x, y in product(lefts, tops)]


def layer_grid(points_per_side: int, downscale_factor: float, layer: int) -> np.ndarray:
    """The points of a layer's crops: the centres of equal cells of the unit square, [N, (x, y)], row by row.

    Layer 0 has points_per_side on a side, layer i downscale_factor^i times fewer, at least 1.
    """
    side = max(1, int(points_per_side / downscale_factor**layer))
    centres = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def filter_masks(
    masks: Any,
    iou_scores: Any,
    original_size: Sequence[int],
    cropped_box_image: Sequence[int],
    pred_iou_thresh: float = 0.88,
    stability_score_thresh: float = 0.95,
    mask_threshold: float = 0,
    stability_score_offset: float = 1,
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Choose the good ones among the masks found in a crop, and place them in the whole picture.

    masks: logits [P, M, h, w] of the crop's size; iou_scores: the predicted IoU [P, M]. original_size:
    (height, width) of the picture; cropped_box_image: the crop's box x0, y0, x1, y1 in it. Kept are those
    with a score above pred_iou_thresh and a stability (`masks.stability_score`) above stability_score_thresh,
    of which a value of 0 or less asks nothing, whose box keeps off the crop's edges within the picture by 20
    pixels.

    Returns, of the N masks kept in their order, run lengths as `encode_rle` makes them, scores float32 [N]
    and boxes int64 [N, 4] as x0, y0, x1, y1 in the picture, inclusive. Raises ValueError for shapes that
    disagree.
    """
    height, width = _whole_numbers("original_size", original_size, "(height, width)")
    crop = x0, y0, x1, y1 = _whole_numbers("cropped_box_image", cropped_box_image, "(x0, y0, x1, y1)", 0)
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise ValueError(
            f"cropped_box_image must lie in the picture of {width} x {height} pixels; got {crop}"
        )
    pred_iou_thresh = read_option("pred_iou_thresh", pred_iou_thresh)
    stability_score_thresh = read_option("stability_score_thresh", stability_score_thresh)
    mask_threshold = read_option("mask_threshold", mask_threshold)
    stability_score_offset = read_option("stability_score_offset", stability_score_offset)
    masks, scores = _array("masks", masks), read_float32("iou_scores", iou_scores, "numbers")
    if masks.ndim != 4 or masks.shape[2:] != (y1 - y0, x1 - x0):
        raise ValueError(
            f"masks must be [objects, masks, {y1 - y0}, {x1 - x0}], as large as the crop {crop}; "
            f"got {masks.shape}"
        )
    if scores.shape != masks.shape[:2]:
        raise ValueError(f"iou_scores must be {masks.shape[:2]}, one for each mask; got {scores.shape}")

    corner = np.array([x0, y0, x0, y0])
    kept_masks, kept_scores, kept_boxes = [], [], []
    for index in np.ndindex(scores.shape):  # one by one: all at once they might fill the memory
        logits = masks[index]
        if pred_iou_thresh > 0 and not scores[index] > pred_iou_thresh:
            continue
        if stability_score_thresh > 0:
            stability = stability_score(logits, mask_threshold, stability_score_offset)
            if not stability > stability_score_thresh:
                continue
        inside = logits > mask_threshold
        box = mask_to_boxes(inside) + corner
        if is_near_crop_edge(box, crop, (0, 0, width, height)):
            continue
        whole = np.zeros((height, width), bool)
        whole[y0:y1, x0:x1] = inside
        kept_masks.append(encode_rle(whole))
        kept_scores.append(scores[index])
        kept_boxes.append(box)
    return kept_masks, np.array(kept_scores, np.float32), np.array(kept_boxes, np.int64).reshape(-1, 4)


def is_near_crop_edge(box: np.ndarray, crop: Sequence[int], picture: Sequence[int]) -> bool:
    """Whether a box comes near to an edge of its crop where the picture goes on."""
    near_crop = np.abs(box - crop) <= _EDGE
    near_picture = np.abs(box - picture) <= _EDGE
    return bool((near_crop & ~near_picture).any())


def post_process_for_mask_generation(
    all_masks: Sequence[dict[str, Any]], all_scores: Any, all_boxes: Any, crops_nms_thresh: float
) -> tuple[list[np.ndarray], np.ndarray, list[dict[str, Any]], np.ndarray]:
    """Leave out the masks of all crops whose boxes overlap that of a better one.

    all_masks: run lengths of N masks; all_scores: [N]; all_boxes: [N, 4] as x0, y0, x1, y1, as `filter_masks`
    returns them. crops_nms_thresh: the IoU of boxes above which the one of lower score goes.

    Returns, by falling score, the masks bool [H, W], scores [K], run lengths, and boxes [K, 4]; of nothing,
    nothing. Raises ValueError if the numbers of masks, scores and boxes differ.
    """
    threshold = read_option("box_nms_thresh", crops_nms_thresh, "crops_nms_thresh")
    if not isinstance(all_masks, (list, tuple)):
        raise ValueError(f"all_masks must be a list of run lengths; got {shown(all_masks)}")
    scores, boxes = _array("all_scores", all_scores), _array("all_boxes", all_boxes)
    if scores.ndim != 1 or (boxes.size and boxes.ndim != 2):
        raise ValueError(f"all_scores must be [N] and all_boxes [N, 4]; got {scores.shape} and {boxes.shape}")
    if boxes.size == 0:
        boxes = boxes.reshape(-1, 4)
    if not len(all_masks) == len(scores) == len(boxes):
        raise ValueError(
            "all_masks, all_scores and all_boxes must be of the same masks; "
            f"got {len(all_masks)}, {len(scores)} and {len(boxes)}"
        )
    kept = non_maximum_suppression(boxes, scores, threshold)
    rles = [all_masks[i] for i in kept]
    return [decode_rle(rle) for rle in rles], scores[kept], rles, boxes[kept]


def _read_target(target_size: Any) -> tuple[int, ...]:
    """The network's (height, width) from a side or a pair."""
    is_pair = isinstance(target_size, (list, tuple)) or getattr(target_size, "ndim", 0) > 0
    return _whole_numbers(
        "target_size", target_size if is_pair else [target_size] * 2, "a side or (height, width)"
    )


def _whole_numbers(name: str, values: Any, layout: str, least: int = 1) -> tuple[int, ...]:
    """As many integers as the layout names; ValueError for anything else."""
    count = layout.count(",") + 1
    try:
        listed = np.asarray(values).tolist() if hasattr(values, "__array__") else list(values)
        if len(listed) != count:
            raise ValueError
        return tuple(read_whole(name, value, least) for value in listed)
    except Exception:  # what converts itself to a list may fail as it likes
        raise ValueError(f"{name} must be {layout} in pixels; got {shown(values)}") from None


def _array(name: str, values: Any) -> np.ndarray:
    return read_array(name, values, "an array of numbers")
