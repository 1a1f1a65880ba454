"""Things to be put into a picture: each with its surface, its parts, its shadow, in a window of its own."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sam2_jax.training.synthetic.shapes import Piece, oval, random_part, random_shape, rotation
from sam2_jax.training.synthetic.surfaces import (
    Mood,
    coarse_depth,
    draw_outline,
    line_width,
    random_colour,
    random_surface,
    relief,
    variant,
)

_FAINT = 0.1  # difference of colour, of 1, below which an edge is hard to see


class Sprite(NamedTuple):
    """A thing ready to be put into a picture, in a window of its own."""

    left: int
    top: int
    colour: np.ndarray  # float32 [3, h, w], 0 to 1
    coverage: np.ndarray  # float32 [h, w], 0 to 1
    layer: np.ndarray  # int [h, w]: 0 the body, i its part i, -1 outside


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


def random_sprite(
    rng: np.random.Generator, canvas: np.ndarray, mood: Mood, centre: np.ndarray, extent: float
) -> Sprite:
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
    return Sprite(left, top, colour.clip(0, 1, out=colour), coverage, layer)


def clip(sprite: Sprite, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What of a sprite lies within the picture, as slices of the sprite and of the picture."""
    height, width = sprite.coverage.shape
    top, left = max(sprite.top, 0), max(sprite.left, 0)
    bottom, right = max(min(sprite.top + height, size), top), max(min(sprite.left + width, size), left)
    inside = slice(top - sprite.top, bottom - sprite.top), slice(left - sprite.left, right - sprite.left)
    return inside, (slice(top, bottom), slice(left, right))


def put(rng: np.random.Generator, canvas: np.ndarray, sprite: Sprite) -> None:
    """Blend a sprite into a canvas [3, H, W], outlined if it would hardly be seen."""
    inside, window = clip(sprite, canvas.shape[-1])
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


class Shadow(NamedTuple):
    """A soft shadow on what lies behind a thing, in picture sides. strength: the share of light it takes."""

    shift: float
    softness: float
    strength: float


def random_shadow(rng: np.random.Generator) -> Shadow:
    """The shadow of a thing."""
    return Shadow(rng.uniform(0.01, 0.04), rng.uniform(0.004, 0.02), rng.uniform(0.25, 0.6))


def shade(shadow: Shadow, coverage: Image.Image, size: int) -> tuple[Image.Image, int]:
    """How dark a shadow is, grey, of a thing's coverage, grey; and by how many pixels it is larger all round.

    size: the side of the picture in pixels.
    """
    pad, shrink = math.ceil(shadow.softness * size * 2.5), max(1, size // 64)
    full = Image.new("L", (coverage.width + 2 * pad, coverage.height + 2 * pad))
    full.paste(coverage, (pad, pad))
    dark = full.reduce(shrink).filter(ImageFilter.BoxBlur(1.7 * shadow.softness * size / shrink))
    return dark.resize(full.size, Image.Resampling.BILINEAR), pad


def shadow_offset(shadow: Shadow, light: np.ndarray, size: int) -> tuple[int, int]:
    """How far (x, y) a shadow lies from its thing, away from the light, in pixels."""
    x, y = (-light * shadow.shift * size).round().astype(int).tolist()
    return x, y


def cast_shadow(shadow: Shadow, canvas: np.ndarray, sprite: Sprite, light: np.ndarray) -> None:
    """Darken what lies behind a thing, away from the light."""
    size = canvas.shape[-1]
    dark, pad = shade(shadow, Image.fromarray((sprite.coverage * 255).astype(np.uint8)), size)
    x, y = shadow_offset(shadow, light, size)
    coverage = np.asarray(dark, np.float32) * (shadow.strength / 255)
    cast = Sprite(sprite.left + x - pad, sprite.top + y - pad, sprite.colour, coverage, sprite.layer)
    inside, window = clip(cast, size)
    canvas[:, *window] *= 1 - coverage[inside]


def scatter_specks(rng: np.random.Generator, canvas: np.ndarray, mood: Mood) -> None:
    """Scatter a few dots and strokes, too small to be things."""
    size = canvas.shape[-1]
    for _ in range(rng.poisson(0.6)):
        length, turn = rng.uniform(0.008, 0.03), rng.uniform(0, 2 * math.pi)
        points = oval(0, 0, length, min(length * rng.uniform(0.2, 1), 0.02))
        pieces = [Piece(points @ rotation(turn) + rng.uniform(0, 1, 2))]
        window = _window(pieces, size)
        coverage = _coverage(pieces, window, size)
        speck = Sprite(window[0], window[1], random_colour(rng, mood), coverage, coverage)
        inside, place = clip(speck, size)
        canvas[:, *place] += (speck.colour - canvas[:, *place]) * coverage[inside]
