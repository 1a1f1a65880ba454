"""Which photos are meant by paths of photos and folders."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sam2_jax.image.coco import ANNOTATIONS_FILE
from sam2_jax.image.photo_results import LABELS, OVERLAY, RECORD
from sam2_jax.processing.images import pictures_in


def find_photos(paths: Sequence[Path], of_one_name: bool = False) -> list[Path]:
    """The photos named, and those in the folders named, by name; what `annotate` wrote there is none.

    Warns of what is left out of a folder: folders in it, files of other types. Raises ValueError for what is
    not there and, unless of_one_name, for two of one name, whose results would be one file.
    """
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            photos += _photos_in(path)
        elif path.exists():
            photos.append(path)
        else:
            raise ValueError(f"there is no picture {path}")
    if of_one_name:
        return list({os.path.abspath(photo): photo for photo in photos}.values())
    named: dict[str, Path] = {}
    for photo in photos:
        if f"{photo.name}.{RECORD}" == ANNOTATIONS_FILE:
            raise ValueError(f"the results of {photo} would be named {ANNOTATIONS_FILE}: rename it")
        other = named.setdefault(photo.name, photo)
        if os.path.realpath(other) != os.path.realpath(photo):
            raise ValueError(f"{other} and {photo} have the same name: write them to different folders")
    return list(named.values())


def _photos_in(folder: Path) -> list[Path]:
    pictures = pictures_in(folder)
    names = {picture.name for picture in pictures}
    own = photo_names(names)
    photos = [picture for picture in pictures if picture.name in own]
    known = {*pictures, folder / ANNOTATIONS_FILE, *(folder / f"{name}.{RECORD}" for name in names)}
    others = [p for p in folder.iterdir() if p not in known and not p.name.startswith(".")]
    types = Counter(p.suffix.lower() or "no type" for p in others if not p.is_dir())
    folders = sum(p.is_dir() for p in others)
    left_out = [f"{n} folder{'s' * (n > 1)}, to be named as well if meant" for n in [folders] if n]
    if types:
        kinds = ", ".join(f"{n} of {kind}" for kind, n in types.most_common(5))
        left_out.append(f"{sum(types.values())} files of types that are not read: {kinds}")
    if not photos:
        raise ValueError(f"there is no picture in {folder}" + "".join(f"; {what}" for what in left_out))
    if left_out:
        warnings.warn(f"{folder}: left out: {'; '.join(left_out)}", stacklevel=3)
    return photos


def photo_names(names: Iterable[str]) -> set[str]:
    """Of names of pictures in one folder, those that are not of what `annotate` wrote of another one."""
    given = set(names)
    return {name for name in given if _photo_of(name) not in given}


def _photo_of(name: str) -> str | None:
    """Of which photo this is the name of an overlay or a label map, if it is one."""
    ends = (f".{OVERLAY}", f".{LABELS}")
    return next((name.removesuffix(end) for end in ends if name.endswith(end)), None)
