"""Media: pictures and clips that were uploaded or named at the start, and their frames."""

import io
import re
import secrets
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.clips.ahead import AHEAD
from sam2_jax.clips.clip import Clip, Source
from sam2_jax.clips.pictures import Animation
from sam2_jax.clips.reading import open_clip, part_of
from sam2_jax.clips.video_file import VideoFile
from sam2_jax.demo.caches import Bounded
from sam2_jax.processing.images import image_size, open_image, pictures_in, reading, to_rgb
from sam2_jax.processing.inputs import Size

# Formats whose pictures move; others that hold several are stacks of pages or views.
_MOVING = ("GIF", "WEBP", "PNG", "AVIF")
# Pillow would have Ghostscript run them.
_PROGRAMS = ("EPS",)
_SHOWN_QUALITY = 95
# Browsers fetch several frames at once, not always in order: so many are read on to reach one.
_READ_ON = 12
_SHOWN_BYTES = 2**27
_LONGEST_NAME = 80
_LONGEST_SHOWN = 65_500  # pixels on a side of a JPEG, to its library


class Picture:
    """A single picture as a source of clips: one frame."""

    rate: float | None = None

    def __init__(
        self, path: Path, max_pixels: int, size: Size | None = None, stem: str | None = None
    ) -> None:
        """Read it, to know that it can be, unless its size is known. stem: if its file is named otherwise."""
        self.path = path
        self._stem = path.stem if stem is None else stem
        self._max_pixels = max_pixels
        self.size: Size = self._pixels().shape[:2] if size is None else size

    def __len__(self) -> int:
        return 1

    def _pixels(self) -> np.ndarray:
        return to_rgb(open_image(self.path, self._max_pixels), max_pixels=self._max_pixels)

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`."""
        for _ in frames:
            yield self._pixels()

    def name(self, frame: int) -> str:
        """The picture's name without its end."""
        return self._stem

    def digest(self) -> str:
        """Not asked for here."""
        raise NotImplementedError


@dataclass(eq=False)
class Medium:
    """A picture or a clip. id: random, whoever knows it may use it. source: where its frames come from.

    Raises ValueError for frames that are too long for a JPEG.
    """

    id: str
    kind: str
    name: str
    source: Source
    upload_bytes: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        height, width = self.size
        if max(height, width) > _LONGEST_SHOWN:
            raise ValueError(
                f"{self.name} is too long to be shown: {width} x {height} pixels; a side may have "
                f"{_LONGEST_SHOWN:,}"
            )
        self._reader = self.clip()
        self._next = 0

    def clip(self) -> Clip:
        """Its frames, for one thread; a picture is a clip of one."""
        return part_of(self.source)

    @property
    def size(self) -> Size:
        """(height, width) of its frames."""
        return self.source.size

    def to_json(self) -> dict[str, Any]:
        """What the page is told of it."""
        height, width = self.size
        about = {"id": self.id, "kind": self.kind, "name": self.name, "width": width, "height": height}
        return {**about, "frames": len(self.source), "rate": self.source.rate}

    @property
    def kept_bytes(self) -> int:
        """Of an uploaded file, and of a clip's frames, a few of which wait in memory to be asked for."""
        height, width = self.size
        return self.upload_bytes + (0 if self.kind == "picture" else (AHEAD + 2) * 3 * height * width)

    def frame(self, t: int) -> np.ndarray:
        """Frame t, uint8 [H, W, 3]. Raises ValueError if it cannot be read."""
        with self._lock:
            return self._read(t)

    def _read(self, t: int) -> np.ndarray:
        if self.kind == "picture":  # a clip would keep it
            return next(self.source.read(range(t, t + 1)))
        return self._reader[t]

    def shown(self, t: int, kept: Bounded[bytes]) -> bytes:
        """Frame t as a JPEG, from what is kept if it is there. Raises ValueError if it cannot be read."""
        if (found := kept.get((self.id, t))) is not None:
            return found
        with self._lock:
            if (found := kept.get((self.id, t))) is not None:
                return found
            first = self._next if self._next <= t < self._next + _READ_ON else t
            for each in range(first, t + 1):
                found = _jpeg(self._read(each))
                kept.put((self.id, each), found, len(found))
            self._next = t + 1
        assert found is not None
        return found

    def close(self) -> None:
        """Let what reads it end, and take an uploaded file away."""
        with self._lock:
            self._reader.close()
        if self.upload_bytes:
            shutil.rmtree(self.source.path.parent, ignore_errors=True)


class Media:
    """All media that are open: those named at the start, which stay, and uploads, so many bytes of them."""

    def __init__(self, max_pixels: int, most_bytes: float) -> None:
        self.max_pixels = max_pixels
        self.folder = Path(tempfile.mkdtemp(prefix="sam2-jax-demo-"))
        self.shown: Bounded[bytes] = Bounded(_SHOWN_BYTES)
        self._opened: dict[str, Medium] = {}
        self._uploads: Bounded[Medium] = Bounded(most_bytes, self._forget)

    @property
    def opened(self) -> list[Medium]:
        """The media that were named at the start."""
        return list(self._opened.values())

    def open(self, path: Path) -> None:
        """Open a picture, a clip or a folder of the machine's own, which stay until the end.

        A folder is a clip if its pictures are of one size; else each is a medium. Raises ValueError for what
        is none of all these.
        """
        sizes = _sizes(path, self.max_pixels) if path.is_dir() else {}
        if len(set(sizes.values())) > 1:
            for file, size in sizes.items():
                self._stay(file.name, "picture", Picture(file, self.max_pixels, size))
        elif path.is_dir():
            self._stay(path.name, "video", open_clip(path, max_pixels=self.max_pixels).source)
        else:
            self._stay(path.name, *_source(path, path.name, self.max_pixels))

    def _stay(self, name: str, kind: str, source: Source) -> None:
        medium = Medium(_new_id(), kind, name, source, 0)
        self._opened[medium.id] = medium

    def new_file(self) -> Path:
        """Where an upload may be written."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "upload"

    def take(self, path: Path, name: str) -> Medium:
        """Open what was written to a `new_file`; what is no medium is gone then. Raises ValueError for it."""
        try:
            kind, source = _source(path, name, self.max_pixels)
            medium = Medium(_new_id(), kind, name, source, path.stat().st_size)
        except BaseException as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            if isinstance(error, ValueError):
                raise ValueError(str(error).replace(str(path), name)) from error
            raise
        self._uploads.put(medium.id, medium, medium.kept_bytes)
        return medium

    def get(self, id_: str) -> Medium | None:
        """A medium by its id; None if there is none, or no longer."""
        return self._opened.get(id_) or self._uploads.get(id_)

    def drop_idle(self, seconds: float) -> None:
        """Let uploads go that nobody has asked for so long."""
        self._uploads.drop_idle(seconds)
        self.shown.drop_idle(seconds)

    def close(self) -> None:
        """Take all uploads away."""
        self._uploads.drop_idle(-1)
        for medium in self.opened:
            medium.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget(self, medium: Medium) -> None:
        self.shown.drop(lambda key: isinstance(key, tuple) and key[0] == medium.id)
        medium.close()


def stem_of(name: str) -> str:
    """A medium's name, without its end, as part of files' names, of which ".." is none."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip(".")
    return stem.encode()[:_LONGEST_NAME].decode(errors="ignore") or "medium"


def _new_id() -> str:
    return secrets.token_urlsafe(12)


def _sizes(folder: Path, max_pixels: int) -> dict[Path, Size]:
    """The size of each picture of a folder that can be read, from its header; warns of others."""
    found: dict[Path, Size] = {}
    for file in pictures_in(folder):
        try:
            found[file] = image_size(file, max_pixels)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=3)
    return found


def _source(path: Path, name: str, max_pixels: int) -> tuple[str, Source]:
    """What a file is, by its content: a picture, a moving one, or else a video."""
    try:
        with reading(path, max_pixels) as file:
            format_, frames = file.format, getattr(file, "n_frames", 1)
    except ValueError as error:
        if "not a picture" not in str(error):
            raise
        return "video", _video(path, name, max_pixels)
    if format_ in _PROGRAMS:
        raise ValueError(f"{name} is a program in PostScript, which is not run: save it as PNG")
    if format_ in _MOVING and frames > 1:
        return "video", Animation(path, max_pixels)
    return "picture", Picture(path, max_pixels, stem=path.stem if path.name == name else stem_of(name))


def _video(path: Path, name: str, max_pixels: int) -> Source:
    try:
        return VideoFile(path, max_pixels)
    except ValueError as error:
        raise ValueError(f"{name} is neither a picture nor a video that can be read here: {error}") from error


def _jpeg(pixels: np.ndarray) -> bytes:
    """What is looked at; the model gets the pixels themselves."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=_SHOWN_QUALITY, subsampling=0)
    return written.getvalue()
