"""All masks of many photos as files: overlays, label maps, COCO annotations; begun again where it stopped."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sam2_jax.atomic import write_together
from sam2_jax.image.automatic import AutomaticMaskGenerator, GeneratedMask
from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.drawing import MAX_LABELS, Drawn, label_map, overlay, palette_image
from sam2_jax.processing.images import open_image, pictures_in, to_rgb
from sam2_jax.processing.read_ahead import read_ahead

ANNOTATIONS_FILE = "annotations.json"
"""The COCO annotations of all photos of a folder."""


@dataclass
class Summary:
    """What has been done. skipped: photos that were done before. failed: what was wrong, by photo."""

    photos: int = 0
    skipped: int = 0
    masks: int = 0
    failed: dict[Path, str] = field(default_factory=dict)


def find_photos(paths: Sequence[Path]) -> list[Path]:
    """The photos named, and those in the folders named, by name.

    Raises ValueError for what is not there, and for two of one name, whose results would be one file.
    """
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = pictures_in(path)
            if not inside:
                raise ValueError(f"there is no picture in {path}")
            photos += inside
        elif path.exists():
            photos.append(path)
        else:
            raise ValueError(f"there is no picture {path}")
    named: dict[str, Path] = {}
    for photo in photos:
        other = named.setdefault(photo.name, photo)
        if other.resolve() != photo.resolve():
            raise ValueError(f"{other} and {photo} have the same name: write them to different folders")
    return list(named.values())


def annotate(
    generator: AutomaticMaskGenerator,
    photos: Sequence[Path],
    output: Path,
    *,
    model_name: str = "",
    progress: bool = True,
) -> Summary:
    """Find the masks of photos and write them to a folder; a photo that was done before is left alone.

    For PHOTO.jpg there are PHOTO.jpg.overlay.png, PHOTO.jpg.labels.png (see `label_map`; a palette, or 16
    bits for more than 255 masks) and PHOTO.jpg.json, which appears last; in the end ANNOTATIONS_FILE holds
    all that the folder has, in COCO's layout. A photo at fault is noted and does not stop the rest.
    model_name is recorded. progress shows bars. Raises ValueError if the folder cannot be written, or was
    made with other settings.
    """
    settings = _settings(generator, model_name)
    summary = Summary()
    waiting = []
    for photo in photos:
        if (made := _read_done(output, photo)) is None:
            waiting.append(photo)
        elif made["info"]["settings"] != settings:
            raise ValueError(
                f"{_path(output, photo, 'json')} was made with other settings or another model: choose "
                "another folder, or remove it"
            )
        else:
            summary.skipped += 1
            summary.masks += len(made["annotations"])
    with (
        tqdm(waiting, desc="photos", unit="photo", disable=not progress or len(waiting) < 2) as bar,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        for photo, picture in zip(waiting, read_ahead(_read, waiting), strict=True):
            try:
                if isinstance(picture, ValueError):
                    raise picture
                found = generator.find(picture, progress)
            except ValueError as error:  # unreadable, or too small for so many layers of crops
                summary.failed[photo] = str(error)
            else:
                summary.photos += 1
                summary.masks += len(found)
                if writing:
                    writing.result()
                writing = writer.submit(_write_photo, output, photo, picture, found, settings)
            bar.update()
            bar.set_postfix(masks=summary.masks, failed=len(summary.failed))
        if writing:
            writing.result()
    _write_all(output, [photo for photo in photos if photo not in summary.failed], settings)
    return summary


def _read(photo: Path) -> np.ndarray | ValueError:
    """A photo's picture, or what is wrong with it."""
    try:
        return to_rgb(open_image(photo))
    except ValueError as error:
        return error


def _settings(generator: AutomaticMaskGenerator, model_name: str) -> dict[str, Any]:
    options = asdict(generator.options)
    if options["point_grids"] is not None:
        options["point_grids"] = [grid.tolist() for grid in options["point_grids"]]
    return {"model": model_name} | options


def _path(output: Path, photo: Path, kind: str) -> Path:
    return output / f"{photo.name}.{kind}"


def _read_done(output: Path, photo: Path) -> dict[str, Any] | None:
    """What was written for a photo, if it was finished."""
    try:
        made = json.loads(_path(output, photo, "json").read_text(encoding="utf-8"))
        return made if made["info"]["settings"] and made["images"] and "annotations" in made else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_photo(
    output: Path, photo: Path, picture: np.ndarray, found: list[GeneratedMask], settings: dict[str, Any]
) -> None:
    masks = np.array([each.mask for each in found]).reshape(-1, *picture.shape[:2])
    labels = label_map(masks)
    labelled = palette_image(labels) if len(masks) <= MAX_LABELS else Image.fromarray(labels)
    drawn = overlay(picture, [Drawn(mask) for mask in masks])
    height, width = picture.shape[:2]
    image = {"id": 1, "file_name": photo.name, "width": width, "height": height}
    annotations = [_annotation(each, number) for number, each in enumerate(found, 1)]
    write_together(
        {
            _path(output, photo, "overlay.png"): lambda path: drawn.save(path, "PNG"),
            _path(output, photo, "labels.png"): lambda path: labelled.save(path, "PNG"),
            # Moved into place last: where it is, the photo is done.
            _path(output, photo, "json"): _coco_writer([image], annotations, settings),
        }
    )


def _annotation(found: GeneratedMask, number: int) -> dict[str, Any]:
    """The generator's record as COCO's annotation, whose box has the last pixel inside."""
    of_coco = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0}
    return found.record("coco_rle") | of_coco | {"bbox": list(bounding_box(found.mask))}


def _write_all(output: Path, photos: Sequence[Path], settings: dict[str, Any]) -> None:
    """Gather what was written for the photos into one file of COCO annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(photos, 1):
        made = _read_done(output, photo)
        if made is None:
            continue
        images.append(made["images"][0] | {"id": number})
        for annotation in made["annotations"]:
            annotations.append(annotation | {"id": len(annotations) + 1, "image_id": number})
    write_together({output / ANNOTATIONS_FILE: _coco_writer(images, annotations, settings)})


def _coco_writer(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], settings: dict[str, Any]
) -> Callable[[Path], object]:
    """What writes these in COCO's layout to a path."""
    coco = {
        "info": {"description": "masks found by sam2_jax", "settings": settings},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    text = json.dumps(coco) + "\n"
    return lambda path: path.write_text(text, encoding="utf-8")
