"""The pictures of a clip as the network's pixels: at hand, coming from an iterator, or pushed one by one."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sam2_jax.checks import read_whole, shown
from sam2_jax.config import Sam2Config
from sam2_jax.image.arguments import check_pixels
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.inputs import Size

_SOURCES = "an array [frames, height, width, 3], a list of pictures, an iterator of pictures, or None"
_ONE_PICTURE = ": one picture is a clip of one, index with [None]"
_GREY_FRAMES = ": grey frames have a channel each, index with [..., None]"
_OPEN_IT = ": sam2_jax.open_clip(path) has the frames of a file or folder"


def check_uncut(*processors: Sam2ImageProcessor) -> None:
    """Raise ValueError for processors that cut frames: prompts and masks are of whole ones."""
    if any(processor.do_center_crop for processor in processors):
        raise ValueError(
            "a clip cannot be tracked with do_center_crop, which moves its frames; crop them first"
        )


class PreparedFrame(NamedTuple):
    """A picture as the network takes it already: pixels float [H, W, 3], and its own (height, width)."""

    pixels: np.ndarray
    size: Size


class PreparedFrames(Sequence[PreparedFrame]):
    """The pictures of a clip, each prepared by an image processor of one's own when it is asked for."""

    def __init__(self, pictures: Sequence[Any], processor: Sam2ImageProcessor) -> None:
        self._pictures = pictures
        self._processor = processor

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pictures)

    def __getitem__(self, t: Any) -> Any:
        """Frame t. Raises ValueError for a picture that cannot be read."""
        inputs = self._processor(images=self._pictures[t])
        height, width = inputs["original_sizes"][0].tolist()
        return PreparedFrame(inputs["pixel_values"][0], (height, width))


def read_clips(videos: Any, name: str = "videos") -> list[Sequence[Any]]:
    """One clip, or several, in the forms that transformers knows, as a list of clips.

    videos: an array [T, H, W, 3] or [B, T, H, W, 3], a list or another sequence of pictures, or a list of
    clips. Raises ValueError for what is none of these, and for a clip without pictures.
    """
    depth = getattr(videos, "ndim", None)
    if isinstance(videos, Sequence) and not isinstance(videos, (str, bytes)) and len(videos):
        first = videos[0] if isinstance(videos, (list, tuple)) else None
        depth = 5 if isinstance(first, (list, tuple)) or getattr(first, "ndim", 0) == 4 else 4
    if depth not in (4, 5) or not len(videos):
        remedy = _OPEN_IT if isinstance(videos, (str, os.PathLike)) else ""
        raise ValueError(
            f"{name} must be a list of pictures, an array [frames, height, width, 3], or a list of clips; "
            f"got {shown(videos)}{remedy}"
        )
    clips = list(videos) if depth == 5 else [videos]
    for clip in clips:
        if not hasattr(clip, "__len__") or not len(clip):
            raise ValueError(f"{name} must have pictures; got {shown(clip)}")
        _check_apart(name, clip)
    return clips


class Frames:
    """Pictures of one size, numbered from 0.

    source: an array [T, H, W, 3] or a list of pictures (arrays, PIL images, paths of pictures), each read
    when it is needed; an iterator, read on as far as frames are asked for; None for frames that `add` brings.
    Any picture may be a `PreparedFrame`.
    keep: of the frames of a stream so many of the newest can be asked for again; None for all.
    Raises ValueError for other sources.
    """

    def __init__(self, source: Any, processor: Sam2ImageProcessor, config: Sam2Config) -> None:
        self._processor = processor
        self._config = config
        self.keep: int | None = None
        self._iterator: Iterator[Any] | None = None
        # Pictures of the iterator that were read before their turn, or why one could not be.
        self._waiting: deque[Any] = deque()
        self._pictures: dict[int, Any] | Sequence[Any] = {}
        # Pixels of the frame asked for last, and how many of the first frames are known to be as they should.
        self._latest: tuple[int, np.ndarray] | None = None
        self._sound = 0
        self._size: Size | None = None
        self._count = 0
        if source is not None:
            self._take(source)

    def _take(self, source: Any) -> None:
        if isinstance(source, Iterator):
            self._iterator = source
            return
        shape = getattr(source, "shape", None)
        is_path = isinstance(source, (str, os.PathLike))
        if is_path or isinstance(source, (bytes, Mapping)) or (shape is not None and len(shape) != 4):
            remedy = _OPEN_IT if is_path else ""
            if shape is not None and len(shape) == 3:
                remedy = _ONE_PICTURE if shape[-1] in (1, 3, 4) else _GREY_FRAMES
            raise ValueError(f"source must be {_SOURCES}; got {shown(source)}{remedy}")
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            self._pictures, self._count = source, len(source)
            if not self._count:
                raise ValueError("source must have frames; got none: pass None to add them one by one")
            _check_apart("source", source)
        elif isinstance(source, Iterable):
            self._iterator = iter(source)
        else:
            raise ValueError(f"source must be {_SOURCES}; got {shown(source)}")

    @property
    def length(self) -> int | None:
        """How many frames the clip has; None as long as more may come."""
        return None if isinstance(self._pictures, dict) else self._count

    @property
    def count(self) -> int:
        """How many frames are known so far."""
        return self._count

    @property
    def size(self) -> Size:
        """(height, width) of the pictures; the first is read for it."""
        if self._size is None:
            self.pixels(0)
        assert self._size is not None
        return self._size

    def has(self, t: int) -> bool:
        """Whether there is a frame t; of an iterator, it is read up to there."""
        while t >= self._count and (self._waiting or self._iterator is not None):
            self._read_on()
        return 0 <= t < self._count

    def can_have(self, t: int) -> bool:
        """Whether the pixels of frame t can be asked for, of an iterator ahead of its turn.

        It is read up to there, but what is behind the known frames stays unknown until `has` or `check`.
        """
        while t >= self._count + len(self._waiting) and self._iterator is not None:
            self._pull()
        if isinstance(self._pictures, dict) and t < self._count:
            return t in self._pictures
        return 0 <= t < self._count + len(self._waiting)

    def check(self, name: str, t: Any) -> int:
        """The number of a frame that can be asked for, or ValueError."""
        frame = read_whole(name, t)
        if not self.has(frame):
            if isinstance(self._pictures, dict):
                raise ValueError(
                    f"{name} must be one of the {self._count} frames that have come so far, from 0 on; "
                    f"got {frame}: add it first"
                )
            raise ValueError(f"{name} must be from 0 to {self._count - 1}, the clip's last; got {frame}")
        if isinstance(self._pictures, dict) and frame not in self._pictures:
            raise ValueError(
                f"{name} must be a frame that is still kept, {min(self._pictures)} to {self._count - 1}; got "
                f'{frame}: a session with keep="all", or of a list of pictures, has all of them'
            )
        return frame

    def pixels(self, t: int) -> np.ndarray:
        """Frame t for the network, float32 [1, H, W, 3]. Raises ValueError for one that cannot be had."""
        if self._latest is None or self._latest[0] != t:
            self._latest = t, self._prepare(t, self._picture(t))
        return self._latest[1]

    def _picture(self, t: int) -> Any:
        if 0 <= t - self._count < len(self._waiting):
            return _or_raise(self._waiting[t - self._count])
        t = self.check("frame", t)
        try:
            return self._pictures[t]
        except Exception as error:  # of every kind: the caller's own sequence may fail as it likes
            raise ValueError(f"frame {t} could not be read: {error}") from error

    def add(self, picture: Any) -> int:
        """Append a frame; returns its number. Raises ValueError for a clip whose frames are all given."""
        if not isinstance(self._pictures, dict):
            raise ValueError(
                f"frames cannot be added to a clip of {self._count}: make a session without a source"
            )
        if self._waiting:
            raise ValueError(
                f"frames cannot be added while {len(self._waiting)} of the iterator's wait for their turn: "
                "make a session without a source"
            )
        return self._append(_own(picture))

    def _append(self, picture: Any) -> int:
        assert isinstance(self._pictures, dict)
        t = self._count
        if t >= self._sound:
            self._latest = t, self._prepare(t, picture)
        self._pictures[t] = picture
        self._count += 1
        if self.keep is not None:
            self._pictures.pop(t - self.keep, None)
        return t

    def _read_on(self) -> None:
        if not self._waiting:
            self._pull()
        if self._waiting:
            self._append(_or_raise(self._waiting.popleft()))

    def _pull(self) -> None:
        """Read the iterator on by a picture."""
        assert self._iterator is not None
        try:
            self._waiting.append(_own(next(self._iterator)))
        except StopIteration:
            self._iterator = None
        except Exception as error:  # of every kind: an iterator may fail as it likes
            refused = ValueError(f"frame {self._count + len(self._waiting)} could not be read: {error}")
            refused.__cause__ = error
            self._waiting.append(refused)

    def _prepare(self, t: int, picture: Any) -> np.ndarray:
        try:
            if isinstance(picture, PreparedFrame):
                given, (height, width) = picture.pixels[None], picture.size
            else:
                inputs = self._processor(images=picture)
                given, (height, width) = inputs["pixel_values"], inputs["original_sizes"][0].tolist()
            pixels = check_pixels(given, self._config)
        except ValueError as error:
            raise ValueError(f"frame {t}: {error}") from error
        if len(pixels) != 1:
            raise ValueError(f"frame {t} must be one picture; got {len(pixels)}")
        if self._size not in (None, (height, width)):
            raise ValueError(
                f"frame {t} must be of the clip's size, (height, width) {self._size}; got {(height, width)}"
            )
        self._size = height, width
        self._sound = max(self._sound, t + 1)
        return np.asarray(pixels)


def _own(picture: Any) -> Any:
    """A picture that stays as it is when the caller uses its array again for the next frame.

    So does Pillow itself: an animation's frames are all one image, that of the frame sought last.
    """
    if isinstance(picture, Image.Image):
        with suppress(Exception):  # of every kind: what is wrong with it is told when it is prepared
            return picture.copy()
    return picture.copy() if isinstance(picture, np.ndarray) else picture


def _check_apart(name: str, pictures: Any) -> None:
    """Raise ValueError for a list that has one animation instead of its frames."""
    seen: set[int] = set()
    for picture in pictures if isinstance(pictures, (list, tuple)) else ():
        if isinstance(picture, Image.Image):
            if id(picture) in seen and getattr(picture, "n_frames", 1) > 1:
                raise ValueError(
                    f"{name} must be pictures; got one animation several times, which is one picture, the "
                    f"frame sought last: take frame.copy() of each{_OPEN_IT}"
                )
            seen.add(id(picture))


def _or_raise(picture: Any) -> Any:
    if isinstance(picture, ValueError):
        raise picture
    return picture
