"""What a folder has of photos: an overlay, a label map and a record of each, and whether they are its own."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.atomic import write_together
from sam2_jax.image.coco import ANNOTATIONS_FILE, read_head, read_record, write_record
from sam2_jax.processing.drawing import MAX_LABELS, palette_colour, palette_image, tint
from sam2_jax.processing.images import to_rgb
from sam2_jax.processing.rle import decode_rle

OVERLAY, LABELS, RECORD = "overlay.png", "labels.png", "json"
"""Ends of the files' names, after the photo's own."""


@dataclass(frozen=True)
class Photo:
    """A photo and what the folder has of it.

    picture: uint8 [H, W, 3]; None if nothing is to be done. digest: of the file's bytes. record: the photo's
    own, where only pictures are missing beside it. is_outdated: whether there are results of another picture,
    model or settings. masks: how many there are in a result that is right. problem: what is wrong with it.
    """

    path: Path
    digest: str = ""
    picture: np.ndarray | None = None
    record: dict[str, Any] | None = None
    is_outdated: bool = False
    masks: int = 0
    problem: str | None = None


class PhotoResults:
    """A folder of results: which of them are a photo's, and how they are written."""

    def __init__(self, output: Path, made_of: dict[str, Any], draw: bool, max_pixels: int) -> None:
        self.output, self.made_of, self.draw, self.max_pixels = output, made_of, draw, max_pixels

    def look(self, path: Path) -> Photo:
        """See what is there of a photo, and read its picture if there is something to do."""
        photo = Photo(path)
        try:
            photo = replace(photo, digest=_digest(path))
            masks = self._masks_of(photo)
            photo = replace(photo, masks=masks or 0)
            if masks is None:
                photo = replace(photo, is_outdated=self._path(photo, RECORD).exists())
            else:
                wanted = (OVERLAY, LABELS) if self.draw else (LABELS,)
                if all(self._path(photo, kind).exists() for kind in wanted):
                    return photo
                photo = replace(photo, record=read_record(self._path(photo, RECORD)))
            return replace(photo, picture=to_rgb(path, max_pixels=self.max_pixels))
        except FileNotFoundError:
            return replace(photo, problem=f"there is no picture {path}")
        except OSError as error:
            return replace(photo, problem=error.strerror or str(error))
        except ValueError as error:
            return replace(photo, problem=str(error))

    def write(self, photo: Photo, annotations: list[dict[str, Any]]) -> None:
        """Write all files of a photo's masks, the record last: where it is, the photo is done."""
        assert photo.picture is not None
        height, width = photo.picture.shape[:2]
        drawn, labels = _draw(photo.picture, annotations, self.draw)
        writers: dict[Path, Callable[[Path], object]] = {}
        if drawn is not None:
            writers[self._path(photo, OVERLAY)] = lambda path: drawn.save(path, "PNG")
        writers[self._path(photo, LABELS)] = lambda path: labels.save(path, "PNG")
        image = {"id": 1, "file_name": photo.path.name, "width": width, "height": height}
        image |= {"sha256": photo.digest, "masks": len(annotations)}
        record = partial(write_record, made_of=self.made_of, image=image, annotations=annotations)
        if photo.is_outdated:
            self.remove(photo)
        write_together(writers | {self._path(photo, RECORD): record})

    def remove(self, photo: Photo) -> None:
        """Take away a photo's results, the record first."""
        for path in (
            self.output / ANNOTATIONS_FILE,
            *(self._path(photo, k) for k in (RECORD, LABELS, OVERLAY)),
        ):
            path.unlink(missing_ok=True)

    def _masks_of(self, photo: Photo) -> int | None:
        """How many masks a record has that is of this photo's bytes, these weights and these settings."""
        if (head := read_head(self._path(photo, RECORD))) is None:
            return None
        info, image = head
        same = all(info.get(name) == self.made_of[name] for name in ("weights", "settings"))
        masks = image.get("masks")
        return masks if same and image.get("sha256") == photo.digest and isinstance(masks, int) else None

    def _path(self, photo: Photo, kind: str) -> Path:
        return self.output / f"{photo.path.name}.{kind}"


def _draw(
    picture: np.ndarray, annotations: list[dict[str, Any]], with_overlay: bool
) -> tuple[Image.Image | None, Image.Image]:
    """The overlay, if wanted, and the label map as `overlay` and `label_map` make them.

    One mask after the other is drawn, the largest first: all at once would fill the memory.
    """
    labels = np.zeros(picture.shape[:2], np.uint8 if len(annotations) <= MAX_LABELS else np.uint16)
    canvas = picture.astype(np.float32) if with_overlay else None
    for annotation in sorted(annotations, key=lambda annotation: -annotation["area"]):
        mask, label = decode_rle(annotation["segmentation"]), annotation["label"]
        labels[mask] = label
        if canvas is not None:
            tint(canvas, mask, palette_colour(label - 1))
    labelled = palette_image(labels) if len(annotations) <= MAX_LABELS else Image.fromarray(labels)
    return None if canvas is None else Image.fromarray(canvas.round().astype(np.uint8)), labelled


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
