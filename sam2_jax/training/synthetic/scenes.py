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

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from sam2_jax.checks import read_whole
from sam2_jax.training.synthetic.camera import develop, random_look
from sam2_jax.training.synthetic.sprites import (
    Sprite,
    cast_shadow,
    clip,
    put,
    random_shadow,
    random_sprite,
    scatter_specks,
)
from sam2_jax.training.synthetic.surfaces import Mood, random_background

MIN_SIZE = 32
MOST_SIZE = 8192
MIN_OBJECT = 0.008  # visible share of the picture
MIN_PART = 0.005
MIN_VISIBLE = 0.25  # share of its own area
MAX_OF_PARENT = 0.6  # a part that covers more cannot be told from the thing itself by a click


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
    size = read_whole("size", size, MIN_SIZE, MOST_SIZE)
    for attempt in count():  # hardly ever a second: it takes that nothing in a scene is large enough
        image, masks, parents = _paint_scene(np.random.default_rng((seed, index, attempt)), size)
        if masks:
            return Scene(image, np.stack(masks), np.array(parents))
    raise AssertionError("unreachable")


def _paint_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    mood = random_mood(rng)
    canvas = random_background(rng.spawn(1)[0], mood, size)
    owner = np.zeros((size, size), np.int16)  # 0 the background, else number of a body or part
    full_areas: list[list[int]] = []  # of each thing's body with parts, then of the parts
    for sprite in compose(rng, mood, canvas):
        first = 1 + sum(map(len, full_areas))
        inside, window = clip(sprite, size)
        seen = sprite.layer[inside]
        owner[window][seen >= 0] = first + seen[seen >= 0]
        areas = np.bincount(sprite.layer[sprite.layer >= 0], minlength=1).tolist()
        full_areas.append([sum(areas), *areas[1:]])
    scatter_specks(rng, canvas, mood)
    masks, parents = _visible(owner, full_areas)
    return develop(random_look(rng), canvas, rng), masks, parents


def random_mood(rng: np.random.Generator) -> Mood:
    """What the things of a scene have in common."""
    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), -abs(math.sin(angle))])  # from above
    return Mood(rng.uniform(), float(rng.choice([0.1, 0.5, 0.5])), light)


def compose(rng: np.random.Generator, mood: Mood, canvas: np.ndarray) -> list[Sprite]:
    """Paint things into a canvas [3, H, W], back to front, and return them."""
    sizes = np.exp(rng.uniform(math.log(0.14), math.log(0.7), rng.integers(3, 9)))
    sizes = sizes[np.argsort(-sizes * np.exp(rng.normal(0, 0.5, len(sizes))))]
    centres: list[np.ndarray] = []
    sprites: list[Sprite] = []
    for child, extent in zip(rng.spawn(len(sizes)), sizes, strict=True):
        centres.append(_place(child, centres))
        scatter_specks(child, canvas, mood)
        sprites.append(random_sprite(child, canvas, mood, centres[-1], extent))
        if child.uniform() < 0.5:
            cast_shadow(random_shadow(child), canvas, sprites[-1], mood.light)
        put(child, canvas, sprites[-1])
    return sprites


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
