"""Prompts on the command line: numbers in pixels, pictures of masks."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.processing.images import open_image, to_rgb


def numbers(count: int, meaning: str) -> Any:
    """What reads so many numbers with commas between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count or not np.isfinite(values).all():
            example = ",".join(str(100 * (i + 1)) for i in range(count))
            raise argparse.ArgumentTypeError(f"expected {meaning} in pixels, such as {example}; got {text!r}")
        return values

    return parse


def join_negative_numbers(argv: Sequence[str]) -> list[str]:
    """Join `--box -5,-5,50,50` by `=`, for argparse takes what begins with a minus for an option."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-[\d.]+,", word) and joined and joined[-1] in ("--point", "--negative", "--box"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def read_mask_file(path: Path, height: int, width: int, max_pixels: int, of: str = "the photo") -> np.ndarray:
    """Read a mask prompt as bool [H, W]: white (above half) is inside, black and transparent outside."""
    image = open_image(path, max_pixels)
    mask = to_rgb(image, max_pixels=max_pixels).mean(axis=2) > 127.5
    if image.has_transparency_data:
        mask &= np.asarray(image.convert("RGBA"))[..., 3] > 127
    if mask.shape != (height, width):
        raise ValueError(
            f"--mask must be as large as {of}, {width} x {height} pixels; "
            f"{path} is {mask.shape[1]} x {mask.shape[0]}"
        )
    if not mask.any():
        raise ValueError(f"--mask {path} has no white pixel: the object should be white on black")
    return mask
