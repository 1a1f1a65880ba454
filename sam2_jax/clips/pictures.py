"""Clips of pictures: a folder of them, or an animation that Pillow reads."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ImageOps

from sam2_jax.processing.images import MAX_PIXELS, image_size, natural_order, pictures_in, reading, to_rgb

BACKWARDS = 16
"""So many frames are kept to yield frames backwards which can only be read forwards."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises ValueError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


class PictureFolder:
    """The pictures of a folder in natural order: frame2.jpg comes before frame10.jpg.

    Raises ValueError for a folder without pictures, or with two of one name but for its end.
    """

    rate: float | None = None

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self._max_pixels = max_pixels
        self._files = sorted(pictures_in(path), key=lambda file: natural_order(file.stem))
        if not self._files:
            raise ValueError(
                f"there is no picture in {path}: a clip is a video file, or a folder of its frames"
            )
        stems: dict[str, Path] = {}
        for file in self._files:
            if (other := stems.setdefault(file.stem, file)) != file:
                raise ValueError(
                    f"{path} has two pictures of one name, {other.name} and {file.name}: a clip's folder has "
                    "one for each frame, and nothing else"
                )
        self.size = image_size(self._files[0], max_pixels)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`."""
        for frame in frames:
            yield to_rgb(self._files[frame], max_pixels=self._max_pixels)

    def name(self, frame: int) -> str:
        """The picture's name without its end."""
        return self._files[frame].stem

    def digest(self) -> str:
        """See `Source`; names count as well."""
        found = hashlib.sha256()
        for file in self._files:
            found.update(f"{file.name}\n{file_digest(file)}\n".encode(errors="surrogateescape"))
        return found.hexdigest()


class Animation:
    """An animated GIF, WebP or PNG, or any other picture with frames; a picture is a clip of one.

    Its rate is what the first frame says: to know how long all are shown, all would have to be decoded. A PNG
    may begin with a picture for programs that show no animations: that is no frame of it.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self._max_pixels = max_pixels
        with reading(path, max_pixels) as file:
            # A phone's JPEG has other views of the scene, or its brightness, behind the photo.
            count = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            self._first = int(count > 1 and getattr(file, "default_image", False))
            self._count = count - self._first
            file.seek(self._first)
            file.load()
            milliseconds = file.info.get("duration", 0)
        self.rate = 1000 / milliseconds if milliseconds else None
        self.size = next(self.read(range(1))).shape[:2]

    def __len__(self) -> int:
        return self._count

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`. Frames build upon those before them and are read forwards, a few at a time."""
        if frames.step > 0:
            yield from self._forwards(frames)
        for i in range(0, len(frames) if frames.step < 0 else 0, BACKWARDS):
            yield from reversed(list(self._forwards(frames[i : i + BACKWARDS][::-1])))

    def _forwards(self, frames: range) -> Iterator[np.ndarray]:
        with reading(self.path, self._max_pixels) as file:
            for frame in frames:
                file.seek(self._first + frame)
                yield to_rgb(ImageOps.exif_transpose(file), max_pixels=self._max_pixels)

    def name(self, frame: int) -> str:
        """The frame's number in five digits."""
        return f"{frame:05}"

    def digest(self) -> str:
        """See `Source`."""
        return file_digest(self.path)
