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

import io
import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sam2_jax.checks import read_whole
from sam2_jax.training.synthetic.shapes import Piece, oval, random_part, random_shape, rotation
from sam2_jax.training.synthetic.surfaces import (
    Mood,
    coarse_depth,
    draw_outline,
    line_width,
    random_background,
    random_colour,
    random_surface,
    relief,
    variant,
)

MIN_SIZE = 32
_MOST_SIZE = 8192
MIN_OBJECT = 0.008  # visible share of the picture
MIN_PART = 0.005
MIN_VISIBLE = 0.25  # share of its own area
MAX_OF_PARENT = 0.6  # a part that covers more cannot be told from the thing itself by a click
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
    Raises ValueError for negative numbers and a size that is not from 32 to 8192.
    """
    seed, index = read_whole("seed", seed, 0), read_whole("index", index, 0)
    size = read_whole("size", size, MIN_SIZE, _MOST_SIZE)
    for attempt in count():  # hardly ever a second: it takes that nothing in a scene is large enough
        image, masks, parents = _paint_scene(np.random.default_rng((seed, index, attempt)), size)
        if masks:
            return Scene(image, np.stack(masks), np.array(parents))
    raise AssertionError("unreachable")


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
    mood = Mood(rng.uniform(), float(rng.choice([0.1, 0.5, 0.5])), light)
    canvas = random_background(rng.spawn(1)[0], mood, size)
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


def _coverage(pieces: Sequence[Piece], window: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Share of each pixel of a window (left, top, width, height) that the shape covers, float32 [h, w]."""
    left, top, width, height = window
    image = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(image)
    for piece in pieces:
        points = (piece.points * size - (left, top)) * 2 - 0.5
        pen.polygon(points.ravel().tolist(), fill=0 if piece.hole else 255)
    return np.asarray(image.reduce(2), np.float32) / 255


def _window(pieces: Sequence[Piece], size: int) -> tuple[int, int, int, int]:
    """The window (left, top, width, height) that holds a shape and a margin, in pixels."""
    margin = line_width(size) + 1  # lines along edges are found by shifting the shape
    points = np.concatenate([piece.points for piece in pieces if not piece.hole]) * size
    left, top = (np.floor(points.min(axis=0)) - margin).astype(int).tolist()
    right, bottom = (np.ceil(points.max(axis=0)) + margin).astype(int).tolist()
    return left, top, right - left, bottom - top


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
    base = variant(rng, under[:, cover > 0].mean(axis=1).reshape(3, 1, 1), 0.25, 0.55)
    size = round(max(coverage.shape) / extent)
    span = max(height, width) / size
    surface = random_surface(rng, (base, variant(rng, base, 0.08, 0.25)), height, width, span)
    if rng.uniform() < 0.3:
        draw_outline(rng, surface, cover, under[:, cover > 0], line_width(size))
    under += (surface - under) * cover
    layer[window][(cover >= 0.5) & (layer[window] >= 0)] = layer.max() + 1


def _sprite(
    rng: np.random.Generator, canvas: np.ndarray, mood: Mood, centre: np.ndarray, extent: float
) -> _Sprite:
    """A thing with its surface and parts, to be put at a place of a canvas."""
    size = canvas.shape[-1]
    pieces = random_shape(rng, centre, extent)
    window = left, top, width, height = _window(pieces, size)
    coverage = _coverage(pieces, window, size)
    base = random_colour(rng, mood)
    if rng.uniform() < 0.15:  # in disguise
        x, y = (centre * size).astype(int)
        base = variant(rng, canvas[:, y, x].reshape(3, 1, 1), 0.05, 0.15)
    other = random_colour(rng, mood) if rng.uniform() < 0.3 else variant(rng, base, 0.12, 0.4)
    extent = max(width, height) / size
    colour = random_surface(rng, (base, other), height, width, extent)
    layer = np.where(coverage >= 0.5, 0, -1)
    wants_parts, look, strength = (
        rng.uniform() < 0.7,
        rng.integers(2**32),
        float(rng.choice([0, 0.25, 0.5, 0.8])),
    )
    depth = coarse_depth(coverage) if wants_parts or strength else np.zeros((1, 1))
    for piece in pieces:
        if piece.part and wants_parts:
            cover = _coverage([piece], window, size) * coverage
            _put_part(np.random.default_rng(look), colour, layer, cover, extent)  # wheels look alike
    if wants_parts and layer.max() == 0:
        for child in rng.spawn(int(rng.integers(1, 4))):
            part = random_part(child, depth, extent, (left / size, top / size))
            if part is not None:
                cover = _coverage([part], window, size) * coverage
                _put_part(child, colour, layer, cover, extent)
    if strength:
        facing = relief(depth, mood.light, height, width)
        colour *= 1 + strength * facing
        colour += (facing - 0.5).clip(0) * float(rng.choice([0, 0, 0.8]))  # a highlight
    if rng.uniform() < 0.2:
        draw_outline(rng, colour, coverage, colour.mean(axis=(1, 2)), line_width(size))
    return _Sprite(left, top, colour.clip(0, 1, out=colour), coverage, layer)


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
        draw_outline(
            rng, sprite.colour, sprite.coverage, behind[:, coverage == 0], line_width(canvas.shape[-1])
        )
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


def _specks(rng: np.random.Generator, canvas: np.ndarray, mood: Mood) -> None:
    """Scatter a few dots and strokes, too small to be things."""
    size = canvas.shape[-1]
    for _ in range(rng.poisson(0.6)):
        length, turn = rng.uniform(0.008, 0.03), rng.uniform(0, 2 * math.pi)
        points = oval(0, 0, length, min(length * rng.uniform(0.2, 1), 0.02))
        pieces = [Piece(points @ rotation(turn) + rng.uniform(0, 1, 2))]
        window = _window(pieces, size)
        coverage = _coverage(pieces, window, size)
        speck = _Sprite(window[0], window[1], random_colour(rng, mood), coverage, coverage)
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
