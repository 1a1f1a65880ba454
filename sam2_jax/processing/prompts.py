"""Prompts as people write them, nested and ragged, as the rectangular arrays that the network takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PADDING = -10
"""Label of a padding point; its coordinates are never read."""

# Far beyond any picture, and well inside float32 after scaling.
_LARGEST = 1e9

_LEVELS = {
    "input_points": ("image", "object", "point", "coordinate"),
    "input_labels": ("image", "object", "point"),
    "input_boxes": ("image", "object", "coordinate"),
}

_LABELS = (PADDING, -1, 0, 1, 2, 3)

Size = tuple[int, int]


def read_points(
    points: Any, labels: Any, sizes: Sequence[Size], target: Size
) -> tuple[np.ndarray, np.ndarray]:
    """Return points float32 [B, P, N, 2] in the network's pixels and labels int64 [B, P, N].

    points: image > object > point > (x, y) in the photo's pixels; labels: image > object > point, 1 on the
    object and 0 off it, all 1 if None. sizes: each photo's (height, width); target: the network's input's.
    Missing objects and points get label -10. Raises ValueError for wrong nesting, counts or numbers.
    """
    nested = _nest("input_points", points)
    _check_images("input_points", nested, sizes)
    given = None if labels is None else _nest("input_labels", labels)
    if given is not None:
        _check_images("input_labels", given, sizes)
    objects = max(len(image) for image in nested)
    count = max(len(points_of_object) for image in nested for points_of_object in image)
    shape = (len(nested), objects, count)
    out_points, out_labels = np.full((*shape, 2), PADDING, np.float32), np.full(shape, PADDING, np.int64)
    for b, image in enumerate(nested):
        if given is not None and len(given[b]) != len(image):
            raise ValueError(
                f"input_labels must have one entry for each object: image {b} has {len(image)} objects and "
                f"{len(given[b])} lists of labels"
            )
        for p, points_of_object in enumerate(image):
            n = len(points_of_object)
            out_points[b, p, :n] = _scale(np.stack(points_of_object), sizes[b], target)
            out_labels[b, p, :n] = 1 if given is None else _labels_of(given[b][p], n, b, p)
    return out_points, out_labels


def read_boxes(boxes: Any, sizes: Sequence[Size], target: Size) -> np.ndarray:
    """Return boxes float32 [B, P, 4] in the network's pixels; boxes: image > object > (x0, y0, x1, y1).

    Raises ValueError for wrong nesting or numbers, x1 < x0 or y1 < y0, or unequal numbers of boxes.
    """
    nested = _nest("input_boxes", boxes)
    _check_images("input_boxes", nested, sizes)
    counts = [len(image) for image in nested]
    if len(set(counts)) > 1:
        raise ValueError(
            f"input_boxes must be equally many for every image; got {counts}. Segment the "
            "images one by one, or give each box as two points with labels 2 and 3"
        )
    for b, image in enumerate(nested):
        for p, (x0, y0, x1, y1) in enumerate(image):
            if x1 < x0 or y1 < y0:
                raise ValueError(
                    f"input_boxes must be (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1; box {p} of image "
                    f"{b} is ({x0:g}, {y0:g}, {x1:g}, {y1:g}): is it (x, y, width, height)?"
                )
    corners = [
        _scale(np.stack(image).reshape(-1, 2, 2), size, target)
        for image, size in zip(nested, sizes, strict=True)
    ]
    return np.stack(corners).reshape(len(nested), counts[0], 4)


def _nest(name: str, values: Any) -> list[Any]:
    """Check nesting and numbers; the last level of points and boxes becomes float arrays."""
    levels = _LEVELS[name]
    width = {"input_points": 2, "input_boxes": 4}.get(name)
    layout = " > ".join(levels)

    def read(node: Any, depth: int, place: str) -> Any:
        if hasattr(node, "__array__"):
            node = np.asarray(node).tolist()
        if depth == len(levels):
            if isinstance(node, bool) or not isinstance(node, (int, float)):
                raise ValueError(
                    f"{name} must be nested {len(levels)} deep ({layout}); {place} is {_kind(node)}, not "
                    "a number"
                )
            if not abs(node) <= _LARGEST:
                raise ValueError(f"{name} must be finite numbers; {place} is {node}")
            return node
        if not isinstance(node, (list, tuple)):
            raise ValueError(
                f"{name} must be nested {len(levels)} deep ({layout}); got {_kind(node)} where a list of "
                f"{levels[depth]}s is due, at level {depth + 1}"
            )
        if not node:
            raise ValueError(f"{name} must not be empty: there is no {levels[depth]} in {place}")
        out = [read(item, depth + 1, f"{levels[depth]} {i} of {place}") for i, item in enumerate(node)]
        if depth == len(levels) - 1 and width is not None:
            if len(out) != width:
                raise ValueError(f"{name} must have {width} coordinates; {place} has {len(out)}")
            return np.array(out, np.float32)
        return out

    return read(values, 0, "the prompt")


def _kind(node: Any) -> str:
    return "a list" if isinstance(node, (list, tuple)) else type(node).__name__


def _check_images(name: str, nested: list[Any], sizes: Sequence[Size]) -> None:
    if len(nested) != len(sizes):
        raise ValueError(f"{name} must be for as many images as there are, {len(sizes)}; got {len(nested)}")


def _labels_of(labels: list[Any], count: int, image: int, place: int) -> list[Any]:
    if len(labels) != count:
        raise ValueError(
            f"input_labels must have one label for each point: object {place} of image {image} has "
            f"{count} points and {len(labels)} labels"
        )
    if wrong := [label for label in labels if label not in _LABELS]:
        raise ValueError(
            f"input_labels must be among {_LABELS}; object {place} of image {image} has {wrong[0]}"
        )
    return labels


def _scale(points: np.ndarray, size: Size, target: Size) -> np.ndarray:
    """Scale points [..., 2], (x, y), from a photo of (height, width) size to the network's input."""
    factors = np.array([target[1] / size[1], target[0] / size[0]], np.float32)
    return points * factors
