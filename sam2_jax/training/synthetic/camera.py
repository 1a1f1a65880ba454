"""What a camera makes of a painted picture."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter


class Look(NamedTuple):
    """What a camera does to every picture.

    vignette: how much darker corners are. grain: the noise's deviation, of 1. blur: radius in pixels of 256.
    quality: that of JPEG, None for a picture that was never one. gamma, contrast and shift, [3], of tones.
    """

    vignette: float
    grain: float
    blur: float
    quality: int | None
    gamma: float
    contrast: float
    shift: np.ndarray
    is_gray: bool


def random_look(rng: np.random.Generator) -> Look:
    """A camera's look."""
    vignette, grain = float(rng.choice([0, 0, 0.3, 0.6])), rng.uniform(0, 0.035) * float(rng.choice([0, 1]))
    blur, quality = rng.uniform(0.2, 1) * float(rng.choice([0, 1])), int(rng.integers(45, 95))
    gamma, contrast, shift = np.exp(rng.normal(0, 0.25)), rng.uniform(0.75, 1.15), rng.normal(0, 0.05, 3)
    is_gray, is_jpeg = rng.uniform() < 0.05, rng.uniform() < 0.3
    return Look(
        vignette, grain, blur, quality if is_jpeg else None, float(gamma), contrast, shift, bool(is_gray)
    )


def develop(look: Look, canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [H, W, 3], of a canvas [3, H, W], which is changed; rng makes the grain."""
    size = canvas.shape[-1]
    if look.vignette:
        falloff = 1 - look.vignette * np.linspace(-1, 1, size, dtype=np.float32) ** 2 / 2
        canvas *= falloff[:, None] * falloff
    image = Image.merge(
        "RGB", [Image.fromarray(c) for c in (canvas.clip(0, 1, out=canvas) * 255).astype(np.uint8)]
    )
    if look.blur:
        image = image.filter(ImageFilter.BoxBlur(look.blur * size / 256))
    levels = np.linspace(0, 1, 256)
    tones = [
        ((levels**look.gamma - 0.5) * look.contrast + 0.5 + look.shift[i]).clip(0, 1) * 255 for i in range(3)
    ]
    image = image.point(np.concatenate(tones).round().astype(int).tolist())
    if look.is_gray:
        image = image.convert("L").convert("RGB")
    if look.grain:  # as many numbers as there are pixels: whatever else is random was drawn before
        noise = rng.standard_normal((size, size, 1), np.float32) * (look.grain * 255)
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    if look.quality is not None:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=look.quality)
        image = Image.open(file)
    return np.array(image)
