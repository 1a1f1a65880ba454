"""Rows of masks to COCO's JSON and back, in a memory that does not grow with their number."""

import json
import tempfile
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.atomic import aside
from sam2_jax.checks import read_whole, shown
from sam2_jax.image.coco import CATEGORIES
from sam2_jax.json_files import write_lists
from sam2_jax.processing.polygons import polygons_to_mask
from sam2_jax.processing.rle import convert_rle, encode_rle, rle_area, rle_bounding_box
from sam2_jax.scale.json_lists import json_items
from sam2_jax.scale.rows import (
    MASKS_IN_A_FILE,
    ROWS_IN_A_FILE,
    Row,
    as_text,
    made_with,
    read_rows,
    row_files,
    row_schema,
    write_rows,
)

_OF_IMAGE = ["id", "path", "height", "width", "error", "model", "options", "seconds"]
# An image and its annotations may lie far apart: both go to one of some files, each small enough to be read.
_BUCKET = 2**23
_MOST_BUCKETS = 256


def rows_to_coco(place: Path, target: Path) -> tuple[int, int]:
    """Write a COCO file of a folder or file of rows; returns how many pictures and masks it has.

    Images have COCO's fields and key, path, model, options and seconds of their rows; annotations are those
    of `sam2-jax generate`. Pictures with an error are in a list `failed` of their own. Raises ValueError if
    the rows cannot be read, if two are of one picture, or if the file cannot be written.
    """
    if not (files := row_files(place)):
        raise ValueError(f"there is no Parquet file in {place}")
    if twice := _ids_again(files):
        raise ValueError(
            f"{place} has two rows of one picture, {twice} times: is there a copy of a file in it?"
        )
    kinds = made_with(files)
    counted: Counter[str] = Counter()

    def images(is_failed: bool) -> Iterator[dict[str, Any]]:
        for row in read_rows(files, _OF_IMAGE):
            if (row["error"] is not None) == is_failed:
                counted["images"] += 1
                about = {"id": counted["images"], "file_name": row["path"] or row["id"], "key": row["id"]}
                about |= {name: row[name] for name in _OF_IMAGE[1:]}
                yield about if is_failed else {k: v for k, v in about.items() if k != "error"}

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for row in read_rows(files, ["height", "width", "masks", "error"]):
            number += row["error"] is None
            for mask in row["masks"] or ():
                counted["masks"] += 1
                yield _annotation(mask, counted["masks"], number, (row["height"], row["width"]))

    info = {"description": "masks found by sam2_jax", "made_with": kinds}
    lists = {"images": images(False), "failed": images(True), "annotations": annotations()}
    with aside(target) as path:
        write_lists(path, info, lists | {"categories": CATEGORIES})
    return counted["images"], counted["masks"]


def _ids_again(files: list[Path]) -> int:
    """How many rows have an id that one before has. Of each id eight bytes are kept."""
    hashes = array("q", (hash(row["id"]) for row in read_rows(files, ["id"])))
    return len(hashes) - len(np.unique(np.frombuffer(hashes, np.int64))) if hashes else 0


def _annotation(mask: Row, number: int, image: int, size: tuple[int, int]) -> dict[str, Any]:
    if mask is None or mask["counts"] is None or None in size:
        raise ValueError(f"a mask of image {image} must have counts, and its image a size; got {shown(mask)}")
    point = mask["point"]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": {"size": list(size), "counts": mask["counts"]},
        "area": mask["area"],
        "bbox": mask["bbox"],
        "predicted_iou": mask["predicted_iou"],
        "stability_score": mask["stability"],
        "point_coords": None if point is None else [point],
    }


def coco_to_rows(source: Path, folder: Path) -> tuple[int, int]:
    """Write a folder of rows from a COCO file; returns how many pictures and masks they have.

    Polygons become run lengths, as the pixels whose centres are inside. Of files that `rows_to_coco` has not
    written the file's name is id and path, and model and options are null. Rows have no categories: a warning
    says so, and how many crowds were left out. Raises ValueError if the file cannot be read, has no images or
    two of one name, if an annotation is damaged or is of no image, or if the folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new folder for the rows")
    if not source.is_file():
        raise ValueError(f"there is no file {source}")
    counted: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix=".sam2_jax.", dir=_folder_that_exists(folder)) as spill,
        aside(folder, is_folder=True) as new,
    ):
        made, buckets = _divide(source, Path(spill), counted)
        rows: list[Row] = []
        masks = 0
        for bucket in buckets:
            for row in _rows_of(bucket, source):
                rows.append(row)
                masks += len(row["masks"])
                if len(rows) >= ROWS_IN_A_FILE or masks >= MASKS_IN_A_FILE:
                    write_rows(new, rows, row_schema(made))
                    counted["masks"] += masks
                    rows, masks = [], 0
        if rows:
            write_rows(new, rows, row_schema(made))
            counted["masks"] += masks
        if not counted["images"]:
            raise ValueError(f"{source} lists no images and no videos: nothing can be made of it")
        if twice := _ids_again(row_files(new)):
            raise ValueError(
                f"{source} has images of one file_name, {twice} more than names: the name is a row's id, and "
                "must be of one image alone"
            )
    if counted["categories"] > 1 or counted["crowds"]:
        warnings.warn(
            f"{source}: rows have no categories; {counted['crowds']} crowds were left out", stacklevel=2
        )
    return counted["images"], counted["masks"]


def _folder_that_exists(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _divide(source: Path, spill: Path, counted: Counter[str]) -> tuple[Any, list[Path]]:
    """Lay images and their annotations into files together; returns what they are made with, if known."""
    count = min(1 + source.stat().st_size // _BUCKET, _MOST_BUCKETS)
    paths = [spill / f"{i}.jsonl" for i in range(count)]
    made = None
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for name, item in json_items(source):
            if name == "info":
                kinds = item.get("made_with") if isinstance(item, dict) else None
                made = kinds[0] if isinstance(kinds, list) and kinds and isinstance(kinds[0], dict) else None
            elif name in ("images", "failed", "annotations"):
                owner = (
                    item.get("id" if name != "annotations" else "image_id")
                    if isinstance(item, dict)
                    else None
                )
                if isinstance(owner, bool) or not isinstance(owner, (int, str)):
                    raise ValueError(f"{source}: {shown(item)} in {name} has no id of an image")
                if name == "annotations" and item.get("iscrowd"):
                    counted["crowds"] += 1
                    continue
                counted["images"] += name != "annotations"
                files[hash(str(owner)) % count].write(json.dumps([name, owner, item]) + "\n")
            elif name == "categories":
                counted["categories"] += 1
    return made, paths


def _rows_of(bucket: Path, source: Path) -> Iterable[Row]:
    """The rows of images and annotations that lie together, images in their order."""
    images: dict[Any, dict[str, Any]] = {}
    found: dict[Any, list[Any]] = {}
    with bucket.open(encoding="utf-8") as file:
        for line in file:
            name, owner, item = json.loads(line)
            if name == "annotations":
                found.setdefault(owner, []).append(item)
            elif owner in images:
                raise ValueError(f"{source} has two images of the id {shown(owner)}")
            else:
                images[owner] = item
    if lost := found.keys() - images.keys():
        raise ValueError(f"{source} has annotations of an image {shown(lost.pop())}, which it does not have")
    for owner, image in images.items():
        try:
            yield _row(image, found.pop(owner, []))
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{source}, image {shown(owner)}: {error}") from error


def _row(image: dict[str, Any], annotations: list[Any]) -> Row:
    name = image.get("file_name")
    if not isinstance(name, str):
        raise ValueError(f"its file_name must be a string; got {shown(name)}")
    name = as_text(name)
    row = {column: image.get(column) for column in _OF_IMAGE}
    is_ours = "key" in image
    if is_ours:
        row["id"] = image["key"]
    else:
        row |= {"id": name, "path": name}
    size = 0, 0
    if row["error"] is None:
        size = read_whole("its height", row["height"], 1), read_whole("its width", row["width"], 1)
    return row | {"masks": [_mask(annotation, size, is_ours) for annotation in annotations]}


def _mask(annotation: dict[str, Any], size: tuple[int, int], is_ours: bool) -> dict[str, Any]:
    """One of a row's masks. is_ours: what was written by `rows_to_coco` comes back as it was."""
    segmentation = annotation.get("segmentation")
    box, area = annotation.get("bbox"), annotation.get("area")
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != list(size):
            raise ValueError(
                f"a mask's size must be the picture's, {size}; got {shown(segmentation.get('size'))}"
            )
        counts = segmentation.get("counts")
        is_ours = is_ours and isinstance(counts, str)
        if not is_ours:
            segmentation = convert_rle(segmentation, compressed=True)
    elif isinstance(segmentation, list):
        is_ours = False
        corners = [polygon for polygon in segmentation if len(polygon) >= 6]
        drawn = polygons_to_mask(corners, *size) if corners else np.zeros(size, bool)
        segmentation = encode_rle(drawn, compressed=True)
    else:
        raise ValueError(f"a segmentation must be polygons or run lengths; got {shown(segmentation)}")
    if not is_ours:
        box, area = rle_bounding_box(segmentation), rle_area(segmentation)
    points = annotation.get("point_coords")
    return {
        "counts": segmentation["counts"],
        "bbox": box,
        "area": area,
        "predicted_iou": annotation.get("predicted_iou", annotation.get("score")),
        "stability": annotation.get("stability_score"),
        "point": points[0] if points else None,
    }
