"""Pictures with the masks of their objects, to train on: COCO's annotations, or photos with label maps.

What is damaged is left out, and said. All that can be known without decoding pictures is looked at when a
dataset is opened; the pictures themselves are read when they are asked for.
"""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sam2_jax.processing.images import image_size, open_image, pictures_in, to_rgb
from sam2_jax.processing.polygons import polygons_to_mask
from sam2_jax.processing.rle import decode_rle

# How the names of label maps end after the whole name of the photo, or after that without its ending.
_AFTER_NAME, _AFTER_STEM = (".labels.png",), ("_mask.png", "_labels.png")
_OVERLAY = ".overlay.png"  # what `sam2-jax generate` draws beside its label maps
# A map of more values is a photo, or was smoothed at its edges; each would be a mask in memory.
_MOST_LABELS = 2000
# Corners farther from the picture's, in pixels, are no outline of anything in it.
_FARTHEST = 1e7


class Example(NamedTuple):
    """A picture and its objects. name: what errors and reports call it.

    image: uint8 [H, W, 3], upright by its EXIF orientation. masks: bool [N, H, W], N >= 1, none empty.
    """

    name: str
    image: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class _Entry:
    """One picture of a dataset, the file that has its masks, and how these [N, H, W] are made."""

    name: str
    photo: Path
    annotated_in: Path
    masks: Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in the order of their source, read from disk one by one: `dataset[i]`, `len(dataset)`.

    problems: a sentence for each thing that is damaged or missing, and left out; those that only show when a
    picture is read are added then. left_out: how many things that are in order were left out, by what they
    are: crowds, masks below min_area, pictures without masks. The parts of a `split` share both.
    """

    entries: tuple[_Entry, ...] = field(repr=False)
    problems: list[str] = field(default_factory=list, repr=False)
    left_out: Counter[str] = field(default_factory=Counter)
    _unreadable: set[_Entry] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Example:
        """Read one example. Raises ValueError if its files are damaged, IndexError if there is none."""
        entry = self.entries[index]
        try:
            image, masks = to_rgb(open_image(entry.photo)), entry.masks()
            # Since it was opened the file changed, or its EXIF orientation comes after its pixels.
            if image.shape[:2] != masks.shape[1:]:
                raise ValueError(f"it is {_by(image.shape)}, its masks {_by(masks.shape[1:])}")
        except ValueError as error:
            raise ValueError(f"{entry.name} cannot be used: {error}") from error
        return Example(entry.name, image, masks)

    def fingerprint(self) -> str:
        """What tells this data from other data, wherever it lies: SHA-256 in hexadecimal.

        Of the pictures' names and sizes in bytes, and of the whole files that have their masks. Raises
        ValueError if one of these cannot be read.
        """
        found = hashlib.sha256()
        try:
            for entry in self.entries:
                found.update(f"{entry.name}\0{entry.photo.stat().st_size}\n".encode(errors="surrogateescape"))
            for path in sorted({entry.annotated_in for entry in self.entries}):
                with path.open("rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return found.hexdigest()

    def readable(self, order: Iterable[int] | None = None) -> Iterator[Example]:
        """The examples in an order, by default their own, without those that are damaged.

        Each of these is warned of and noted in problems, once.
        """
        for index in range(len(self)) if order is None else order:
            try:
                example = self[index]
            except ValueError as error:
                if self.entries[index] not in self._unreadable:
                    self._unreadable.add(self.entries[index])
                    self.problems.append(str(error))
                    warnings.warn(str(error), stacklevel=2)
            else:
                yield example


def open_dataset(data: Path, images: Path | None = None, *, min_area: int = 1) -> Dataset:
    """Open COCO's instance annotations (a JSON file), or a folder of photos with label maps.

    COCO: polygons and both kinds of RLE, cut off at the picture's edges; crowds are left out. A file_name is
    looked for beside the JSON and in its folder images/, or, if images is given, only there.

    Folder: photos are in images, else in FOLDER/images if there is one, else in FOLDER; label maps are in
    FOLDER/masks if there is one, else in FOLDER. NAME.jpg has NAME_mask.png or NAME_labels.png, or
    NAME.jpg.labels.png as `sam2-jax generate` writes it (its annotations.json, which keeps what overlaps,
    opens as COCO), or, where maps and photos are in folders of their own, NAME.png. In a label map 0 is
    background and each other value an object: a palette's index, 1 to 16 bits of grey, or a colour other than
    black. A folder of photos and masks/ may thus be labelled in any editor that does not smooth edges.

    Masks are those of the picture upright, as its EXIF orientation says. Objects of less than min_area pixels
    are left out. What is damaged becomes one of the dataset's problems. Raises ValueError if data is not
    there or neither of these, or nothing in it can be used.
    """
    data, images = Path(data), None if images is None else Path(images)
    if isinstance(min_area, bool) or not isinstance(min_area, int) or min_area < 1:
        raise ValueError(f"min_area must be a whole number of pixels, 1 or more; got {min_area!r}")
    if images is not None and not os.path.isdir(images):
        raise ValueError(f"images must be the folder of the pictures; there is no folder {images}")
    if not os.path.exists(data):
        raise ValueError(f"data must be a COCO JSON file or a folder; there is no {data}")
    dataset = (_open_folder if data.is_dir() else _open_coco)(data, images, min_area)
    if not dataset.entries:
        counted = "".join(f"; left out: {count} {what}" for what, count in dataset.left_out.items())
        raise ValueError(
            f"{data} has nothing to train on{at_first(dataset.problems)}{counted}. It must be a COCO JSON "
            "file, its pictures beside it, in images/ there or where images says; or a folder with NAME.jpg "
            "and NAME_mask.png, or images/NAME.jpg and masks/NAME.png"
        )
    return dataset


def split(dataset: Dataset, held_out: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Part a dataset at random in two, to train on and held out, each in its own order.

    held_out: the share of pictures held out, between 0 and 1; both parts have at least one. The same seed
    parts the same pictures alike. Raises ValueError for a share beyond that and for fewer than two pictures.
    """
    if not isinstance(held_out, (int, float)) or not 0 < held_out < 1:
        raise ValueError(f"held_out must be a share of the pictures between 0 and 1; got {held_out!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more; got {seed!r}")
    total = len(dataset)
    if total < 2:
        raise ValueError(f"to hold pictures out there must be two or more; the dataset has {total}")
    count = min(max(round(held_out * total), 1), total - 1)
    chosen = set(np.random.default_rng(seed).permutation(total)[:count].tolist())

    def part(is_held_out: bool) -> Dataset:
        entries = (entry for i, entry in enumerate(dataset.entries) if (i in chosen) == is_held_out)
        return Dataset(tuple(entries), dataset.problems, dataset.left_out, dataset._unreadable)

    return part(False), part(True)


def at_first(problems: list[str]) -> str:
    """How a message goes on that speaks of problems: how many there are, and the first."""
    return f" ({len(problems)} problems; the first: {problems[0]})" if problems else ""


def _by(shape: tuple[int, ...]) -> str:
    """A shape (height, width, ...) as people say it."""
    return f"{shape[1]} x {shape[0]} pixels"


# Photos with label maps


def _open_folder(folder: Path, images: Path | None, min_area: int) -> Dataset:
    maps_in = folder / "masks" if (folder / "masks").is_dir() else folder
    photos_in = images or (folder / "images" if (folder / "images").is_dir() else folder)
    try:
        maps = {f"{file.stem}.png": file for file in pictures_in(maps_in) if file.suffix.lower() == ".png"}
        photos = pictures_in(photos_in)
    except OSError as error:
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}") from error
    maps = {name: file for name, file in maps.items() if not name.endswith(_OVERLAY)}
    ends = [*_AFTER_NAME, *_AFTER_STEM]
    if maps_in.resolve() != photos_in.resolve():
        ends.append(".png")
    else:  # names alone tell which is which
        maps = {name: file for name, file in maps.items() if name.endswith(tuple(ends))}
        photos = [photo for photo in photos if not photo.name.lower().endswith((*ends, _OVERLAY))]
    entries, problems, owners = [], [], dict[str, str]()
    for photo in photos:
        names = [(photo.name if end in _AFTER_NAME else photo.stem) + end for end in ends]
        found = [name for name in names if name in maps]
        try:
            others = {owners.setdefault(name, photo.name) for name in found} - {photo.name}
            if len(found) != 1:
                raise ValueError(f"it needs one label map in {maps_in}, {' or '.join(names)}; got {found}")
            if others:
                raise ValueError(f"its label map {found[0]} is that of {others.pop()}, too: rename a photo")
            size, map_size = image_size(photo), image_size(maps[found[0]])
            if size != map_size:
                raise ValueError(f"it is {_by(size)}, its label map {found[0]} {_by(map_size)}")
        except ValueError as error:
            problems.append(f"{photo.name} was left out: {error}")
        else:
            labels = maps[found[0]]
            entries.append(_Entry(photo.name, photo, labels, partial(_masks_of_map, labels, min_area)))
    unused = sorted(maps.keys() - owners)
    problems += [
        f"label map {maps[name].name} was left out: it has no photo in {photos_in}" for name in unused
    ]
    return Dataset(tuple(entries), problems)


def _masks_of_map(path: Path, min_area: int) -> np.ndarray:
    """Masks [N, H, W] of a label map's objects, by their values."""
    labels = _labels(open_image(path), path)
    values, areas = np.unique(labels, return_counts=True)
    values = values[(values != 0) & (areas >= min_area)]
    if not 0 < len(values) <= _MOST_LABELS:
        raise ValueError(
            f"label map {path} must have 1 to {_MOST_LABELS} values besides 0, each an object of {min_area} "
            f"pixels or more; got {len(values)}: is it empty, a photo, or smoothed at the edges?"
        )
    return labels == values[:, None, None]


def _labels(image: Image.Image, path: Path) -> np.ndarray:
    """A label map as numbers [H, W], 0 where there is no object."""
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"label map {path} must be grey, RGB or have a palette; got mode {image.mode}")
    pixels = np.asarray(image).astype(np.uint32)
    labels = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    return np.where(pixels[..., 3] > 0, labels, 0) if image.mode == "RGBA" else labels


# COCO's annotations


@dataclass(eq=False)
class _Picture:
    """An image of COCO's, and the segmentations found for it; photo: None if it is left out."""

    name: str
    photo: Path | None = None
    size: tuple[int, int] = (0, 0)
    segmentations: list[Any] = field(default_factory=list)

    def masks(self) -> np.ndarray:
        return np.stack([_mask(segmentation, self.size) for segmentation in self.segmentations])


def _open_coco(path: Path, images: Path | None, min_area: int) -> Dataset:
    coco = _read_coco(path)
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    folders = [path.parent, path.parent / "images"] if images is None else [images]
    pictures = _find_pictures(coco["images"], folders, problems)
    seen: set[Any] = set()
    for number, annotation in enumerate(coco["annotations"], 1):
        try:
            _add_annotation(annotation, pictures, seen, min_area, left_out)
        except ValueError as error:
            problems.append(f"{_called('annotation', annotation, number)} was left out: {error}")
    entries = []
    for picture in pictures.values():
        if picture.photo and picture.segmentations:
            entries.append(_Entry(picture.name, picture.photo, path, picture.masks))
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
        name = f" ({entry['file_name']!r:.200})" if "file_name" in entry else ""
        return f"{kind} {entry['id']!r:.40}{name}"
    return f"{kind} number {number} of the list"


def _is_id(value: Any) -> bool:
    """Whether this can be an id: COCO has integers, other tools strings, or 1.0."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool) and value == value


def _read_id(entry: Any) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"it must be an object; got {entry!r:.100}")
    if not _is_id(entry.get("id")):
        raise ValueError(f"its id must be a number or a string; got {entry.get('id')!r:.100}")
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
                raise ValueError(f"{pictures[key].name!r:.200} has the same id and was left out, too")
            else:
                raise ValueError("it is in the list twice; the first is used")
        except ValueError as error:
            problems.append(f"{_called('image', entry, number)} was left out: {error}")
    return pictures


def _find_photo(entry: dict[str, Any], folders: list[Path]) -> tuple[Path, tuple[int, int]]:
    """The file of one of COCO's images and its (height, width), which must be as the entry says."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"its file_name must be a string; got {name!r:.100}")
    # Some tools write \ on Windows. os.path tells of impossible names that they are no files, pathlib raises.
    paths = [folder / name.replace("\\", "/") for folder in folders] + [folder / name for folder in folders]
    photo = next((path for path in paths if os.path.isfile(path)), None)
    if photo is None:
        raise ValueError(f"there is no such file in {' or '.join(map(str, folders))}")
    size = image_size(photo)
    said = (entry.get("height", size[0]), entry.get("width", size[1]))
    if said != size:
        raise ValueError(
            f"it is {_by(size)}, upright as EXIF has it; the JSON says {said[1]!r:.20} x {said[0]!r:.20}"
        )
    return photo, size


def _add_annotation(
    annotation: Any, pictures: dict[Any, _Picture], seen: set[Any], min_area: int, left_out: Counter[str]
) -> None:
    """Give an annotation to its picture, or count it as left out; ValueError, if it is damaged."""
    key = _read_id(annotation)
    if key in seen:
        raise ValueError("another annotation before it has the same id")
    seen.add(key)
    owner = annotation.get("image_id")
    if not _is_id(owner) or owner not in pictures:
        raise ValueError(f"no image has its image_id, {owner!r:.100}")
    if pictures[owner].photo is None:
        return  # the picture's own problem says why
    if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
        raise ValueError(f"its iscrowd must be 0 or 1; got {crowd!r:.100}")
    if crowd:
        left_out["crowds"] += 1
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
            raise ValueError(f"its RLE's size must be the picture's, {list(size)}; got {said!r:.100}")
        return segmentation
    if not isinstance(segmentation, list):
        raise ValueError(f"its segmentation must be polygons or an RLE; got {segmentation!r:.100}")
    polygons = []
    for polygon in segmentation:
        try:
            corners = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError):
            corners = np.zeros(())
        if corners.ndim != 1 or corners.size % 2 or not (np.abs(corners) <= _FARTHEST).all():
            raise ValueError(f"its polygons must be [x0, y0, x1, y1, ...], in pixels; got {polygon!r:.100}")
        if corners.size >= 6:  # a point or a line has no area, as COCO has it
            polygons.append(corners)
    return polygons


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask [H, W] of a segmentation that was read. Polygons: pixels whose centres are in one of them."""
    is_rle = isinstance(segmentation, dict)
    return decode_rle(segmentation) if is_rle else polygons_to_mask(segmentation, *size)
