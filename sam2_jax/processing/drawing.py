"""Pictures of results: objects tinted and outlined, prompts marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette, told apart with every kind of colour vision, less black.
COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
)
_POSITIVE, _NEGATIVE = (34, 160, 60), (214, 39, 40)
_TINT = 0.45


@dataclass(frozen=True)
class Drawn:
    """One object to draw: its mask, bool [H, W], a caption, and the prompts that asked for it, in pixels."""

    mask: np.ndarray
    caption: str = ""
    points: Sequence[tuple[float, float]] = ()
    labels: Sequence[int] = ()
    box: tuple[float, float, float, float] | None = None


def overlay(photo: np.ndarray, objects: Sequence[Drawn]) -> Image.Image:
    """Draw objects over a photo, uint8 [H, W, 3], small ones above large ones, each in its own colour."""
    unit = max(1, round(max(photo.shape[:2]) / 500))
    canvas = photo.astype(np.float32)
    coloured = [(drawn, COLOURS[i % len(COLOURS)]) for i, drawn in enumerate(objects)]
    for drawn, colour in sorted(coloured, key=lambda item: -int(item[0].mask.sum())):
        canvas[drawn.mask] = canvas[drawn.mask] * (1 - _TINT) + np.asarray(colour, np.float32) * _TINT
        canvas[_outline(drawn.mask, unit)] = colour
    image = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for drawn, colour in coloured:
        _draw_prompts(pen, drawn, colour, unit)
    for drawn, colour in coloured:
        _draw_caption(pen, drawn, colour, unit)
    return image


def side_by_side(images: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Put pictures of equal size next to each other on white."""
    width, height = images[0].size
    sheet = Image.new("RGB", (len(images) * (width + gap) - gap, height), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i * (width + gap), 0))
    return sheet


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The mask's pixels within `thickness` of its edge."""
    inside = np.pad(mask, thickness, mode="edge")
    for axis in (0, 1):
        inside = np.all(sliding_window_view(inside, 2 * thickness + 1, axis), axis=-1)
    return mask & ~inside


def _draw_prompts(pen: ImageDraw.ImageDraw, drawn: Drawn, colour: tuple[int, int, int], unit: int) -> None:
    if drawn.box is not None:
        height, width = drawn.mask.shape
        box = np.clip(drawn.box, 0, (width - 1, height - 1) * 2).tolist()
        pen.rectangle(box, outline="white", width=3 * unit)
        pen.rectangle(box, outline=colour, width=2 * unit)
    radius = 5 * unit
    for (x, y), label in zip(drawn.points, drawn.labels, strict=True):
        fill = _POSITIVE if label == 1 else _NEGATIVE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline="white", width=unit)
        arm = radius - 2 * unit
        pen.line((x - arm, y, x + arm, y), fill="white", width=unit)
        if label == 1:
            pen.line((x, y - arm, x, y + arm), fill="white", width=unit)


def _draw_caption(pen: ImageDraw.ImageDraw, drawn: Drawn, colour: tuple[int, int, int], unit: int) -> None:
    """Write the caption at the top edge of the mask, kept inside the picture."""
    rows, columns = np.nonzero(drawn.mask)
    if not drawn.caption or rows.size == 0:
        return
    font = ImageFont.load_default(7 * unit + 6)
    left, top, right, bottom = pen.textbbox((0, 0), drawn.caption, font=font)
    width, height = right - left + 4 * unit, bottom - top + 4 * unit
    limit_y, limit_x = drawn.mask.shape
    first = rows.argmin()
    x = min(max(int(columns[first]) - width // 2, 0), max(limit_x - width, 0))
    y = min(max(int(rows[first]) - height, 0), max(limit_y - height, 0))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    text = "black" if sum(colour) > 450 else "white"
    pen.text((x + 2 * unit - left, y + 2 * unit - top), drawn.caption, fill=text, font=font)
