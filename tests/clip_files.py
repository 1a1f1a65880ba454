"""Clips in files, made for tests: frames that say which they are."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def numbered_frame(t: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A grey that tells the number, darker at the top left, so that one sees how it lies."""
    frame = np.full((height, width, 3), 40 + 4 * t, np.uint8)
    frame[: height // 2, : width // 2] //= 2
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame tells, also after lossy compression."""
    return round((float(frame[-4:, -4:].mean()) - 40) / 4)


def write_video(
    path: Path,
    frames: Any,
    codec: str = "libx264",
    rate: int = 25,
    times: Any = None,
    is_streamable: bool = False,
    **options: str,
) -> Path:
    """A video of frames [H, W, 3]; times: when each is shown, in units of 1/1000 s, evenly if None.

    is_streamable: an mp4 whose index comes first.
    """
    av = pytest.importorskip("av")
    flags = {"movflags": "faststart"} if is_streamable else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        frames = list(frames)
        stream.height, stream.width = frames[0].shape[:2]
        is_even = stream.height % 2 == stream.width % 2 == 0
        stream.pix_fmt = "yuv420p" if is_even else "yuv444p"
        stream.options = options
        stream.bit_rate = 4_000_000
        unit = Fraction(1, 1000)
        stream.codec_context.time_base = unit
        for t, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * t / rate) if times is None else times[t]
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_gif(path: Path, frames: Any, milliseconds: int = 40) -> Path:
    """An animation that Pillow writes: a GIF, WebP or PNG."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=milliseconds, lossless=True)
    return path


def write_folder(path: Path, frames: Any, end: str = "png") -> Path:
    """A folder of pictures whose names sort otherwise than their numbers."""
    path.mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame {t}.{end}")
    return path
