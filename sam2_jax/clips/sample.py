"""The sample picture as a clip: a camera that moves over it and away from it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sam2_jax.processing.images import to_rgb
from sam2_jax.processing.inputs import Size

SIDE = 256
_FRAMES = 12
# What is seen of the picture's 512 x 512 pixels: left, top and side, on the first frame and the last.
_FIRST, _LAST = np.array([100.0, 90, 400]), np.array([20.0, 30, 470])


class SampleFrames:
    """Frames made of a picture, 512 x 512."""

    rate: float | None = 6.0
    size: Size = (SIDE, SIDE)

    def __init__(self, picture: Path) -> None:
        self.path = picture

    def __len__(self) -> int:
        return _FRAMES

    def name(self, frame: int) -> str:
        """The frame's number in five digits."""
        return f"{frame:05}"

    def digest(self) -> str:
        """See `Source`."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`."""
        picture = Image.fromarray(to_rgb(self.path))
        for frame in frames:
            x, y, side = _seen(frame)
            box = (x, y, x + side, y + side)
            yield np.array(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))


def _seen(frame: int) -> tuple[float, float, float]:
    x, y, side = (_FIRST + (_LAST - _FIRST) * frame / (_FRAMES - 1)).tolist()
    return x, y, side


def on_frame(point: tuple[float, float], frame: int) -> tuple[float, float]:
    """Where a point of the picture is on a frame of the clip."""
    x, y, side = _seen(frame)
    return (point[0] - x) * SIDE / side, (point[1] - y) * SIDE / side
