"""Points and boxes on the objects of one photo, checked against it and brought to one form: points."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_numbers, shown
from sam2_jax.processing.inputs import Size

Point = tuple[float, float]
Box = tuple[float, float, float, float]

NOT_A_POINT, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3
# A box may reach beyond the photo; further than so many times its longer side, it was not meant for it.
_FAR = 10


def read_points(points: Any, size: Size) -> tuple[Point, ...]:
    """Return points [N, 2], (x, y) in the photo's pixels, as tuples; none for None or [].

    Raises ValueError for other shapes and for points outside a photo of (height, width) size, whose edges
    belong to it.
    """
    array = read_numbers("points", [] if points is None else points)
    if array.size == 0:
        return ()
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"points must be a list of (x, y), such as [(500, 375)]; got an array of shape {array.shape}"
        )
    height, width = size
    for x, y in array:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"points must lie in {_photo(size)}; got ({x:g}, {y:g})")
    return tuple((float(x), float(y)) for x, y in array)


def read_labels(labels: Any, count: int) -> tuple[int, ...]:
    """Return the labels of `count` points, 1 or True on the object, 0 or False off it; all 1 for None.

    Raises ValueError for another number of labels and for other values.
    """
    if labels is None:
        return (POSITIVE,) * count
    array = read_array("labels", labels, "numbers").astype(np.float64)
    if array.shape != (count,) and array.size + count > 0:
        raise ValueError(f"labels must be one for each of {count} points; got shape {array.shape}")
    if wrong := [label for label in array.ravel().tolist() if label not in (NEGATIVE, POSITIVE)]:
        corner = wrong[0] in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
        remedy = "give a box as a box" if corner else "leave out a point that is neither"
        raise ValueError(f"labels must be 1 (on the object) or 0 (off it); got {wrong[0]:g}: {remedy}")
    return tuple(int(label) for label in array.ravel())


def read_box(box: Any, size: Size) -> Box | None:
    """Return a box (x0, y0, x1, y1) in the photo's pixels as a tuple; None for None or [].

    It may reach beyond the photo. Raises ValueError if it is empty, turned round, outside or far too large,
    and if it lies within the first pixel, as fractions of the photo do.
    """
    array = read_numbers("a box", [] if box is None else box)
    if array.size == 0:
        return None
    if array.shape != (4,):
        raise ValueError(f"a box must be (x0, y0, x1, y1); got shape {array.shape}")
    x0, y0, x1, y1 = (float(x) for x in array)
    found = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"a box must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1; got {found}: is it (x, y, width, "
            "height)?"
        )
    check_place("a box", array, size)
    if np.abs(array).max() > _FAR * max(size):
        raise ValueError(f"a box must not reach far beyond {_photo(size)}; got {found}")
    return x0, y0, x1, y1


def check_place(name: str, box: np.ndarray, size: Size, place: str = "got") -> None:
    """Raise ValueError for a box [x0, y0, x1, y1] that cannot be meant for a photo of (height, width).

    place: how the message goes on before the numbers.
    """
    x0, y0, x1, y1 = box
    found = f"{place} ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    height, width = size
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(f"{name} must cover a part of {_photo(size)}; {found}")
    if x0 >= 0 and y0 >= 0 and x1 <= 1 and y1 <= 1 and max(size) > 1:
        raise ValueError(
            f"{name} must be in pixels of {_photo(size)}; {found}, all within its first pixel: multiply "
            "fractions by the width and the height"
        )


def read_objects(
    points: Any, labels: Any, boxes: Any, size: Size, masks: Any = None
) -> tuple[list[list[Point]], list[list[int]]]:
    """Return the points, object > point > (x, y), and the labels, object > point, that say all.

    points: object > point > (x, y), labels: object > point, boxes: object > (x0, y0, x1, y1), each of them
    None if there are none at all; of one object, points are None or [] and a box is None if it has only the
    other. A box becomes its two corners, labelled 2 and 3, which mean exactly the same to the network. With
    masks, of which only the number matters here, an object may have neither: it is a single not-a-point.
    Raises ValueError, naming the object by its index, for what cannot be meant, and if there is no prompt.
    """
    given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
    for name, values in given.items():
        is_list = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
        if values is not None and not is_list and not hasattr(values, "__array__"):
            raise ValueError(f"{name} must be a list with one entry for each object; got {shown(values)}")
    counts = {name: _count(name, values) for name, values in given.items() if values is not None}
    objects = max(counts.values(), default=0)
    if objects == 0:
        raise ValueError("there is nothing to segment: give points, boxes or both")
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"points, labels, boxes and masks must have one entry for each object; got {found}")
    joined = []
    for i in range(objects):
        try:
            read = read_points(None if points is None else points[i], size)
            labels_read = read_labels(None if labels is None else labels[i], len(read))
            box = read_box(None if boxes is None else boxes[i], size)
            if not read and box is None and masks is None:
                raise ValueError("there is nothing to segment: give points, a box or both")
        except ValueError as error:
            raise ValueError(f"object {i}: {error}") from error
        joined.append(join(read, labels_read, box))
    return [points for points, _ in joined], [labels for _, labels in joined]


def join(points: Sequence[Point], labels: Sequence[int], box: Box | None) -> tuple[list[Point], list[int]]:
    """Append a box to points as its two corners; neither is a single not-a-point."""
    corners = [] if box is None else [box[:2], box[2:]]
    corner_labels = [] if box is None else [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    if not points and box is None:
        return [(0.0, 0.0)], [NOT_A_POINT]
    return [*points, *corners], [*labels, *corner_labels]


def _count(name: str, values: Any) -> int:
    try:
        return len(values)
    except Exception as error:  # an array of no dimensions; what converts itself may fail as it likes
        raise ValueError(
            f"{name} must be a list with one entry for each object; got {shown(values)}"
        ) from error


def _photo(size: Size) -> str:
    return f"the photo, which is {size[1]} x {size[0]} pixels"
