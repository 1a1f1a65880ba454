"""What the things in a synthetic scene look like: colours, patterns, relief and lines along edges."""

import colorsys
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sam2_jax.processing.masks import depth_inside

_RELIEF_CELLS = 40  # along a thing's longer side; relief is smooth, so a coarse grid will do
_MIN_PERIOD = 0.03  # of patterns, in picture sides: finer ones would turn to moiré at 256 pixels


class Mood(NamedTuple):
    """What the things of a scene have in common."""

    hue: float
    spread: float  # of hues around it
    light: np.ndarray  # [2], (x, y) towards the light


def random_colour(rng: np.random.Generator, mood: Mood) -> np.ndarray:
    """A colour [3, 1, 1] of the scene's palette."""
    hue = (mood.hue + rng.uniform(-1, 1) * mood.spread) % 1
    colour = colorsys.hsv_to_rgb(hue, rng.beta(1.2, 1.8), rng.uniform(0.15, 0.97))
    return np.array(colour, np.float32).reshape(3, 1, 1)


def variant(rng: np.random.Generator, colour: np.ndarray, least: float, most: float) -> np.ndarray:
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


def random_surface(
    rng: np.random.Generator, colours: Sequence[np.ndarray], height: int, width: int, extent: float
) -> np.ndarray:
    """Colours float32 [3, height, width]: the first, patterned with the second."""
    field = _pattern(rng, height, width, extent)
    if field is None:
        return np.tile(colours[0], (1, height, width))
    return colours[0] + (colours[1] - colours[0]) * field


def random_background(rng: np.random.Generator, mood: Mood, size: int) -> np.ndarray:
    """Colours float32 [3, size, size] of one surface, or of two that meet in a horizon."""

    def region() -> np.ndarray:
        base = random_colour(rng, mood).clip(0.1, 0.95)  # things shall be seen on it
        other = random_colour(rng, mood) if rng.uniform() < 0.3 else variant(rng, base, 0.05, 0.3)
        surface = random_surface(rng, (base, other), size, size, 1)
        if rng.uniform() < 0.5:
            tint = (random_colour(rng, mood) - base) * rng.uniform(0.2, 0.7)
            surface += tint * _noise(rng, size, size, 2, 6)
        return surface

    canvas = region()
    if rng.uniform() < 0.35:
        across, down = np.linspace(0, 1, size, dtype=np.float32), np.linspace(0, 1, size, dtype=np.float32)
        edge = rng.uniform(0.25, 0.75) + rng.normal(0, 0.1) * (across - 0.5)
        below = ((down[:, None] - edge) * size + 0.5).clip(0, 1)
        canvas += (region() - canvas) * below
    return canvas.clip(0, 1)


def coarse_depth(coverage: np.ndarray) -> np.ndarray:
    """How deep inside the shape each cell of a coarse grid lies, in cells, float64 [rows, columns]."""
    height, width = coverage.shape
    scale = _RELIEF_CELLS / max(height, width)
    rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
    coarse = np.asarray(Image.fromarray(coverage).resize((columns, rows), Image.Resampling.BOX))
    return depth_inside(coarse > 0.5)


def relief(depth: np.ndarray, light: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much each pixel of a domed shape faces the light, float32 [height, width], -1 to 1."""
    deepest = max(depth.max(), 1)
    dome = ndimage.uniform_filter(np.sqrt(1 - (1 - depth / deepest) ** 2) * deepest, 3)
    down, across = np.gradient(dome)
    facing = -(across * light[0] + down * light[1]) / np.sqrt(1 + across**2 + down**2)
    return _resized(facing.astype(np.float32), height, width)


def _rim(coverage: np.ndarray, thickness: int) -> np.ndarray:
    """Coverage of a line along the inside of a shape's edge."""
    inner = coverage.copy()
    for axis in (0, 1):
        for step in (thickness, -thickness):
            inner = np.minimum(inner, np.roll(coverage, step, axis))
    return coverage - inner


def line_width(size: int) -> int:
    """The most that a line along an edge measures in a picture of a size, in pixels."""
    return max(1, size // 85)


def draw_outline(
    rng: np.random.Generator, colour: np.ndarray, coverage: np.ndarray, around: np.ndarray, most: int
) -> None:
    """Draw a line, at most `most` pixels wide, along the edge, to stand out from the colours around it."""
    bright = around.mean() > 0.45
    line = colour.mean(axis=(1, 2), keepdims=True) * 0.3 + (rng.uniform(0, 0.1) if bright else 0.65)
    rim = _rim(coverage, max(1, min(round(max(coverage.shape) * 0.02), most)))
    colour += (line.clip(0, 1) - colour) * rim.clip(0, 1)
