"""Masks to COCO polygons along the pixels' edges, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_number, read_whole, shown
from sam2_jax.processing.components import label_components
from sam2_jax.processing.inputs import MOST_PIXELS

# Corners that are farther from the picture, in pixels, are no corners of anything in it.
_FARTHEST = 1e9


def mask_to_polygons(mask: Any, tolerance: float = 0.0, holes: bool = False) -> list[list[float]]:
    """Outlines of a boolean mask [H, W] as COCO polygons: [x0, y0, x1, y1, ...] each, in pixels.

    There is one polygon for each 8-connected part, clockwise from its topmost pixel. It runs along the
    pixels' edges (pixel 0 reaches from 0 to 1), so that nothing is lost at tolerance 0. COCO's polygons have
    no holes: they are filled, or with holes=True joined to their outline by a line there and back, which
    every even-odd rasteriser, COCO's among them, cuts out again.

    tolerance: how far, in pixels, an outline may be moved to have fewer corners (Douglas and Peucker); a part
    or hole that is thinner all along may then vanish. Raises ValueError if it is negative or mask is not [H,
    W].
    """
    mask = read_array("mask", mask, "one mask, [height, width]").astype(bool, copy=False)
    if mask.ndim != 2:
        raise ValueError(f"mask must be one mask, [height, width]; got shape {mask.shape}")
    tolerance = read_number("tolerance", tolerance)
    if tolerance < 0:
        raise ValueError(f"tolerance must be a distance in pixels, at least 0; got {tolerance:g}")
    labels, _ = label_components(mask)
    outlines: dict[int, list[np.ndarray]] = {}
    for ring in _trace(mask):
        x, y = ring[0]  # the ring's topmost, leftmost corner: right below it begins what it encloses
        is_hole = not mask[y, x]
        if is_hole and not holes:
            continue
        part = int(labels[y - 1 if is_hole else y, x])
        if tolerance > 0:
            ring = _simplify(ring, tolerance)
        if len(ring) > 2 and (not is_hole or part in outlines):
            outlines.setdefault(part, []).append(ring)
    return [_join(*rings).astype(float).ravel().tolist() for rings in outlines.values()]


def polygons_to_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The boolean mask [height, width] of COCO polygons [x0, y0, x1, y1, ...], those of one object.

    A pixel is inside if its centre is inside any of the polygons, by the even-odd rule; what lies outside the
    picture is cut off. Raises ValueError if a polygon is not at least three pairs of finite numbers.
    """
    height, width = read_whole("height", height), read_whole("width", width)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be positive; got {height} and {width}")
    if height * width > MOST_PIXELS:
        raise ValueError(f"height and width must be at most {MOST_PIXELS:,} pixels; got {height} x {width}")
    if not isinstance(polygons, (list, tuple)) and getattr(polygons, "ndim", 0) == 0:
        raise ValueError(f"polygons must be a list of polygons; got {shown(polygons)}")
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        _fill(mask, _read_corners(polygon))
    return mask


def _trace(mask: np.ndarray) -> list[np.ndarray]:
    """The closed outlines of a mask, outer ones and those of holes, int64 [corners, (x, y)] each.

    Outlines run straight from corner to corner. Along each line of the pixel grid the corners are, in turn,
    the beginning and the end of a piece of outline, horizontally as well as vertically. Where two pixels
    touch by a corner only, two outlines' corners meet; the pixels stay together. Each ring begins with its
    topmost, leftmost corner.
    """
    x, y, south = _corners(mask)
    down = np.lexsort((south, y, x))
    vertical = np.empty_like(down)  # the corner at the other end of the vertical piece
    vertical[down[0::2]], vertical[down[1::2]] = down[1::2], down[0::2]
    other_end = vertical.tolist()
    seen = bytearray(len(other_end))
    rings = []
    for start in range(0, len(other_end), 2):
        corner, ring = start, []
        while not seen[corner]:
            seen[corner] = seen[corner ^ 1] = True
            ring += [corner, corner ^ 1]  # the two ends of a horizontal piece
            corner = other_end[corner ^ 1]
        if ring:
            rings.append(np.stack([x[ring], y[ring]], axis=1))
    return rings


def _corners(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the outlines turn: x and y int64 [N], and bool [N] whether the vertical piece goes south.

    In the order of rows, so that the pairs 2i, 2i + 1 are the ends of horizontal pieces.
    """
    padded = np.pad(mask, 1)
    north_west, north_east = padded[:-1, :-1], padded[:-1, 1:]
    south_west, south_east = padded[1:, :-1], padded[1:, 1:]
    west, east = north_west ^ south_west, north_east ^ south_east  # is there an outline that way?
    south = south_west ^ south_east
    y, x = np.nonzero(west ^ east)
    # Where all four ways have one, two outlines turn. Each keeps to the outside of the pixels that touch.
    y2, x2 = np.nonzero(west & east & south)
    west_turns_south = north_west[y2, x2]
    all_y, all_x = np.concatenate([y, y2, y2]), np.concatenate([x, x2, x2])
    goes_east = np.concatenate([east[y, x], np.zeros(len(y2), bool), np.ones(len(y2), bool)])
    goes_south = np.concatenate([south[y, x], west_turns_south, ~west_turns_south])
    order = np.lexsort((goes_east, all_x, all_y))
    return all_x[order], all_y[order], goes_south[order]


def _simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave out corners of a ring [N, 2] that lie within tolerance of what is left (Douglas and Peucker)."""
    line = np.concatenate([ring, ring[:1]]).astype(float)
    farthest = int(_distances(line, line[0], line[0]).argmax())
    keep = {0, farthest}
    pieces = [(0, farthest), (farthest, len(ring))]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        distances = _distances(line[first + 1 : last], line[first], line[last])
        middle = first + 1 + int(distances.argmax())
        if distances.max() > tolerance:
            keep.add(middle)
            pieces += [(first, middle), (middle, last)]
    return ring[sorted(keep)]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances [N] of points [N, 2] from the segment between two points [2]."""
    direction = end - start
    squared = direction @ direction
    along = np.clip((points - start) @ direction / squared, 0, 1) if squared else np.zeros(len(points))
    nearest = start + along[:, None] * direction
    return np.hypot(*(points - nearest).T)


def _join(outline: np.ndarray, *holes: np.ndarray) -> np.ndarray:
    """One ring [N, 2] of an outline and its holes, each reached from the outline's first corner and back."""
    home = outline[:1]
    return np.concatenate([outline, *(part for hole in holes for part in (home, hole, hole[:1]))])


def _read_corners(polygon: Sequence[float]) -> np.ndarray:
    """Corners float64 [N, (x, y)] of one polygon, checked."""
    expected = "a list of polygons, each [x0, y0, x1, y1, x2, y2, ...], at least three finite corners"
    numbers = read_array("polygons", polygon, expected, "uif").astype(np.float64)
    is_finite = bool((np.abs(numbers) <= _FARTHEST).all())
    if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2 or not is_finite:
        raise ValueError(f"polygons must be {expected}; got {shown(polygon)}")
    return numbers.reshape(-1, 2)


def _fill(mask: np.ndarray, corners: np.ndarray) -> None:
    """Set the pixels of mask [H, W] whose centres are inside the polygon."""
    height, width = mask.shape
    edges = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    # From the top down, so that an edge walked both ways crosses rows at the very same places.
    edges = np.take_along_axis(edges, edges[..., 1:].argsort(axis=1, kind="stable"), axis=1)
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    counts = last - first  # of rows whose centres an edge crosses
    edge = np.repeat(np.arange(len(edges)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    slope = (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    # Every row is crossed an even number of times: read on row by row, inside and outside take turns.
    top, bottom = first.min(), last.max()
    crossings = np.sort((row - top) * width + column)
    runs = np.diff(np.concatenate([[0], crossings, [(bottom - top) * width]]))
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top:bottom] |= inside.reshape(-1, width)
