"""COCO's instance annotations: masks as polygons or run lengths, in one JSON file for all pictures."""

import filecmp
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checks import shown
from sam2_jax.processing.images import image_size
from sam2_jax.processing.polygons import polygons_to_mask
from sam2_jax.processing.rle import decode_rle
from sam2_jax.training.examples import Dataset, Entry, dimensions

# Corners farther from the picture's, in pixels, are no outline of anything in it.
_FARTHEST = 1e7
_CROWDS = "annotations with iscrowd 1, many objects in one mask (iscrowd 0 would train on them)"


@dataclass(eq=False)
class _Picture:
    """An image of COCO's, and the segmentations found for it; photo: None if it is left out."""

    name: str
    photo: Path | None = None
    size: tuple[int, int] = (0, 0)
    segmentations: list[Any] = field(default_factory=list)

    def masks(self) -> np.ndarray:
        return np.stack([_mask(segmentation, self.size) for segmentation in self.segmentations])


def open_coco(path: Path, images: Path | None, min_area: int) -> Dataset:
    """COCO's instance annotations, as `open_dataset` says."""
    coco = _read_coco(path)
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    folders = [path.parent, path.parent / "images"] if images is None else [images]
    pictures = _find_pictures(coco["images"], folders, problems)
    for number, annotation in enumerate(coco["annotations"], 1):
        try:
            _add_annotation(annotation, pictures, min_area, left_out)
        except ValueError as error:
            problems.append(f"{_called('annotation', annotation, number)} was left out: {error}")
    entries = []
    for picture in pictures.values():
        if picture.photo and picture.segmentations:
            entries.append(Entry(picture.name, picture.photo, path, picture.masks))
        elif picture.photo:
            left_out["pictures without masks"] += 1
    return Dataset(tuple(entries), problems, left_out)


def _read_coco(path: Path) -> dict[str, list[Any]]:
    try:
        coco = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}); data must be a COCO JSON file or a folder"
        ) from error
    lists = ("images", "annotations")
    if not isinstance(coco, dict) or not all(isinstance(coco.get(key), list) for key in lists):
        raise ValueError(
            f"{path} is not COCO's instance annotations: it must be an object with lists of images and "
            f"annotations; got {', '.join(coco) if isinstance(coco, dict) else repr(coco):.200}"
        )
    return coco


def _called(kind: str, entry: Any, number: int) -> str:
    """What a message calls an entry: by its id, or else its place in the list."""
    if isinstance(entry, dict) and _is_id(entry.get("id")):
        name = f" ({shown(entry['file_name'])})" if "file_name" in entry else ""
        return f"{kind} {shown(entry['id'])}{name}"
    return f"{kind} number {number} of the list"


def _is_id(value: Any) -> bool:
    """Whether this can be an id: COCO has integers, other tools strings, or 1.0."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool) and value == value


def _read_id(entry: Any) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"it must be an object; got {shown(entry)}")
    if not _is_id(entry.get("id")):
        raise ValueError(f"its id must be a number or a string; got {shown(entry.get('id'))}")
    return entry["id"]


def _find_pictures(entries: list[Any], folders: list[Path], problems: list[str]) -> dict[Any, _Picture]:
    """All images that have an id, those that are left out among them, so that their annotations know."""
    pictures: dict[Any, _Picture] = {}
    for number, entry in enumerate(entries, 1):
        try:
            key, name = _read_id(entry), entry.get("file_name")
            if key not in pictures:
                pictures[key] = _Picture(str(name))
                pictures[key].photo, pictures[key].size = _find_photo(entry, folders)
            elif name != pictures[key].name:
                pictures[key].photo = None
                raise ValueError(f"{shown(pictures[key].name)} has the same id and was left out, too")
            else:
                raise ValueError("it is in the list twice; the first is used")
        except ValueError as error:
            problems.append(f"{_called('image', entry, number)} was left out: {error}")
    return pictures


def _find_photo(entry: dict[str, Any], folders: list[Path]) -> tuple[Path, tuple[int, int]]:
    """The file of one of COCO's images and its (height, width), which must be as the entry says."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"its file_name must be a string; got {shown(name)}")
    # Some tools write \ on Windows. os.path tells of impossible names that they are no files, pathlib raises.
    paths = [folder / name.replace("\\", "/") for folder in folders] + [folder / name for folder in folders]
    there = [path for path in dict.fromkeys(paths) if os.path.isfile(path)]
    if not there:
        raise ValueError(
            f"there is no such file in {' or '.join(map(str, folders))}: a file_name is a path from there"
        )
    photo = there[0]
    for other in there[1:]:
        if not _is_copy(photo, other):
            raise ValueError(
                f"{photo} and {other} are two pictures, and one alone can be meant: say in which folder "
                "pictures are, by images (--images)"
            )
    size = image_size(photo)
    said = (entry.get("height", size[0]), entry.get("width", size[1]))
    if said != size:
        raise ValueError(
            f"it is {dimensions(size)}, upright as EXIF has it; the JSON says {shown(said[1])} x "
            f"{shown(said[0])}"
        )
    return photo, size


def _is_copy(photo: Path, other: Path) -> bool:
    try:
        return os.path.samefile(photo, other) or filecmp.cmp(photo, other, shallow=False)
    except OSError as error:
        raise ValueError(f"{photo} or {other} cannot be read: {error.strerror}") from error


def _add_annotation(
    annotation: Any, pictures: dict[Any, _Picture], min_area: int, left_out: Counter[str]
) -> None:
    """Give an annotation to its picture, or count it as left out; ValueError, if it is damaged."""
    if not isinstance(annotation, dict):
        raise ValueError(f"it must be an object; got {shown(annotation)}")
    owner = annotation.get("image_id")
    if not _is_id(owner) or owner not in pictures:
        raise ValueError(f"no image has its image_id, {shown(owner)}")
    if pictures[owner].photo is None:
        return  # the picture's own problem says why
    if (crowd := annotation.get("iscrowd")) not in (0, 1, None):
        raise ValueError(f"its iscrowd must be 0 or 1; got {shown(crowd)}")
    if crowd:
        left_out[_CROWDS] += 1
        return
    segmentation = _read_segmentation(annotation.get("segmentation"), pictures[owner].size)
    area = np.count_nonzero(_mask(segmentation, pictures[owner].size))
    if not area:
        raise ValueError("its mask covers no pixel of the picture")
    if area < min_area:
        left_out[f"masks below {min_area} pixels"] += 1
        return
    pictures[owner].segmentations.append(segmentation)


def _read_segmentation(segmentation: Any, size: tuple[int, int]) -> Any:
    """An annotation's RLE, of a picture's size, or its polygons float64 [2 x corners], checked."""
    if isinstance(segmentation, dict):
        if (said := segmentation.get("size")) != list(size):
            raise ValueError(f"its RLE's size must be the picture's, {list(size)}; got {shown(said)}")
        return segmentation
    if not isinstance(segmentation, list):
        raise ValueError(f"its segmentation must be polygons or an RLE; got {shown(segmentation)}")
    polygons = []
    for polygon in segmentation:
        try:
            corners = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError):
            corners = np.zeros(())
        if corners.ndim != 1 or corners.size % 2 or not (np.abs(corners) <= _FARTHEST).all():
            raise ValueError(f"its polygons must be [x0, y0, x1, y1, ...], in pixels; got {shown(polygon)}")
        if corners.size >= 6:  # a point or a line has no area, as COCO has it
            polygons.append(corners)
    return polygons


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask [H, W] of a segmentation that was read. Polygons: pixels whose centres are in one of them."""
    is_rle = isinstance(segmentation, dict)
    return decode_rle(segmentation) if is_rle else polygons_to_mask(segmentation, *size)
