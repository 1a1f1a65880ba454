"""Masks of photos as files of COCO annotations: one for each photo, and one of all that a folder has.

A file is written line by line, what it was made of first, so that it can be recognised without being read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sam2_jax.atomic import write_together
from sam2_jax.json_files import write_lists
from sam2_jax.processing.rle import rle_area, rle_bounding_box

ANNOTATIONS_FILE = "annotations.json"
"""The annotations of all photos of a folder."""

CATEGORIES = ({"id": 1, "name": "object"},)
"""Of masks that nobody has named."""

_DESCRIPTION = "masks found by sam2_jax; label is a mask's value in the photo's label map"


def coco_annotation(number: int, image: int, rle: dict[str, Any], category: int = 1) -> dict[str, Any]:
    """An annotation of a mask, of compressed run lengths, as COCO has it: a box has the last pixel inside."""
    about = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "segmentation": rle}
    return about | {"area": rle_area(rle), "bbox": list(rle_bounding_box(rle))}


def write_record(path: Path, made_of: dict[str, Any], image: dict[str, Any], annotations: list[Any]) -> None:
    """Write one photo's annotations. made_of goes into `info`, beside what the file is."""
    info = {"description": _DESCRIPTION} | made_of
    write_lists(path, info, {"images": [image], "annotations": annotations, "categories": CATEGORIES})


def read_head(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The `info` and the image of a photo's record from its first lines; None if there is no whole record.

    Raises OSError for a path that cannot be one.
    """
    try:
        with path.open(encoding="utf-8") as file:
            info = json.loads("{" + file.readline().strip("{,\n") + "}")["info"]
            image = json.loads("{" + file.readline().strip(",\n") + "}")["images"][0]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, RecursionError):  # another version's, or no record at all
        return None
    return (info, image) if isinstance(info, dict) and isinstance(image, dict) else None


def gather(folder: Path) -> int:
    """Write ANNOTATIONS_FILE from the records of all photos in a folder; returns of how many kinds they are.

    Records of one kind were made by the same model with the same settings: `info` lists the kinds and each
    image says, in made_with, which is its own. Ids of images and annotations are new, since in each record
    they begin at 1. One record after another is read, so that memory does not grow with the folder.
    """
    kinds: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []  # the same without names: a model may have several
    images: list[dict[str, Any]] = []
    for record in _records(folder):
        kind = {k: v for k, v in record["info"].items() if k != "description"}
        nameless = {k: v for k, v in kind.items() if k != "model"}
        if nameless not in compared:
            kinds.append(kind)
            compared.append(nameless)
        images.append(record["images"][0] | {"id": len(images) + 1, "made_with": compared.index(nameless)})

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for image, record in zip(images, _records(folder), strict=True):
            for annotation in record["annotations"]:
                number += 1
                yield annotation | {"id": number, "image_id": image["id"]}

    def write(path: Path) -> None:
        info = {"description": _DESCRIPTION, "made_with": kinds}
        lists = {"images": images, "annotations": annotations(), "categories": CATEGORIES}
        write_lists(path, info, lists)

    write_together({folder / ANNOTATIONS_FILE: write})
    return len(kinds)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of photos in a folder, by the photos' names."""
    for path in sorted(folder.glob("*.json")):
        if (record := read_record(path)) is not None and path.name != ANNOTATIONS_FILE:
            yield record


def read_record(path: Path) -> dict[str, Any] | None:
    """A photo's record; None if there is none, or only a part of one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = [record["info"], *record["images"], *record["annotations"]]
        is_record = f"{record['images'][0]['file_name']}.json" == path.name
        is_record = is_record and all(isinstance(part, dict) for part in parts)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return record if is_record else None
