"""Pictures of results: objects tinted and outlined, prompts marked; contact sheets; label maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sam2_jax.checks import read_array, read_booleans, read_whole, shown
from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.images import to_rgb

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
MAX_LABELS = 255  # of a picture with a palette
_POSITIVE, _NEGATIVE = (34, 160, 60), (214, 39, 40)
_TINT = 0.45


@dataclass(frozen=True)
class Drawn:
    """One object to draw: its mask, bool [H, W], a caption, and the prompts that asked for it, in pixels.

    colour: red, green and blue, 0 to 255; None for that of its place in the palette.
    """

    mask: np.ndarray
    caption: str = ""
    points: Sequence[tuple[float, float]] = ()
    labels: Sequence[int] = ()
    box: tuple[float, float, float, float] | None = None
    colour: tuple[int, int, int] | None = None


def overlay(photo: np.ndarray, objects: Sequence[Drawn]) -> Image.Image:
    """Draw objects over a photo, uint8 [H, W, 3], small ones above large ones, each in its own colour.

    Captions stand beside their masks, where they cover least.
    """
    canvas = photo.astype(np.float32)
    for i, drawn in sorted(enumerate(objects), key=lambda item: -int(item[1].mask.sum())):
        tint(canvas, drawn.mask, _colour(i, drawn))
    image = Image.fromarray(canvas.round().astype(np.uint8))
    pen, unit = ImageDraw.Draw(image), _unit(photo)
    for i, drawn in enumerate(objects):
        _draw_prompts(pen, drawn, _colour(i, drawn), unit)
    _draw_captions(image, objects, unit)
    return image


def tint(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Tint and outline a mask, bool [H, W], on a canvas, float32 [H, W, 3]."""
    unit = _unit(canvas)
    window = _window(mask, unit)
    mask, part = mask[window], canvas[window]
    part[mask] = part[mask] * (1 - _TINT) + np.asarray(colour, np.float32) * _TINT
    part[_outline(mask, unit)] = colour


def _unit(canvas: np.ndarray) -> int:
    """How thick a thin line is on a picture of this size."""
    return max(1, round(max(canvas.shape[:2]) / 500))


def _colour(index: int, drawn: Drawn) -> tuple[int, int, int]:
    return palette_colour(index) if drawn.colour is None else drawn.colour


def palette_colour(index: int) -> tuple[int, int, int]:
    """Red, green and blue of an object by its place, from 0 on; the colours of more than 255 begin anew."""
    r, g, b = palette()[1 + index % (len(palette()) - 1)].tolist()
    return r, g, b


def contact_sheet(
    images: Sequence[Any],
    columns: int | None = None,
    captions: Sequence[str] = (),
    size: int | None = 320,
    gap: int = 8,
) -> Image.Image:
    """Lay out pictures in rows on white, each with its caption below it; returns an RGB image.

    images: what `to_rgb` reads, of any sizes. columns: pictures in a row, by default about as many as there
    are rows. captions: none, or one for each picture, cut short where it is too long. size: longest side in
    pixels to which larger pictures are reduced, None to leave them. gap: pixels between pictures. Raises
    ValueError if there is no picture, or not one caption for each.
    """
    if not isinstance(images, (list, tuple)) and getattr(images, "ndim", 0) == 0:
        raise ValueError(f"images must be a list of pictures; got {shown(images)}")
    if not len(images):
        raise ValueError("images must hold at least one picture")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else read_whole("columns", columns)
    if columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns}")
    size = None if size is None else read_whole("size", size, 1)
    gap = read_whole("gap", gap, 0, 10_000)
    captions = () if captions is None else captions
    if not isinstance(captions, (list, tuple)) or not all(isinstance(text, str) for text in captions):
        raise ValueError(f"captions must be a list of texts; got {shown(captions)}")
    if captions and len(captions) != len(images):
        raise ValueError(f"captions must be one for each of {len(images)} images; got {len(captions)}")
    pictures = [_thumbnail(image, size) for image in images]
    columns = min(columns, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    widths = [max(picture.width for picture in pictures[j::columns]) for j in range(columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    font = ImageFont.load_default(max(12, max(widths) // 24))
    line = round(1.6 * font.getbbox("Äg")[3]) if captions else 0
    lefts = np.cumsum([0, *(width + gap for width in widths)]).tolist()
    tops = np.cumsum([0, *(height + line + gap for height in heights)]).tolist()
    sheet = Image.new("RGB", (lefts[-1] - gap, tops[-1] - gap), "white")
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        i, j = divmod(number, columns)
        x, y = lefts[j] + widths[j] / 2, tops[i] + heights[i] / 2
        sheet.paste(picture, (int(x - picture.width / 2), int(y - picture.height / 2)))
        if captions:
            text = _cut_short(captions[number], font, widths[j])
            pen.text((x, tops[i] + heights[i] + line / 2), text, fill="black", font=font, anchor="mm")
    return sheet


def label_map(masks: Any) -> np.ndarray:
    """Number the objects of boolean masks [P, H, W] from 1 in one map [H, W], 0 where there is none.

    Where masks overlap the smaller lies above the larger; of equal areas, the later one. uint8, or uint16 for
    more than 255 objects. Raises ValueError for other shapes, for logits and for more than 65535 objects.
    """
    masks = read_booleans("masks", masks, "[objects, height, width]")
    if masks.ndim != 3 or len(masks) > np.iinfo(np.uint16).max:
        raise ValueError(f"masks must be [objects, height, width], at most 65535; got shape {masks.shape}")
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) <= MAX_LABELS else np.uint16)
    areas = np.count_nonzero(masks, axis=(1, 2))
    for i in np.argsort(-areas, kind="stable"):
        labels[masks[i]] = i + 1
    return labels


def palette_image(labels: Any) -> Image.Image:
    """A PIL image of mode "P" of integer labels [H, W], each in its own colour, 0 in black.

    Saved as PNG it looks like a drawing and reads back as the labels. Raises ValueError for labels beyond
    255.
    """
    labels = read_array("labels", labels, "integers [height, width]")
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers [height, width]; got {labels.dtype} {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() <= MAX_LABELS:
        raise ValueError(
            f"a palette has the labels 0 to {MAX_LABELS}; got {labels.min()} to {labels.max()}: leave out "
            "objects, or save the labels themselves, Image.fromarray(labels.astype(numpy.uint16))"
        )
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette().tobytes())
    return image


@cache
def palette() -> np.ndarray:
    """Colours uint8 [256, 3] of labels: black, Okabe and Ito's, then each the farthest from all before it.

    Distances are those of the Oklab colour space, which are even to the eye. Very dark and very light colours
    are left out.
    """
    steps = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lightness = _oklab(candidates)[:, 0]
    candidates = candidates[(lightness > 0.45) & (lightness < 0.95)]
    places = _oklab(candidates)
    colours = [(0, 0, 0), *COLOURS]
    distance = np.linalg.norm(places[:, None] - _oklab(np.array(colours)), axis=-1).min(axis=1)
    while len(colours) <= MAX_LABELS:
        farthest = distance.argmax()
        colours.append(tuple(candidates[farthest]))
        distance = np.minimum(distance, np.linalg.norm(places - places[farthest], axis=1))
    table = np.array(colours, np.uint8)
    table.flags.writeable = False  # it is shared
    return table


def _oklab(colours: np.ndarray) -> np.ndarray:
    """Lightness, green to red and blue to yellow of sRGB colours [N, 3] (Ottosson, 2020)."""
    srgb = colours / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ]
    return np.cbrt(cones) @ [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]


def _thumbnail(image: Any, size: int | None) -> Image.Image:
    thumbnail = Image.fromarray(to_rgb(image))
    if size is not None:
        thumbnail.thumbnail((size, size))
    return thumbnail


def _cut_short(text: str, font: Any, width: int) -> str:
    """As much of a line of text as fits into a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of a picture that holds a mask and the margin around it."""
    x, y, width, height = bounding_box(mask)
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The mask's pixels within `thickness` of its edge; the picture's border is no edge."""
    return mask & ~ndimage.minimum_filter(mask, 2 * thickness + 1, mode="nearest")


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


def _draw_captions(image: Image.Image, objects: Sequence[Drawn], unit: int) -> None:
    """Write each object's caption beside its mask, where it covers least of masks, marks and captions."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(7 * unit + 6)
    taken = _taken(objects, unit)
    for i, drawn in enumerate(objects):
        if not drawn.caption or not drawn.mask.any():
            continue
        left, top, right, bottom = pen.textbbox((0, 0), drawn.caption, font=font)
        width, height = int(right - left) + 4 * unit, int(bottom - top) + 4 * unit
        x, y = _best_place(drawn.mask, width, height, taken, unit)
        taken[y : y + height + 1, x : x + width + 1] += 100 / (width * height)
        colour = _colour(i, drawn)
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        text = "black" if sum(colour) > 450 else "white"
        pen.text((x + 2 * unit - left, y + 2 * unit - top), drawn.caption, fill=text, font=font)


def _taken(objects: Sequence[Drawn], unit: int) -> np.ndarray:
    """What it costs to cover a pixel, float32 [H, W]: most on small masks and marks, least on large masks."""
    costs = np.zeros(objects[0].mask.shape if objects else (0, 0), np.float32)
    for drawn in objects:
        costs[drawn.mask] += 100 * unit / max(int(drawn.mask.sum()), 1) ** 1.5
        for x, y in drawn.points:
            radius = 6 * unit
            rows, columns = (slice(max(int(c) - radius, 0), max(int(c) + radius + 1, 0)) for c in (y, x))
            costs[rows, columns] += 10 / (2 * radius + 1) ** 2
    return costs


def _best_place(mask: np.ndarray, width: int, height: int, taken: np.ndarray, unit: int) -> tuple[int, int]:
    """Where to put a caption of this size: x and y of its corner, inside the picture, at or in the mask."""
    x0, y0, mask_width, mask_height = bounding_box(mask)
    x1, y1 = x0 + mask_width + unit, y0 + mask_height + unit
    first = int(mask[y0].argmax())  # the topmost pixel
    middle, centre = x0 + (mask_width - width) // 2, y0 + (mask_height - height) // 2
    above, before = y0 - height - 1 - unit, x0 - width - 1 - unit
    places = [
        *((first - width // 2, above), (middle, above), (x0, above), (x1 - width, above)),
        *((middle, y1), (x0, y1), (x1 - width, y1), (x1, centre), (before, centre)),
        *((x1, above), (before, above), (x1, y1), (before, y1)),
        *((middle, y0 + unit), (middle, y1 - height - 2 * unit)),
        *((middle, above - height), (middle, y1 + height), (x1, y1 + height), (before, y1 + height)),
    ]
    limit_y, limit_x = mask.shape
    inside = [
        (min(max(x, 0), max(limit_x - width - 1, 0)), min(max(y, 0), max(limit_y - height - 1, 0)))
        for x, y in places
    ]
    costs = [taken[y : y + height + 1, x : x + width + 1].sum() for x, y in inside]
    # Where several cover as little, the first: it is nearest to where one looks.
    return inside[int(np.argmin([cost + 0.01 * i for i, cost in enumerate(costs)]))]
