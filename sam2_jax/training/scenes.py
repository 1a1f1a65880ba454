"""Synthetic scenes with their masks, to train and to test a small model that cuts out what is clicked on.

A scene is a picture of 3 to 8 things in front of a background. The background is one surface, or a wall and
a floor, in plain, shaded, patterned or cloudy colours. Things are painted back to front, the larger ones
mostly first, and hide one another. Each has a shape (ovals, boxes, polygons, blobs, stars, rings, crescents,
rods and tubes, and figures put together of several, such as carts, animals and trees), a surface (colours,
pattern, relief lit from the side that the light of the scene comes from), perhaps an outline, perhaps a soft
shadow on what lies behind. Some have parts of another look: a wheel, a window, a patch, a band. Specks too
small to be things lie about, and the picture is finished as a camera would: blur, grain, tone, JPEG.

The masks are what can be seen of the things and of their parts. A thing or part of which too little can be
seen is painted but has no mask. Where a thing would hardly stand out from what lies behind it, it gets an
outline, so that every mask has an edge to be found.

Everything is drawn in units of the picture's side, and the random numbers that compose a scene do not depend
on the side in pixels: a scene has the same composition at every size, up to rounding where a choice is close
(an outline, the place of a part, a mask at the limit of what is too small).
"""

import colorsys
import io
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

MIN_SIZE = 32
MIN_OBJECT = 0.008  # visible share of the picture
MIN_PART = 0.005
MIN_VISIBLE = 0.25  # share of its own area
MAX_OF_PARENT = 0.6  # a part that covers more cannot be told from the thing itself by a click
_RELIEF_CELLS = 40  # along a thing's longer side; relief is smooth, so a coarse grid will do
_MIN_WIDTH = 0.04  # of thin things
_MIN_PERIOD = 0.03  # of patterns, in picture sides: finer ones would turn to moiré at 256 pixels
_FAINT = 0.1  # difference of colour, of 1, below which an edge is hard to see


class Scene(NamedTuple):
    """A picture and the visible areas of the N >= 1 things in it, each followed by its parts.

    image: uint8 [H, W, 3]. masks: bool [N, H, W]; the mask of a thing includes its parts. parents: int [N],
    -1 for a thing, otherwise the index of the thing that this part belongs to.
    """

    image: np.ndarray
    masks: np.ndarray
    parents: np.ndarray


def make_scene(seed: int, index: int, size: int = 256) -> Scene:
    """Paint scene number `index` >= 0 of the stream `seed` >= 0, square, `size` pixels a side.

    The same numbers give the same scene, byte for byte; streams of different seeds have no scene in common.
    Raises ValueError for negative numbers or a size below 32.
    """
    for name, value, least in (("seed", seed, 0), ("index", index, 0), ("size", size, MIN_SIZE)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    for attempt in count():  # hardly ever a second: it takes that nothing in a scene is large enough
        image, masks, parents = _paint_scene(np.random.default_rng((seed, index, attempt)), size)
        if masks:
            return Scene(image, np.stack(masks), np.array(parents))
    raise AssertionError("unreachable")


class _Mood(NamedTuple):
    """What the things of a scene have in common."""

    hue: float
    spread: float  # of hues around it
    light: np.ndarray  # [2], (x, y) towards the light


class _Piece(NamedTuple):
    """A polygon [K, 2] of (x, y) that adds to a shape, or cuts a hole into what was added before."""

    points: np.ndarray
    hole: bool = False
    part: bool = False  # may have a look of its own


class _Sprite(NamedTuple):
    """A thing ready to be put into a picture, in a window of its own."""

    left: int
    top: int
    colour: np.ndarray  # float32 [3, h, w], 0 to 1
    coverage: np.ndarray  # float32 [h, w], 0 to 1
    layer: np.ndarray  # int [h, w]: 0 the body, i its part i, -1 outside


def _paint_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), -abs(math.sin(angle))])  # from above
    mood = _Mood(rng.uniform(), float(rng.choice([0.1, 0.5, 0.5])), light)
    canvas = _background(rng.spawn(1)[0], mood, size)
    owner = np.zeros((size, size), np.int16)  # 0 the background, else number of a body or part
    full_areas: list[list[int]] = []  # of each thing's body with parts, then of the parts
    sizes = np.exp(rng.uniform(math.log(0.14), math.log(0.7), rng.integers(3, 9)))
    sizes = sizes[np.argsort(-sizes * np.exp(rng.normal(0, 0.5, len(sizes))))]
    centres: list[np.ndarray] = []
    for child, extent in zip(rng.spawn(len(sizes)), sizes, strict=True):
        centres.append(_place(child, centres))
        _specks(child, canvas, mood)
        sprite = _sprite(child, canvas, mood, centres[-1], extent)
        if child.uniform() < 0.5:
            _cast_shadow(child, canvas, sprite, mood.light)
        _put(child, canvas, sprite)
        first = 1 + sum(map(len, full_areas))
        inside, window = _clip(sprite, size)
        seen = sprite.layer[inside]
        owner[window][seen >= 0] = first + seen[seen >= 0]
        areas = np.bincount(sprite.layer[sprite.layer >= 0], minlength=1).tolist()
        full_areas.append([sum(areas), *areas[1:]])
    _specks(rng, canvas, mood)
    masks, parents = _visible(owner, full_areas)
    return _finish(rng, canvas), masks, parents


def _visible(owner: np.ndarray, full_areas: list[list[int]]) -> tuple[list[np.ndarray], list[int]]:
    """The masks of all things and parts of which enough is seen, with the index of each one's parent."""
    masks: list[np.ndarray] = []
    parents: list[int] = []
    shown = np.bincount(owner.ravel(), minlength=1 + sum(map(len, full_areas)))
    first = 1
    for areas in full_areas:
        numbers = range(first, first + len(areas))
        first += len(areas)
        area = shown[numbers.start : numbers.stop].sum()
        if area < max(MIN_OBJECT * owner.size, MIN_VISIBLE * areas[0]):
            continue
        parent = len(masks)
        masks.append((owner >= numbers.start) & (owner < numbers.stop))
        parents.append(-1)
        for number, full in zip(numbers[1:], areas[1:], strict=True):
            least = max(MIN_PART * owner.size, MIN_VISIBLE * full)
            if least <= shown[number] <= MAX_OF_PARENT * area:
                masks.append(owner == number)
                parents.append(parent)
    return masks, parents


def _place(rng: np.random.Generator, taken: Sequence[np.ndarray]) -> np.ndarray:
    """Of two places the one farther from the things already there: some overlap, not a heap."""
    places = rng.uniform(0.06, 0.94, (2, 2))
    if not taken:
        return places[0]
    gaps = np.linalg.norm(places[:, None] - np.array(taken), axis=-1).min(axis=1)
    return places[gaps.argmax()]


# Shapes: pieces within about -0.5 to 0.5. `thin` is the least width of anything, in the same unit.


_ANGLES = np.linspace(0, 2 * math.pi, 72, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)


def _oval(x: float, y: float, width: float, height: float, power: float = 2.0) -> np.ndarray:
    """An ellipse; with a higher power a box with round corners."""
    outline = _CIRCLE if power == 2 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power)
    return outline * (width / 2, height / 2) + (x, y)


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2) + (x, y)


def _radial(radii: np.ndarray, angles: np.ndarray | None = None) -> np.ndarray:
    if angles is None:
        angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


def _plain(rng: np.random.Generator, thin: float) -> list[_Piece]:
    width, height = 1, rng.uniform(0.4, 1)
    kind = rng.integers(3)
    if kind == 0:
        return [_Piece(_oval(0, 0, width, height))]
    if kind == 1:
        return [_Piece(_oval(0, 0, width, height, power=rng.uniform(3, 10)))]
    return [_Piece(_box(0, 0, width, height))]


def _polygon(rng: np.random.Generator, thin: float) -> list[_Piece]:
    corners = rng.integers(3, 9)
    if rng.uniform() < 0.4:
        return [_Piece(_radial(np.full(corners, 0.5)))]
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * math.pi / corners
    return [_Piece(_radial(rng.uniform(0.3, 0.55, corners), angles))]


def _blob(rng: np.random.Generator, thin: float) -> list[_Piece]:
    radii = np.full(len(_ANGLES), 0.45)
    for wave in range(2, 7):
        radii += rng.normal(0, 0.13 / wave) * np.cos(wave * _ANGLES + rng.uniform(0, 2 * math.pi))
    return [_Piece(_radial(radii.clip(0.15)))]


def _star(rng: np.random.Generator, thin: float) -> list[_Piece]:
    rays = rng.integers(4, 9)
    return [_Piece(_radial(np.tile([0.5, rng.uniform(0.2, 0.36)], rays)))]


def _ring(rng: np.random.Generator, thin: float) -> list[_Piece]:
    height = rng.uniform(0.7, 1)
    hole = min(rng.uniform(0.45, 0.75), 1 - 2 * thin / height)
    power = rng.choice([2.0, 5.0])
    return [_Piece(_oval(0, 0, 1, height, power)), _Piece(_oval(0, 0, hole, hole * height, power), hole=True)]


def _crescent(rng: np.random.Generator, thin: float) -> list[_Piece]:
    hole = _oval(rng.uniform(0.25, 0.45), 0, rng.uniform(0.7, 0.95), 0.9)
    return [_Piece(_oval(0, 0, 1, 1)), _Piece(hole, hole=True)]


def _letter(rng: np.random.Generator, thin: float) -> list[_Piece]:
    """An L, T or cross."""
    width = max(rng.uniform(0.2, 0.35), thin)
    place = rng.choice([width / 2 - 0.5, 0.0])
    return [_Piece(_box(place, 0, width, 1)), _Piece(_box(0, rng.uniform(-0.5, 0.5) * (1 - width), 1, width))]


def _tube(rng: np.random.Generator, thin: float) -> list[_Piece]:
    """A rod, or a line that winds, with round ends."""
    width = max(rng.uniform(0.03, 0.14), thin)
    bend = rng.choice([0, 1]) * rng.uniform(0.4, 1.4)
    along = np.linspace(0, 1, 48)
    heading = bend * np.sin(rng.uniform(2, 7) * along + rng.uniform(0, 2 * math.pi))
    line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=0) / 48
    line -= (line.max(axis=0) + line.min(axis=0)) / 2
    across = np.stack([-np.sin(heading), np.cos(heading)], axis=-1) * width / 2
    ends = [_Piece(_oval(line[i, 0], line[i, 1], width, width)) for i in (0, -1)]
    return [_Piece(np.concatenate([line + across, (line - across)[::-1]])), *ends]


def _cart(rng: np.random.Generator, thin: float) -> list[_Piece]:
    wheel, roof = rng.uniform(0.22, 0.32), rng.uniform(0.3, 0.65)
    cabin = _Piece(_oval(rng.uniform(-0.15, 0.15), -0.2, roof, 0.36, power=4), part=rng.uniform() < 0.3)
    body = _Piece(_oval(0, 0.02, 1, rng.uniform(0.25, 0.34), power=6))
    return [cabin, body, *(_Piece(_oval(x, 0.2, wheel, wheel), part=True) for x in (-0.29, 0.29))]


def _animal(rng: np.random.Generator, thin: float) -> list[_Piece]:
    leg, head = max(rng.uniform(0.07, 0.12), thin), rng.uniform(0.22, 0.32)
    legs = [_Piece(_box(x, 0.28, leg, 0.38)) for x in (-0.24, -0.1, 0.12, 0.25)[:: rng.choice([1, 3])]]
    tail = _tube(rng, max(thin, 0.06))[0].points * 0.5 + (-0.42, rng.uniform(-0.15, 0.05))
    body = _Piece(_oval(0, 0.02, rng.uniform(0.62, 0.72), rng.uniform(0.28, 0.38), power=2.4))
    neck = _Piece(_box(0.3, -0.08, max(0.13, thin), 0.3))
    return [*legs, _Piece(tail), body, neck, _Piece(_oval(0.37, -0.24, head * 1.15, head), part=True)]


def _plant(rng: np.random.Generator, thin: float) -> list[_Piece]:
    """A tree or a flower."""
    stem = _Piece(_box(0, 0.25, max(rng.uniform(0.06, 0.16), thin), 0.5), part=rng.uniform() < 0.5)
    if rng.uniform() < 0.5:
        points = _blob(rng, thin)[0].points * (0.75, 0.6) + (0, -0.2)
        return [stem, _Piece(points, part=rng.uniform() < 0.5)]
    turns = rng.integers(5, 9)
    petals = [_Piece(_oval(x, y - 0.2, 0.25, 0.25)) for x, y in _radial(np.full(turns, 0.19))]
    return [stem, *petals, _Piece(_oval(0, -0.2, 0.24, 0.24), part=True)]


def _person(rng: np.random.Generator, thin: float) -> list[_Piece]:
    leg = max(rng.uniform(0.09, 0.13), thin)
    trunk = _Piece(_oval(0, -0.08, rng.uniform(0.28, 0.4), 0.42, power=4), part=rng.uniform() < 0.6)
    legs = [_Piece(_box(x, 0.3, leg, 0.42)) for x in (-0.09, 0.09)]
    arms = _Piece(_box(0, rng.uniform(-0.22, -0.05), rng.uniform(0.5, 0.7), max(0.08, thin)))
    return [*legs, arms, trunk, _Piece(_oval(0, -0.38, 0.22, 0.24), part=True)]


def _vessel(rng: np.random.Generator, thin: float) -> list[_Piece]:
    """A bottle with its neck, or a mug with its handle."""
    if rng.uniform() < 0.5:
        neck, cap = _Piece(_box(0, -0.28, 0.16, 0.4)), _Piece(_box(0, -0.43, 0.2, 0.14), part=True)
        return [neck, _Piece(_oval(0, 0.16, rng.uniform(0.35, 0.5), 0.66, power=5)), cap]
    handle = [_Piece(_oval(0.25, 0, 0.5, 0.5)), _Piece(_oval(0.25, 0, 0.28, 0.28), hole=True)]
    return [*handle, _Piece(_oval(-0.12, 0, 0.62, rng.uniform(0.65, 0.95), power=7))]


def _union(rng: np.random.Generator, thin: float) -> list[_Piece]:
    pieces = _SHAPES[rng.integers(3)](rng, thin)
    for _ in range(rng.integers(1, 4)):
        added = _SHAPES[rng.integers(3)](rng, thin)[0].points * rng.uniform(0.35, 0.6)
        pieces.append(_Piece(added + rng.uniform(-0.4, 0.4, 2), part=rng.uniform() < 0.4))
    return pieces


_SHAPES: tuple[Callable[[np.random.Generator, float], list[_Piece]], ...] = (
    *(_plain, _blob, _polygon, _star, _ring, _crescent, _letter, _tube, _tube),
    *(_cart, _animal, _plant, _person, _vessel, _union, _plain, _blob),
)
_UPRIGHT = (_cart, _animal, _plant, _person, _vessel)


def _shape(rng: np.random.Generator, centre: np.ndarray, extent: float) -> list[_Piece]:
    """Pieces in units of the picture of a thing about `extent` long."""
    draw = _SHAPES[rng.integers(len(_SHAPES))]
    pieces = draw(rng, _MIN_WIDTH / extent)
    turn = rng.normal(0, 0.25) if draw in _UPRIGHT else rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([(cos, sin), (-sin, cos)]) * extent
    matrix[0] *= rng.choice([-1, 1])
    return [piece._replace(points=piece.points @ matrix + centre) for piece in pieces]


# Surfaces


def _colour(rng: np.random.Generator, mood: _Mood) -> np.ndarray:
    """A colour [3, 1, 1] of the scene's palette."""
    hue = (mood.hue + rng.uniform(-1, 1) * mood.spread) % 1
    colour = colorsys.hsv_to_rgb(hue, rng.beta(1.2, 1.8), rng.uniform(0.15, 0.97))
    return np.array(colour, np.float32).reshape(3, 1, 1)


def _variant(rng: np.random.Generator, colour: np.ndarray, least: float, most: float) -> np.ndarray:
    """A colour lighter or darker by `least` to `most`, a little off in hue."""
    step = rng.uniform(least, most) * rng.choice([-1, 1])
    if not 0 <= colour.mean() + step <= 1:
        step = -step
    return (colour + step + rng.normal(0, 0.06, (3, 1, 1))).clip(0, 1).astype(np.float32)


def _resized(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _noise(rng: np.random.Generator, height: int, width: int, coarse: Any, octaves: int) -> np.ndarray:
    """Smooth noise, float32 [height, width] around 0.5, mostly within 0 to 1, each octave half as strong."""
    grid = rng.standard_normal((coarse, coarse), np.float32)
    for octave in range(1, octaves):
        side = coarse * 2**octave
        grid = _resized(grid, side, side) + rng.standard_normal((side, side), np.float32) * 0.6**octave
    grid = 0.5 + (grid - grid.mean()) / (4 * grid.std())
    return _resized(grid, height, width)


_PATTERNS = (
    "flat",
    "flat",
    "ramp",
    "ramp",
    "smooth",
    "cloudy",
    "cloudy",
    "patches",
    "stripes",
    "checker",
    "dots",
)


def _pattern(rng: np.random.Generator, height: int, width: int, extent: float) -> np.ndarray | None:
    """A field [height, width], 0 to 1, that mixes two colours; None where there is but one.

    extent: what height or width, whichever is longer, spans in picture sides.
    """
    kind = _PATTERNS[rng.integers(len(_PATTERNS))]
    cycles = min(rng.uniform(2, 9), extent / _MIN_PERIOD)
    turn, sharp = rng.uniform(0, math.pi), float(rng.choice([1, 4]))
    if kind == "flat" or (cycles < 2 and kind in ("stripes", "checker", "dots")):
        return None
    if kind in ("smooth", "cloudy"):
        coarse, octaves = (rng.integers(3, 7), 1) if kind == "smooth" else (3, 5)
        return _noise(rng, height, width, coarse, octaves).clip(0, 1)
    if kind == "patches":
        return ((_noise(rng, height, width, rng.integers(3, 8), 1) - 0.5) * 12 + 0.5).clip(0, 1)
    longer = max(height, width)
    x = np.arange(width, dtype=np.float32)[None] / longer
    y = np.arange(height, dtype=np.float32)[:, None] / longer
    across = math.cos(turn) * x + math.sin(turn) * y
    if kind == "ramp":
        return (across - across.min()) / max(np.ptp(across), 1e-6)
    waves = np.sin(2 * math.pi * cycles * across)
    if kind == "stripes":
        return (0.5 + 0.5 * sharp * waves).clip(0, 1)
    waves *= np.sin(2 * math.pi * cycles * (math.cos(turn) * y - math.sin(turn) * x))
    if kind == "checker":
        return (0.5 + 4 * waves).clip(0, 1)
    return (6 * (np.abs(waves) - 0.5)).clip(0, 1)


def _surface(
    rng: np.random.Generator, colours: Sequence[np.ndarray], height: int, width: int, extent: float
) -> np.ndarray:
    """Colours float32 [3, height, width]: the first, patterned with the second."""
    field = _pattern(rng, height, width, extent)
    if field is None:
        return np.tile(colours[0], (1, height, width))
    return colours[0] + (colours[1] - colours[0]) * field


def _background(rng: np.random.Generator, mood: _Mood, size: int) -> np.ndarray:
    """Colours float32 [3, size, size] of one surface, or of two that meet in a horizon."""

    def region() -> np.ndarray:
        base = _colour(rng, mood).clip(0.1, 0.95)  # things shall be seen on it
        other = _colour(rng, mood) if rng.uniform() < 0.3 else _variant(rng, base, 0.05, 0.3)
        surface = _surface(rng, (base, other), size, size, 1)
        if rng.uniform() < 0.5:
            tint = (_colour(rng, mood) - base) * rng.uniform(0.2, 0.7)
            surface += tint * _noise(rng, size, size, 2, 6)
        return surface

    canvas = region()
    if rng.uniform() < 0.35:
        across, down = np.linspace(0, 1, size, dtype=np.float32), np.linspace(0, 1, size, dtype=np.float32)
        edge = rng.uniform(0.25, 0.75) + rng.normal(0, 0.1) * (across - 0.5)
        below = ((down[:, None] - edge) * size + 0.5).clip(0, 1)
        canvas += (region() - canvas) * below
    return canvas.clip(0, 1)


def _depth(coverage: np.ndarray) -> np.ndarray:
    """How deep inside the shape each cell of a coarse grid lies, in cells, float64 [rows, columns]."""
    height, width = coverage.shape
    scale = _RELIEF_CELLS / max(height, width)
    rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
    coarse = np.asarray(Image.fromarray(coverage).resize((columns, rows), Image.Resampling.BOX))
    inside = np.zeros((rows + 2, columns + 2), bool)
    inside[1:-1, 1:-1] = coarse > 0.5
    return ndimage.distance_transform_edt(inside)[1:-1, 1:-1]


def _relief(depth: np.ndarray, light: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much each pixel of a domed shape faces the light, float32 [height, width], -1 to 1."""
    deepest = max(depth.max(), 1)
    dome = ndimage.uniform_filter(np.sqrt(1 - (1 - depth / deepest) ** 2) * deepest, 3)
    down, across = np.gradient(dome)
    facing = -(across * light[0] + down * light[1]) / np.sqrt(1 + across**2 + down**2)
    return _resized(facing.astype(np.float32), height, width)


def _coverage(pieces: Sequence[_Piece], window: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Share of each pixel of a window (left, top, width, height) that the shape covers, float32 [h, w]."""
    left, top, width, height = window
    image = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(image)
    for piece in pieces:
        points = (piece.points * size - (left, top)) * 2 - 0.5
        pen.polygon(points.ravel().tolist(), fill=0 if piece.hole else 255)
    return np.asarray(image.reduce(2), np.float32) / 255


def _window(pieces: Sequence[_Piece], size: int) -> tuple[int, int, int, int]:
    """The window (left, top, width, height) that holds a shape and a margin, in pixels."""
    margin = _thickness(size) + 1  # lines along edges are found by shifting the shape
    points = np.concatenate([piece.points for piece in pieces if not piece.hole]) * size
    left, top = (np.floor(points.min(axis=0)) - margin).astype(int).tolist()
    right, bottom = (np.ceil(points.max(axis=0)) + margin).astype(int).tolist()
    return left, top, right - left, bottom - top


def _rim(coverage: np.ndarray, thickness: int) -> np.ndarray:
    """Coverage of a line along the inside of a shape's edge."""
    inner = coverage.copy()
    for axis in (0, 1):
        for step in (thickness, -thickness):
            inner = np.minimum(inner, np.roll(coverage, step, axis))
    return coverage - inner


def _thickness(size: int) -> int:
    """The most that a line along an edge measures in a picture of a size, in pixels."""
    return max(1, size // 85)


def _outline(
    rng: np.random.Generator, colour: np.ndarray, coverage: np.ndarray, around: np.ndarray, most: int
) -> None:
    """Draw a line, at most `most` pixels wide, along the edge, to stand out from the colours around it."""
    bright = around.mean() > 0.45
    line = colour.mean(axis=(1, 2), keepdims=True) * 0.3 + (rng.uniform(0, 0.1) if bright else 0.65)
    rim = _rim(coverage, max(1, min(round(max(coverage.shape) * 0.02), most)))
    colour += (line.clip(0, 1) - colour) * rim.clip(0, 1)


def _put_part(
    rng: np.random.Generator, colour: np.ndarray, layer: np.ndarray, coverage: np.ndarray, extent: float
) -> None:
    """Paint one more part, of another look, onto a thing's body; changes colour and layer."""
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    if not rows.size:
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    cover, under = coverage[window], colour[:, *window]
    height, width = cover.shape
    base = _variant(rng, under[:, cover > 0].mean(axis=1).reshape(3, 1, 1), 0.25, 0.55)
    size = round(max(coverage.shape) / extent)
    span = max(height, width) / size
    surface = _surface(rng, (base, _variant(rng, base, 0.08, 0.25)), height, width, span)
    if rng.uniform() < 0.3:
        _outline(rng, surface, cover, under[:, cover > 0], _thickness(size))
    under += (surface - under) * cover
    layer[window][(cover >= 0.5) & (layer[window] >= 0)] = layer.max() + 1


def _sprite(
    rng: np.random.Generator, canvas: np.ndarray, mood: _Mood, centre: np.ndarray, extent: float
) -> _Sprite:
    """A thing with its surface and parts, to be put at a place of a canvas."""
    size = canvas.shape[-1]
    pieces = _shape(rng, centre, extent)
    window = left, top, width, height = _window(pieces, size)
    coverage = _coverage(pieces, window, size)
    base = _colour(rng, mood)
    if rng.uniform() < 0.15:  # in disguise
        x, y = (centre * size).astype(int)
        base = _variant(rng, canvas[:, y, x].reshape(3, 1, 1), 0.05, 0.15)
    other = _colour(rng, mood) if rng.uniform() < 0.3 else _variant(rng, base, 0.12, 0.4)
    extent = max(width, height) / size
    colour = _surface(rng, (base, other), height, width, extent)
    layer = np.where(coverage >= 0.5, 0, -1)
    wants_parts, look, strength = (
        rng.uniform() < 0.7,
        rng.integers(2**32),
        float(rng.choice([0, 0.25, 0.5, 0.8])),
    )
    depth = _depth(coverage) if wants_parts or strength else np.zeros((1, 1))
    for piece in pieces:
        if piece.part and wants_parts:
            cover = _coverage([piece], window, size) * coverage
            _put_part(np.random.default_rng(look), colour, layer, cover, extent)  # wheels look alike
    if wants_parts and layer.max() == 0:
        for child in rng.spawn(int(rng.integers(1, 4))):
            part = _part_shape(child, depth, extent, (left / size, top / size))
            if part is not None:
                cover = _coverage([part], window, size) * coverage
                _put_part(child, colour, layer, cover, extent)
    if strength:
        facing = _relief(depth, mood.light, height, width)
        colour *= 1 + strength * facing
        colour += (facing - 0.5).clip(0) * float(rng.choice([0, 0, 0.8]))  # a highlight
    if rng.uniform() < 0.2:
        _outline(rng, colour, coverage, colour.mean(axis=(1, 2)), _thickness(size))
    return _Sprite(left, top, colour.clip(0, 1, out=colour), coverage, layer)


def _part_shape(
    rng: np.random.Generator, depth: np.ndarray, extent: float, corner: tuple[float, float]
) -> _Piece | None:
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
    matrix = np.array([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
    place = (column + 0.5) * cell + corner[0], (row + 0.5) * cell + corner[1]
    return _Piece(points @ matrix + place)


def _clip(sprite: _Sprite, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What of a sprite lies within the picture, as slices of the sprite and of the picture."""
    height, width = sprite.coverage.shape
    top, left = max(sprite.top, 0), max(sprite.left, 0)
    bottom, right = max(min(sprite.top + height, size), top), max(min(sprite.left + width, size), left)
    inside = slice(top - sprite.top, bottom - sprite.top), slice(left - sprite.left, right - sprite.left)
    return inside, (slice(top, bottom), slice(left, right))


def _put(rng: np.random.Generator, canvas: np.ndarray, sprite: _Sprite) -> None:
    """Blend a sprite into a canvas [3, H, W], outlined if it would hardly be seen."""
    inside, window = _clip(sprite, canvas.shape[-1])
    behind, colour, coverage = canvas[:, *window], sprite.colour[:, *inside], sprite.coverage[inside]
    blend = behind + (colour - behind) * coverage
    if _is_faint(blend[:, ::2, ::2], coverage[::2, ::2], reach=max(1, canvas.shape[-1] // 200)):
        _outline(rng, sprite.colour, sprite.coverage, behind[:, coverage == 0], _thickness(canvas.shape[-1]))
        blend = behind + (colour - behind) * coverage
    behind[...] = blend


def _is_faint(colour: np.ndarray, coverage: np.ndarray, reach: int) -> bool:
    """Whether much of a shape's edge has almost the same colour `reach` pixels apart across it."""
    faint = edge = 0
    full, empty = coverage > 0.95, coverage < 0.05
    for axis in (0, 1):
        near, far = [slice(None)] * 2, [slice(None)] * 2
        near[axis], far[axis] = slice(reach, None), slice(None, -reach)
        here, there = tuple(near), tuple(far)
        pairs = (full[here] & empty[there]) | (empty[here] & full[there])
        difference = np.abs(colour[:, *here][:, pairs] - colour[:, *there][:, pairs]).max(axis=0)
        faint += int((difference < _FAINT).sum())
        edge += len(difference)
    return faint > 0.3 * edge


def _cast_shadow(rng: np.random.Generator, canvas: np.ndarray, sprite: _Sprite, light: np.ndarray) -> None:
    """Darken what lies behind a thing, away from the light."""
    size = canvas.shape[-1]
    shift, softness, strength = rng.uniform(0.01, 0.04), rng.uniform(0.004, 0.02), rng.uniform(0.25, 0.6)
    pad, shrink = math.ceil(softness * size * 2.5), max(1, size // 64)
    height, width = sprite.coverage.shape
    full = Image.new("L", (width + 2 * pad, height + 2 * pad))
    full.paste(Image.fromarray((sprite.coverage * 255).astype(np.uint8)), (pad, pad))
    shade = full.reduce(shrink).filter(ImageFilter.BoxBlur(1.7 * softness * size / shrink))
    dark = np.asarray(shade.resize(full.size, Image.Resampling.BILINEAR), np.float32) * (strength / 255)
    x, y = (-light * shift * size).round().astype(int).tolist()
    cast = _Sprite(sprite.left + x - pad, sprite.top + y - pad, sprite.colour, dark, sprite.layer)
    inside, window = _clip(cast, size)
    canvas[:, *window] *= 1 - dark[inside]


def _specks(rng: np.random.Generator, canvas: np.ndarray, mood: _Mood) -> None:
    """Scatter a few dots and strokes, too small to be things."""
    size = canvas.shape[-1]
    for _ in range(rng.poisson(0.6)):
        length, turn = rng.uniform(0.008, 0.03), rng.uniform(0, 2 * math.pi)
        points = _oval(0, 0, length, min(length * rng.uniform(0.2, 1), 0.02))
        matrix = np.array([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
        pieces = [_Piece(points @ matrix + rng.uniform(0, 1, 2))]
        window = _window(pieces, size)
        coverage = _coverage(pieces, window, size)
        speck = _Sprite(window[0], window[1], _colour(rng, mood), coverage, coverage)
        inside, place = _clip(speck, size)
        canvas[:, *place] += (speck.colour - canvas[:, *place]) * coverage[inside]


def _finish(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What a camera makes of a canvas [3, H, W]: uint8 [H, W, 3] with its vignette, grain, blur and tone."""
    size = canvas.shape[-1]
    vignette, grain = float(rng.choice([0, 0, 0.3, 0.6])), rng.uniform(0, 0.035) * float(rng.choice([0, 1]))
    blur, quality = rng.uniform(0.2, 1) * float(rng.choice([0, 1])), rng.integers(45, 95)
    gamma, contrast, shift = np.exp(rng.normal(0, 0.25)), rng.uniform(0.75, 1.15), rng.normal(0, 0.05, 3)
    is_gray, is_jpeg = rng.uniform() < 0.05, rng.uniform() < 0.3
    if vignette:
        falloff = 1 - vignette * np.linspace(-1, 1, size, dtype=np.float32) ** 2 / 2
        canvas *= falloff[:, None] * falloff
    image = Image.merge(
        "RGB", [Image.fromarray(c) for c in (canvas.clip(0, 1, out=canvas) * 255).astype(np.uint8)]
    )
    if blur:
        image = image.filter(ImageFilter.BoxBlur(blur * size / 256))
    levels = np.linspace(0, 1, 256)
    tones = [((levels**gamma - 0.5) * contrast + 0.5 + shift[i]).clip(0, 1) * 255 for i in range(3)]
    image = image.point(np.concatenate(tones).round().astype(int).tolist())
    if is_gray:
        image = image.convert("L").convert("RGB")
    if grain:  # drawn last: as many numbers as there are pixels
        noise = rng.standard_normal((size, size, 1), np.float32) * (grain * 255)
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    if is_jpeg:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        image = Image.open(file)
    return np.array(image)
