"""Prompts as people write them, nested and ragged, as the rectangular arrays that the network takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam2_jax.checks import read_array, shown
from sam2_jax.processing.inputs import Size
from sam2_jax.processing.masks import is_binary
from sam2_jax.processing.photo_prompts import check_place
from sam2_jax.processing.resampling import resize

PADDING = -10
"""Label of a padding point; its coordinates are never read."""

LARGEST_COORDINATE = 1e9
"""Far beyond any picture, and well inside float32 after scaling."""

_LEVELS = {
    "input_points": ("image", "object", "point", "coordinate"),
    "input_labels": ("image", "object", "point"),
    "input_boxes": ("image", "object", "coordinate"),
    "input_masks": ("image", "object"),
}
_COORDINATES = {"input_points": 2, "input_boxes": 4}

_NOT_A_POINT = -1
_LABELS = (PADDING, _NOT_A_POINT, 0, 1, 2, 3)

# What a binary mask becomes as a prompt: logits that say it plainly, as the video model's are.
_MASK_LOGIT = np.float32(10)


def count_images(prompts: Mapping[str, Any]) -> int:
    """How many images the prompts are for, 1 if there are none or they cannot be counted."""
    counts = [
        len(values)
        for values in prompts.values()
        if isinstance(values, (list, tuple)) or getattr(values, "ndim", 0) > 0
    ]
    return max([1, *counts])


def read_prompts(
    prompts: Mapping[str, Any],
    sizes: Sequence[Size],
    targets: Sequence[Size],
    mask_size: Size,
    pad_value: float = PADDING,
) -> dict[str, np.ndarray]:
    """Return prompts as rectangular arrays in the network's pixels, padded where they are ragged.

    prompts: of input_points (image > object > point > (x, y) in the photo's pixels), input_labels (image >
    object > point: 1 or True on the object, 0 or False off it), input_boxes (image > object > (x0, y0, x1,
    y1)) and input_masks (image > object > [H, W]: of bool, of integers 0 and another, of floats 0 and 1; all
    else are logits) those that are given. sizes, targets: (height, width) of each photo and of what the
    network sees of it; mask_size: of mask prompts there.

    Returns input_points float32 [B, P, N, 2] and input_labels int64 [B, P, N] (1 if none are given, -10 for
    padding), input_boxes float32 [B, P, 4] (NaN for padding), input_masks logits float32 [B, P, h, w]. Raises
    ValueError for wrong nesting, counts or numbers.
    """
    if "input_labels" in prompts and "input_points" not in prompts:
        raise ValueError("input_labels are given without input_points; give both or neither")
    nested = {
        name: _nest_masks(values) if name == "input_masks" else _nest(name, values)
        for name, values in prompts.items()
    }
    counts = _count_objects(nested, len(sizes))
    _check_objects(nested, counts, sizes)
    nested = _point_out_masks(nested, counts)
    shape = len(sizes), max(counts)
    scales = [_scale(size, target) for size, target in zip(sizes, targets, strict=True)]
    arrays: dict[str, np.ndarray] = {}
    if "input_points" in nested:
        arrays["input_points"], arrays["input_labels"] = _pad_points(nested, shape, scales, pad_value)
    if "input_boxes" in nested:
        boxes = np.full((*shape, 4), np.nan, np.float32)
        for b, p, box in _objects(nested["input_boxes"]):
            if box is not None:
                boxes[b, p] = (box.reshape(2, 2) * scales[b]).reshape(4)
        arrays["input_boxes"] = boxes
    if "input_masks" in nested:
        masks = np.zeros((*shape, *mask_size), np.float32)
        for b, p, logits in _objects(nested["input_masks"]):
            masks[b, p] = resize(logits[..., None], *mask_size)[..., 0]
        arrays["input_masks"] = masks
    return arrays


def _objects(images: list[list[Any]]) -> Any:
    """Each object's prompt with its image and place."""
    return ((b, p, prompt) for b, objects in enumerate(images) for p, prompt in enumerate(objects))


def _nest(name: str, values: Any) -> list[Any]:
    """Check nesting and numbers; the coordinates of a point or box become an array, a box of None stays."""
    levels = _LEVELS[name]
    layout = " > ".join(levels)

    def read(node: Any, depth: int, place: str) -> Any:
        if hasattr(node, "__array__"):
            node = _to_list(name, node, layout)
        if depth == len(levels):
            if isinstance(node, bool) and name == "input_labels":
                node = int(node)
            if isinstance(node, bool):
                raise ValueError(f"{name} must be numbers; {place} is {node}")
            if not isinstance(node, (int, float)):
                raise ValueError(
                    f"{name} must be nested {len(levels)} deep ({layout}); {place} is {_kind(node)}, not "
                    "a number"
                )
            if not abs(node) <= LARGEST_COORDINATE:
                raise ValueError(f"{name} must be finite numbers; {place} is {shown(node)}")
            return node
        if node is None and name == "input_boxes" and levels[depth] == "coordinate":
            return None
        if not isinstance(node, (list, tuple)):
            raise ValueError(
                f"{name} must be nested {len(levels)} deep ({layout}); got {_kind(node)} where a list of "
                f"{levels[depth]}s is due, at level {depth + 1}"
            )
        out = [read(item, depth + 1, f"{levels[depth]} {i} of {place}") for i, item in enumerate(node)]
        if levels[depth] == "coordinate":
            if len(out) != _COORDINATES[name]:
                raise ValueError(f"{name} must have {_COORDINATES[name]} coordinates; {place} has {len(out)}")
            return np.array(out, np.float32)
        return out

    return read(values, 0, "the prompt")


def _to_list(name: str, node: Any, layout: str) -> Any:
    try:
        return np.asarray(node).tolist()
    except Exception as error:  # what converts itself to an array may fail as it likes
        raise ValueError(f"{name} must be lists or arrays ({layout}); got {shown(node)}") from error


def _nest_masks(values: Any) -> list[list[np.ndarray]]:
    """Mask prompts as logits [H, W] in lists, image > object."""

    def items(node: Any, level: int) -> list[Any]:
        if isinstance(node, (list, tuple)) or getattr(node, "ndim", 0) > 2:
            return list(node)
        raise ValueError(
            "input_masks must be nested image > object > mask [height, width]; got "
            f"{_kind(node)} where a list of {_LEVELS['input_masks'][level]}s is due, at level {level + 1}"
        )

    return [
        [_mask_logits(mask, f"object {p} of image {b}") for p, mask in enumerate(items(image, 1))]
        for b, image in enumerate(items(values, 0))
    ]


def _mask_logits(mask: Any, place: str) -> np.ndarray:
    expected = "masks [height, width] for each object"
    array = read_array("input_masks", mask, f"{expected}; that of {place} is not")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"input_masks must be {expected}; {place} has shape {array.shape}")
    if array.dtype.kind == "b" or is_binary(array):
        return np.where(array, _MASK_LOGIT, -_MASK_LOGIT)
    if array.dtype.kind not in "ui":
        if not (np.abs(array.astype(np.float64)) <= LARGEST_COORDINATE).all():
            raise ValueError(
                f"input_masks must be finite logits; that of {place} has NaN, infinity or numbers beyond "
                f"{LARGEST_COORDINATE:g}"
            )
        return array.astype(np.float32)
    if not np.isin(array, (0, max(1, array.max()))).all():
        raise ValueError(
            f"input_masks must be logits, or masks of two values, 0 outside; that of {place} is of "
            f"{array.dtype} with other values: compare it with a threshold first"
        )
    return np.where(array, _MASK_LOGIT, -_MASK_LOGIT)


def _kind(node: Any) -> str:
    return "a list" if isinstance(node, (list, tuple)) else type(node).__name__


def _count_objects(nested: Mapping[str, list[Any]], images: int) -> list[int]:
    """How many objects each image has, the same by every kind of prompt."""
    first = ""
    for name, values in nested.items():
        if not values:
            raise ValueError(f"{name} must not be empty: there is no image in the prompt")
        if len(values) != images:
            raise ValueError(f"{name} must be for as many images as there are, {images}; got {len(values)}")
        first = first or name
        for b, (objects, others) in enumerate(zip(values, nested[first], strict=True)):
            if len(objects) != len(others):
                raise ValueError(
                    f"{first} and {name} must be for as many objects: image {b} has {len(others)} and "
                    f"{len(objects)}"
                )
    counts = [len(objects) for objects in nested[first]]
    if not any(counts):
        raise ValueError(
            f"{first} must not be empty: there is no object in any image, so nothing to ask of the model"
        )
    return counts


def _check_objects(nested: Mapping[str, list[Any]], counts: list[int], sizes: Sequence[Size]) -> None:
    """Every object must have a prompt, as many labels as points, and a box in its photo, corners in order."""
    points, labels, boxes = (nested.get(f"input_{name}") for name in ("points", "labels", "boxes"))
    for b, count in enumerate(counts):
        for p in range(count):
            place = f"object {p} of image {b}"
            box = None if boxes is None else boxes[b][p]
            if box is not None and (box[2:] < box[:2]).any():
                x0, y0, x1, y1 = box
                raise ValueError(
                    "input_boxes must be (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1; that of "
                    f"{place} is ({x0:g}, {y0:g}, {x1:g}, {y1:g}): is it (x, y, width, height)?"
                )
            if box is not None:
                check_place("input_boxes", box, sizes[b], f"that of {place} is")
            if points is not None and labels is not None:
                _check_labels(labels[b][p], len(points[b][p]), place)
            if box is None and "input_masks" not in nested and not (points and points[b][p]):
                name, missing = "input_points", "point" if boxes is None else "point and no box"
                if points is None:
                    name, missing = "input_boxes", "box"
                raise ValueError(
                    f"{name} must say something of every object: there is no {missing} for {place}"
                )


def _point_out_masks(nested: dict[str, list[Any]], counts: list[int]) -> dict[str, list[Any]]:
    """Give objects of a mask alone, among others with points or boxes, the network's not-a-point.

    Without it their only prompt would be padding. Where all are of masks alone, the network does it itself.
    """
    points, boxes = nested.get("input_points"), nested.get("input_boxes")
    if "input_masks" not in nested or (points is None and boxes is None):
        return nested
    points = [[[] for _ in range(count)] for count in counts] if points is None else points
    labels = nested.get("input_labels") or [[[1] * len(clicks) for clicks in image] for image in points]
    bare = [
        (b, p) for b, p, clicks in _objects(points) if not clicks and (boxes is None or boxes[b][p] is None)
    ]
    for b, p in bare:
        points[b][p], labels[b][p] = [np.zeros(2, np.float32)], [_NOT_A_POINT]
    return nested | {"input_points": points, "input_labels": labels} if bare else nested


def _check_labels(labels: list[Any], points: int, place: str) -> None:
    if len(labels) != points:
        raise ValueError(
            f"input_labels must have one label for each point: {place} has {points} points and "
            f"{len(labels)} labels"
        )
    if wrong := [label for label in labels if label not in _LABELS]:
        raise ValueError(f"input_labels must be among {_LABELS}; {place} has {wrong[0]}")


def _pad_points(
    nested: Mapping[str, list[Any]], shape: tuple[int, int], scales: list[np.ndarray], pad_value: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels as arrays; those that are not there have label -10."""
    count = max(1, *(len(points) for _, _, points in _objects(nested["input_points"])))
    out = np.full((*shape, count, 2), pad_value, np.float32)
    out_labels = np.full((*shape, count), PADDING, np.int64)
    for b, p, points in _objects(nested["input_points"]):
        if points:
            n = len(points)
            out[b, p, :n] = np.stack(points) * scales[b]
            out_labels[b, p, :n] = nested["input_labels"][b][p] if "input_labels" in nested else 1
    return out, out_labels


def _scale(size: Size, target: Size) -> np.ndarray:
    """What multiplies (x, y) on a photo of (height, width) to give those on the network's input."""
    return np.array([target[1] / size[1], target[0] / size[0]], np.float32)
