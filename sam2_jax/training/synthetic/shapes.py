"""The outlines of the things in a synthetic scene, and of their parts: polygons that add up to a shape."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_MIN_WIDTH = 0.04  # of thin things


class Piece(NamedTuple):
    """A polygon [K, 2] of (x, y) that adds to a shape, or cuts a hole into what was added before."""

    points: np.ndarray
    hole: bool = False
    part: bool = False  # may have a look of its own


# Shapes lie within about -0.5 to 0.5. `thin` is the least width of anything, in the same unit.


_ANGLES = np.linspace(0, 2 * math.pi, 72, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)


def oval(x: float, y: float, width: float, height: float, power: float = 2.0) -> np.ndarray:
    """An ellipse; with a higher power a box with round corners."""
    outline = _CIRCLE if power == 2 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power)
    return outline * (width / 2, height / 2) + (x, y)


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2) + (x, y)


def rotation(turn: float) -> np.ndarray:
    """The matrix by which points [K, 2] are multiplied from the right to be turned."""
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([(cos, sin), (-sin, cos)])


def _radial(radii: np.ndarray, angles: np.ndarray | None = None) -> np.ndarray:
    if angles is None:
        angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


def _plain(rng: np.random.Generator, thin: float) -> list[Piece]:
    width, height = 1, rng.uniform(0.4, 1)
    kind = rng.integers(3)
    if kind == 0:
        return [Piece(oval(0, 0, width, height))]
    if kind == 1:
        return [Piece(oval(0, 0, width, height, power=rng.uniform(3, 10)))]
    return [Piece(_box(0, 0, width, height))]


def _polygon(rng: np.random.Generator, thin: float) -> list[Piece]:
    corners = rng.integers(3, 9)
    if rng.uniform() < 0.4:
        return [Piece(_radial(np.full(corners, 0.5)))]
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * math.pi / corners
    return [Piece(_radial(rng.uniform(0.3, 0.55, corners), angles))]


def _blob(rng: np.random.Generator, thin: float) -> list[Piece]:
    radii = np.full(len(_ANGLES), 0.45)
    for wave in range(2, 7):
        radii += rng.normal(0, 0.13 / wave) * np.cos(wave * _ANGLES + rng.uniform(0, 2 * math.pi))
    return [Piece(_radial(radii.clip(0.15)))]


def _star(rng: np.random.Generator, thin: float) -> list[Piece]:
    rays = rng.integers(4, 9)
    return [Piece(_radial(np.tile([0.5, rng.uniform(0.2, 0.36)], rays)))]


def _ring(rng: np.random.Generator, thin: float) -> list[Piece]:
    height = rng.uniform(0.7, 1)
    hole = min(rng.uniform(0.45, 0.75), 1 - 2 * thin / height)
    power = rng.choice([2.0, 5.0])
    return [Piece(oval(0, 0, 1, height, power)), Piece(oval(0, 0, hole, hole * height, power), hole=True)]


def _crescent(rng: np.random.Generator, thin: float) -> list[Piece]:
    hole = oval(rng.uniform(0.25, 0.45), 0, rng.uniform(0.7, 0.95), 0.9)
    return [Piece(oval(0, 0, 1, 1)), Piece(hole, hole=True)]


def _letter(rng: np.random.Generator, thin: float) -> list[Piece]:
    """An L, T or cross."""
    width = max(rng.uniform(0.2, 0.35), thin)
    place = rng.choice([width / 2 - 0.5, 0.0])
    return [Piece(_box(place, 0, width, 1)), Piece(_box(0, rng.uniform(-0.5, 0.5) * (1 - width), 1, width))]


def _tube(rng: np.random.Generator, thin: float) -> list[Piece]:
    """A rod, or a line that winds, with round ends."""
    width = max(rng.uniform(0.03, 0.14), thin)
    bend = rng.choice([0, 1]) * rng.uniform(0.4, 1.4)
    along = np.linspace(0, 1, 48)
    heading = bend * np.sin(rng.uniform(2, 7) * along + rng.uniform(0, 2 * math.pi))
    line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=0) / 48
    line -= (line.max(axis=0) + line.min(axis=0)) / 2
    across = np.stack([-np.sin(heading), np.cos(heading)], axis=-1) * width / 2
    ends = [Piece(oval(line[i, 0], line[i, 1], width, width)) for i in (0, -1)]
    return [Piece(np.concatenate([line + across, (line - across)[::-1]])), *ends]


def _cart(rng: np.random.Generator, thin: float) -> list[Piece]:
    wheel, roof = rng.uniform(0.22, 0.32), rng.uniform(0.3, 0.65)
    cabin = Piece(oval(rng.uniform(-0.15, 0.15), -0.2, roof, 0.36, power=4), part=rng.uniform() < 0.3)
    body = Piece(oval(0, 0.02, 1, rng.uniform(0.25, 0.34), power=6))
    return [cabin, body, *(Piece(oval(x, 0.2, wheel, wheel), part=True) for x in (-0.29, 0.29))]


def _animal(rng: np.random.Generator, thin: float) -> list[Piece]:
    leg, head = max(rng.uniform(0.07, 0.12), thin), rng.uniform(0.22, 0.32)
    legs = [Piece(_box(x, 0.28, leg, 0.38)) for x in (-0.24, -0.1, 0.12, 0.25)[:: rng.choice([1, 3])]]
    tail = _tube(rng, max(thin, 0.06))[0].points * 0.5 + (-0.42, rng.uniform(-0.15, 0.05))
    body = Piece(oval(0, 0.02, rng.uniform(0.62, 0.72), rng.uniform(0.28, 0.38), power=2.4))
    neck = Piece(_box(0.3, -0.08, max(0.13, thin), 0.3))
    return [*legs, Piece(tail), body, neck, Piece(oval(0.37, -0.24, head * 1.15, head), part=True)]


def _plant(rng: np.random.Generator, thin: float) -> list[Piece]:
    """A tree or a flower."""
    stem = Piece(_box(0, 0.25, max(rng.uniform(0.06, 0.16), thin), 0.5), part=rng.uniform() < 0.5)
    if rng.uniform() < 0.5:
        points = _blob(rng, thin)[0].points * (0.75, 0.6) + (0, -0.2)
        return [stem, Piece(points, part=rng.uniform() < 0.5)]
    turns = rng.integers(5, 9)
    petals = [Piece(oval(x, y - 0.2, 0.25, 0.25)) for x, y in _radial(np.full(turns, 0.19))]
    return [stem, *petals, Piece(oval(0, -0.2, 0.24, 0.24), part=True)]


def _person(rng: np.random.Generator, thin: float) -> list[Piece]:
    leg = max(rng.uniform(0.09, 0.13), thin)
    trunk = Piece(oval(0, -0.08, rng.uniform(0.28, 0.4), 0.42, power=4), part=rng.uniform() < 0.6)
    legs = [Piece(_box(x, 0.3, leg, 0.42)) for x in (-0.09, 0.09)]
    arms = Piece(_box(0, rng.uniform(-0.22, -0.05), rng.uniform(0.5, 0.7), max(0.08, thin)))
    return [*legs, arms, trunk, Piece(oval(0, -0.38, 0.22, 0.24), part=True)]


def _vessel(rng: np.random.Generator, thin: float) -> list[Piece]:
    """A bottle with its neck, or a mug with its handle."""
    if rng.uniform() < 0.5:
        neck, cap = Piece(_box(0, -0.28, 0.16, 0.4)), Piece(_box(0, -0.43, 0.2, 0.14), part=True)
        return [neck, Piece(oval(0, 0.16, rng.uniform(0.35, 0.5), 0.66, power=5)), cap]
    handle = [Piece(oval(0.25, 0, 0.5, 0.5)), Piece(oval(0.25, 0, 0.28, 0.28), hole=True)]
    return [*handle, Piece(oval(-0.12, 0, 0.62, rng.uniform(0.65, 0.95), power=7))]


def _union(rng: np.random.Generator, thin: float) -> list[Piece]:
    pieces = _SHAPES[rng.integers(3)](rng, thin)
    for _ in range(rng.integers(1, 4)):
        added = _SHAPES[rng.integers(3)](rng, thin)[0].points * rng.uniform(0.35, 0.6)
        pieces.append(Piece(added + rng.uniform(-0.4, 0.4, 2), part=rng.uniform() < 0.4))
    return pieces


_SHAPES: tuple[Callable[[np.random.Generator, float], list[Piece]], ...] = (
    *(_plain, _blob, _polygon, _star, _ring, _crescent, _letter, _tube, _tube),
    *(_cart, _animal, _plant, _person, _vessel, _union, _plain, _blob),
)
_UPRIGHT = (_cart, _animal, _plant, _person, _vessel)


def random_shape(rng: np.random.Generator, centre: np.ndarray, extent: float) -> list[Piece]:
    """Pieces in units of the picture of a thing about `extent` long."""
    draw = _SHAPES[rng.integers(len(_SHAPES))]
    pieces = draw(rng, _MIN_WIDTH / extent)
    turn = rng.normal(0, 0.25) if draw in _UPRIGHT else rng.uniform(0, 2 * math.pi)
    matrix = rotation(turn) * extent
    matrix[0] *= rng.choice([-1, 1])
    return [piece._replace(points=piece.points @ matrix + centre) for piece in pieces]


def random_part(
    rng: np.random.Generator, depth: np.ndarray, extent: float, corner: tuple[float, float]
) -> Piece | None:
    """A shape well inside a thing, where its depth (in cells) allows for one; None where it is too small."""
    spots = np.argwhere(depth >= max(0.5 * depth.max(), 1))
    wanted = rng.uniform(0, depth.shape)  # a place, not a spot's number: that changes with the size in pixels
    cell = extent / max(depth.shape)
    row, column = spots[np.abs(spots - wanted).sum(axis=1).argmin()] if len(spots) else (0, 0)
    radius = depth[row, column] * cell * rng.uniform(0.6, 1.1)
    kind, turn, ratio = rng.integers(5), rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1)
    if radius < 0.035:
        return None
    if kind == 4:  # a band across the whole thing
        points = _box(0, 0, 2, min(1, 2 * radius / extent * ratio)) * extent
    else:
        points = _SHAPES[kind](rng, 0.05)[0].points * (2 * radius)
    place = (column + 0.5) * cell + corner[0], (row + 0.5) * cell + corner[1]
    return Piece(points @ rotation(turn) + place)
