"""`open_clip`: the frames of a folder of pictures, an animation or a video file."""

import os
import re
from pathlib import Path
from typing import Any

from sam2_jax.checks import read_whole, shown
from sam2_jax.clips.clip import Clip, Source
from sam2_jax.clips.pictures import Animation, PictureFolder
from sam2_jax.clips.video_file import VideoFile
from sam2_jax.processing.images import MAX_PIXELS, PICTURES

# As a Path, which has one slash of two, too.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def open_clip(
    path: str | os.PathLike[str],
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Clip:
    """Open a clip: its frames are read one by one, a few ahead, when they are asked for.

    path: a folder of pictures, one for each frame, in natural order and upright by their EXIF; an animated
    GIF, WebP or PNG; or a video file, for which PyAV must be installed (`pip install 'sam2_jax[video]'`).
    Frames are numbered from 0; start is the first that is taken, end the first that is not any more, None for
    all; of these, every stride'th is taken. max_pixels: how large a frame may be.

    Raises ValueError for what is no clip, for addresses, and for a range without frames. A frame that cannot
    be read raises it when it is asked for; those before it are good.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"a clip's path must be text or a Path; got {shown(path)}")
    if _ADDRESS.match(os.fspath(path)) and not os.path.exists(path):
        raise ValueError(
            f"a clip must be a file or a folder; got the address {shown(os.fspath(path))}: download it first"
        )
    check_part(start, end, stride)
    source = _open(Path(path), read_whole("max_pixels", max_pixels, 1))
    return part_of(source, start, end, stride)


def check_part(start: Any, end: Any, stride: Any) -> tuple[int, int | None, int]:
    """What can be said of a part before the clip is opened. Raises ValueError for what cannot be meant."""
    start, stride = read_whole("start", start, 0), read_whole("stride", stride, 1)
    end = None if end is None else read_whole("end", end, 1)
    if end is not None and end <= start:
        raise ValueError(f"end must be more than start, {start}; got {end}")
    return start, end, stride


def part_of(source: Source, start: int = 0, end: int | None = None, stride: int = 1) -> Clip:
    """The frames of a source that are asked for, see `open_clip`. Raises ValueError if it has none there."""
    start, end, stride = check_part(start, end, stride)
    if start >= len(source):
        raise ValueError(f"start must be a frame of {source.path}, 0 to {len(source) - 1}; got {start}")
    return Clip(source, range(len(source))[start:end:stride])


def _open(path: Path, max_pixels: int) -> Source:
    try:
        if path.is_dir():
            return PictureFolder(path, max_pixels)
        if not path.exists():
            raise ValueError(f"there is no clip {path}; check the path")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    reader: Any = Animation if path.suffix.lower() in PICTURES else VideoFile
    source: Source = reader(path, max_pixels)
    return source
