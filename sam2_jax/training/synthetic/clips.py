"""Synthetic clips with their masks: scenes whose things move, hide one another, leave and come back.

A clip is a scene (see `scenes`) in time. Its things sway, turn, grow and are seen from the side; some leave
the picture and come back; others come from outside and pass in front. The camera pans, turns, zooms and
shakes. Things keep their place from back to front. Objects are whole things, as they were seen at the first
frame: each has a mask there.

Motion is a function of time, so that a clip goes on as it began whatever its length, and with a stride is
every so manieth frame of the clip without.
"""

import math
from itertools import count
from typing import NamedTuple

import numpy as np
from PIL import Image

from sam2_jax.checks import read_whole
from sam2_jax.training.synthetic.camera import develop, random_look
from sam2_jax.training.synthetic.motion import (
    CAMERA_MARGIN,
    Motion,
    random_camera,
    random_motion,
    random_passage,
)
from sam2_jax.training.synthetic.scenes import (
    MIN_OBJECT,
    MIN_SIZE,
    MIN_VISIBLE,
    MOST_SIZE,
    compose,
    random_mood,
)
from sam2_jax.training.synthetic.sprites import (
    Shadow,
    Sprite,
    random_shadow,
    random_sprite,
    scatter_specks,
    shade,
    shadow_offset,
)
from sam2_jax.training.synthetic.surfaces import Mood, random_background

_MOST_FRAMES = 10_000
# Behind seed, number and attempt: clips draw other numbers than scenes.
_CLIP = 1


class Clip(NamedTuple):
    """Pictures in a row and the visible areas of the N >= 1 things that are seen in the first.

    images: uint8 [T, H, W, 3]. masks: bool [T, N, H, W], of what is seen of each, nothing where it is hidden
    or gone. visibility: float32 [T, N], the share that this is of the whole thing.
    """

    images: np.ndarray
    masks: np.ndarray
    visibility: np.ndarray


class _Thing(NamedTuple):
    """A thing in time. picture: RGBA; centre: of its window in the scene at time 0, in picture sides."""

    picture: Image.Image
    area: float
    centre: np.ndarray
    motion: Motion
    shadow: Shadow | None


def make_clip(seed: int, index: int, frames: int = 24, size: int = 256, stride: int = 1) -> Clip:
    """Make clip number `index` >= 0 of the stream `seed` >= 0: square pictures, `size` pixels a side.

    The same numbers give the same clip, byte for byte; streams of different seeds have no clip in common.
    Raises ValueError for negative numbers, fewer than 1 or more than 10,000 frames, and a size that is not
    from 32 to 8192.
    """
    seed, index = read_whole("seed", seed, 0), read_whole("index", index, 0)
    size = read_whole("size", size, MIN_SIZE, MOST_SIZE)
    stride = read_whole("stride", stride, 1, _MOST_FRAMES)
    times = np.arange(read_whole("frames", frames, 1, _MOST_FRAMES)) * stride
    for attempt in count():  # hardly ever a second: it takes that nothing is large enough
        clip = _film(np.random.default_rng((seed, index, attempt, _CLIP)), size, times)
        if clip is not None:
            return clip
    raise AssertionError("unreachable")


def _film(rng: np.random.Generator, size: int, times: np.ndarray) -> Clip | None:
    """The pictures at all times, None if nothing is seen well in the first."""
    mood = random_mood(rng)
    margin = math.ceil(CAMERA_MARGIN * size)
    around = random_background(rng.spawn(1)[0], mood, size + 2 * margin)
    for child in rng.spawn(3):
        scatter_specks(child, around, mood)
    things = _things(rng, mood, around[:, margin:-margin, margin:-margin].copy())
    background = Image.fromarray((around * 255).astype(np.uint8).transpose(1, 2, 0))
    views = random_camera(rng).views(times.astype(float))
    places = [_places(thing, views, times.astype(float), size) for thing in things]
    look, grain = random_look(rng), int(rng.integers(2**32))
    images: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    for i, t in enumerate(times):
        picture = _viewed(background, _in_pixels(views[i], size) @ _moved(-margin, -margin), (size, size))
        owner = np.full((size, size), -1, np.int16)
        for number, (thing, place) in enumerate(zip(things, places, strict=True)):
            _put(picture, owner, number, thing, place[i], mood)
        if i == 0:
            seen = _seen_well(owner, things, places)
            if not len(seen):
                return None
        canvas = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
        images.append(develop(look, canvas, np.random.default_rng((grain, int(t)))))
        owners.append(owner)
    masks = np.stack(owners)[:, None] == seen.reshape(1, -1, 1, 1)
    whole = np.stack([_areas(things[k], places[k]) for k in seen], axis=-1)
    visibility = (masks.sum(axis=(2, 3)) / whole.clip(1)).clip(0, 1)
    return Clip(np.stack(images), masks, visibility.astype(np.float32))


def _things(rng: np.random.Generator, mood: Mood, canvas: np.ndarray) -> list[_Thing]:
    """What is in a scene, painted into a canvas so that each stands out, then what will pass in front."""
    size = canvas.shape[-1]
    things: list[_Thing] = []
    for sprite in compose(rng, mood, canvas):
        centre = _centre(sprite, size)
        extent = max(sprite.coverage.shape) / size
        things.append(_thing(rng, sprite, centre, random_motion(rng, centre, extent)))
    for child in rng.spawn(int(rng.choice([0, 1, 1, 2]))):
        target = things[child.integers(len(things))].centre.clip(0, 0.999)
        sprite = random_sprite(child, canvas, mood, target, child.uniform(0.3, 0.8))
        things.append(_thing(child, sprite, *random_passage(child, target)))
    return things


def _thing(rng: np.random.Generator, sprite: Sprite, centre: np.ndarray, motion: Motion) -> _Thing:
    rgba = np.concatenate([sprite.colour, sprite.coverage[None]]) * 255
    picture = Image.fromarray(rgba.astype(np.uint8).transpose(1, 2, 0), "RGBA")
    shadow = random_shadow(rng) if rng.uniform() < 0.5 else None
    return _Thing(picture, float((sprite.coverage >= 0.5).sum()), centre, motion, shadow)


def _centre(sprite: Sprite, size: int) -> np.ndarray:
    height, width = sprite.coverage.shape
    return np.array([sprite.left + width / 2, sprite.top + height / 2]) / size


def _moved(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _in_pixels(view: np.ndarray, size: int) -> np.ndarray:
    scale = np.diag([size, size, 1.0])
    return scale @ view @ np.linalg.inv(scale)


def _places(thing: _Thing, views: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
    """Matrices [T, 3, 3] from pixels (x, y, 1) of a thing's window to those of the picture."""
    found = np.tile(np.eye(3), (len(times), 1, 1))
    found[:, :2, :2] = thing.motion.shapes(times)
    found[:, :2, 2] = (thing.centre + thing.motion.offsets(times)) * size
    width, height = thing.picture.size
    middle = _moved(-width / 2, -height / 2)
    return np.stack([_in_pixels(v, size) @ own @ middle for v, own in zip(views, found, strict=True)])


def _areas(thing: _Thing, places: np.ndarray) -> np.ndarray:
    """How many pixels the whole thing would cover, [T]."""
    return thing.area * np.abs(np.linalg.det(places[:, :2, :2]))


def _seen_well(owner: np.ndarray, things: list[_Thing], places: list[np.ndarray]) -> np.ndarray:
    """The numbers of the things of which enough is seen."""
    shown = np.bincount(owner[owner >= 0], minlength=len(things))
    whole = np.array([_areas(*each)[0] for each in zip(things, places, strict=True)])
    return np.flatnonzero((shown >= MIN_OBJECT * owner.size) & (shown >= MIN_VISIBLE * whole))


def _viewed(picture: Image.Image, place: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """What a window of a size (width, height) shows of a picture that lies there by a matrix."""
    to_picture = np.linalg.inv(place)[:2].ravel().tolist()
    return picture.transform(size, Image.Transform.AFFINE, to_picture, Image.Resampling.BILINEAR)


def _put(
    picture: Image.Image, owner: np.ndarray, number: int, thing: _Thing, place: np.ndarray, mood: Mood
) -> None:
    """Paint a thing into the picture, and its number where it covers what was there."""
    size = picture.width
    width, height = thing.picture.size
    corners = (place @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]]))[:2]
    left, top = np.floor(corners.min(axis=1)).astype(int).clip(0, size).tolist()
    right, bottom = np.ceil(corners.max(axis=1)).astype(int).clip(0, size).tolist()
    if left >= right or top >= bottom:
        return
    seen = _viewed(thing.picture, _moved(-left, -top) @ place, (right - left, bottom - top))
    coverage = seen.getchannel("A")
    if thing.shadow is not None:
        dark, pad = shade(thing.shadow, coverage, size)
        x, y = shadow_offset(thing.shadow, mood.light, size)
        strength = thing.shadow.strength
        picture.paste((0, 0, 0), (left + x - pad, top + y - pad), dark.point(lambda v: round(v * strength)))
    picture.paste(seen.convert("RGB"), (left, top), coverage)
    owner[top:bottom, left:right][np.asarray(coverage) >= 128] = number
