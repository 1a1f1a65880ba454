"""Tracks drawn: a video with the objects tinted, as mp4 or GIF, and a sheet of some of its frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import GifImagePlugin, Image

from sam2_jax.atomic import aside
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.tracks import Add, TrackedFrame
from sam2_jax.clips.video_file import import_av
from sam2_jax.processing.drawing import Drawn, contact_sheet, overlay

USUAL_RATE = 24.0
"""Frames a second where nothing says it."""
SHEET_FRAMES = 12
# Frames a second: of a GIF, whose hundredths of a second have 16 bits, and of mp4, as a fraction.
_LEAST_RATE = 1 / 600
# Of a GIF, which holds pixels nearly as they are.
_GIF_SIDE = 480
_ENCODERS = (
    {"codec_name": "libx264", "options": {"crf": "20", "preset": "veryfast"}},
    {"codec_name": "mpeg4"},
)

Marks = Mapping[tuple[int, int], tuple[Sequence[Any], Sequence[int], Any]]
"""Prompts to be drawn, by frame and object: points, their labels, and a box or None."""


def has_av() -> bool:
    """Whether videos can be written."""
    try:
        import_av()
    except ValueError:
        return False
    return True


def draw(found: TrackedFrame, picture: np.ndarray, marks: Marks) -> Image.Image:
    """A frame with its objects, each in the colour of its id and captioned by it, and its prompts."""
    nothing = np.zeros(picture.shape[:2], bool)
    objects = [Drawn(nothing)] * max((track.object_id for track in found.tracks), default=0)
    for track in found.tracks:
        points, labels, box = marks.get((found.t, track.object_id), ((), (), None))
        objects[track.object_id - 1] = Drawn(track.mask, str(track.object_id), points, labels, box)
    return overlay(picture, objects)


@contextmanager
def overlay_video(target: Path, clip: Clip, marks: Marks | None = None) -> Iterator[Add]:
    """A video of the clip with its objects drawn, at its rate: GIF if the name ends so, else mp4.

    mp4 needs PyAV; a GIF's frames are at most 480 pixels on a side. Raises ValueError without PyAV.
    """
    rate = max(clip.rate or USUAL_RATE, _LEAST_RATE)
    with aside(target) as path:
        writer = _gif if target.suffix.lower() == ".gif" else _mp4
        with writer(path, clip.size, rate) as write:
            yield lambda found, picture: write(draw(found, picture, marks or {}))


@contextmanager
def sheet(target: Path, clip: Clip, marks: Marks | None = None) -> Iterator[Add]:
    """A PNG of evenly spaced frames of the clip with their objects drawn, each with its number below.

    If not all frames come, the first that does is there in any case.
    """
    count = min(SHEET_FRAMES, len(clip))
    chosen = {round(i * (len(clip) - 1) / max(count - 1, 1)) for i in range(count)}
    pictures: list[Image.Image] = []
    captions: list[str] = []

    def add(found: TrackedFrame, picture: np.ndarray) -> None:
        if found.t in chosen or not pictures:
            drawn = draw(found, picture, marks or {})
            drawn.thumbnail((480, 480))
            pictures.append(drawn)
            captions.append(f"frame {clip.numbers[found.t]}")

    with aside(target) as path:
        yield add
        contact_sheet(pictures, captions=captions, size=480).save(path, "PNG")


Write = Callable[[Image.Image], None]


@contextmanager
def _mp4(path: Path, size: tuple[int, int], rate: float) -> Iterator[Write]:
    av = import_av()
    height, width = size
    even = height + height % 2, width + width % 2  # as players want it
    encoder = next(each for each in _ENCODERS if each["codec_name"] in av.codecs_available)
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            exact = Fraction(rate).limit_denominator(1001)
            stream = container.add_stream(rate=exact, **encoder)
            stream.height, stream.width = even
            stream.pix_fmt = "yuv420p"

            def write(picture: Image.Image) -> None:
                pixels = np.asarray(picture)
                pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

            yield write
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # a full disk, for one
            raise
        raise ValueError(f"no mp4 can be made of frames of {width} x {height} pixels: {error}") from error


@contextmanager
def _gif(path: Path, size: tuple[int, int], rate: float) -> Iterator[Write]:
    """Frame by frame: Pillow's own `save` would collect them all."""
    # Browsers show frames of less than two hundredths of a second slowly.
    milliseconds = 10 * max(2, round(100 / rate))
    with path.open("wb") as file:
        is_first = True

        def write(picture: Image.Image) -> None:
            nonlocal is_first
            picture.thumbnail((_GIF_SIDE, _GIF_SIDE))
            frame = picture.quantize(256)
            if is_first:
                _put(file, GifImagePlugin.getheader(frame, info={"loop": 0, "duration": milliseconds})[0])
            is_first = False
            _put(file, GifImagePlugin.getdata(frame, duration=milliseconds, include_color_table=True))

        yield write
        file.write(b";")


def _put(file: IO[bytes], parts: Sequence[bytes]) -> None:
    for part in parts:
        file.write(part)
