"""Boxes around masks, as policies compare them: (x0, y0, x1, y1) in pixels, all edges included."""

import numpy as np

Box = tuple[float, float, float, float]


def box_of(mask: np.ndarray) -> Box | None:
    """The box around a mask, bool [H, W]; None of nothing."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def overlap(one: Box, other: Box) -> float:
    """IoU of two boxes."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    common = max(across, 0.0) * max(down, 0.0)
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other))
    return common / max(areas - common, 1e-6)
