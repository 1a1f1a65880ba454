"""Photos with label maps: pictures in which every object has a value of its own."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from sam2_jax.processing.images import image_size, open_image, pictures_in
from sam2_jax.training.examples import Dataset, Entry, dimensions

# How the names of label maps end after the whole name of the photo, or after that without its ending.
_AFTER_NAME, _AFTER_STEM = (".labels.png",), ("_mask.png", "_labels.png")
_OVERLAY = ".overlay.png"  # what `sam2-jax generate` draws beside its label maps
# A map of more values is a photo, or was smoothed at its edges; each would be a mask in memory.
_MOST_LABELS = 2000


def open_label_maps(folder: Path, images: Path | None, min_area: int, one_object: bool) -> Dataset:
    """A folder of photos with label maps, as `open_dataset` says."""
    maps_in = folder / "masks" if (folder / "masks").is_dir() else folder
    photos_in = images or (folder / "images" if (folder / "images").is_dir() else folder)
    try:
        maps: dict[str, list[Path]] = {}  # several: on most systems a.png and a.PNG are two files
        for file in pictures_in(maps_in):
            if file.suffix.lower() == ".png":
                maps.setdefault(f"{file.stem}.png", []).append(file)
        photos = pictures_in(photos_in)
    except OSError as error:
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}") from error
    maps = {name: files for name, files in maps.items() if not name.endswith(_OVERLAY)}
    ends = [*_AFTER_NAME, *_AFTER_STEM]
    if maps_in.resolve() != photos_in.resolve():
        ends.append(".png")
    else:  # names alone tell which is which
        maps = {name: files for name, files in maps.items() if name.endswith(tuple(ends))}
        photos = [photo for photo in photos if not photo.name.lower().endswith((*ends, _OVERLAY))]
    entries, problems, owners = [], [], dict[str, str]()
    for photo in photos:
        names = [(photo.name if end in _AFTER_NAME else photo.stem) + end for end in ends]
        found = [name for name in names if name in maps]
        try:
            others = {owners.setdefault(name, photo.name) for name in found} - {photo.name}
            files = [file for name in found for file in maps[name]]
            if len(files) != 1:
                got = [file.name for file in files]
                raise ValueError(f"it needs one label map in {maps_in}, {' or '.join(names)}; got {got}")
            if others:
                raise ValueError(f"its label map {found[0]} is that of {others.pop()}, too: rename a photo")
            size, map_size = image_size(photo), image_size(files[0])
            if size != map_size:
                raise ValueError(f"it is {dimensions(size)}, its label map {found[0]} {dimensions(map_size)}")
        except ValueError as error:
            problems.append(f"{photo.name} was left out: {error}")
        else:
            masks = partial(_masks_of_map, files[0], min_area, one_object)
            entries.append(Entry(photo.name, photo, files[0], masks))
    unused = sorted(maps.keys() - owners)
    problems += [
        f"label map {file.name} was left out: it has no photo in {photos_in}"
        for name in unused
        for file in maps[name]
    ]
    return Dataset(tuple(entries), problems)


def _masks_of_map(path: Path, min_area: int, one_object: bool) -> np.ndarray:
    """Masks [N, H, W] of a label map's objects: by their values, or of the one that is bright."""
    image = open_image(path)
    labels = bright(image) if one_object else _labels(image, path)
    all_values, areas = np.unique(labels, return_counts=True)
    values = all_values[(all_values != 0) & (areas >= min_area)]
    if not 0 < len(values) <= _MOST_LABELS:
        raise ValueError(
            f"label map {path} must have 1 to {_MOST_LABELS} values besides 0, each an object of {min_area} "
            f"pixels or more; got {len(values)}: is it empty, a photo, or smoothed at the edges?"
        )
    if between := _values_between(labels, all_values, areas):
        raise ValueError(
            f"label map {path} looks smoothed at its edges (anti-aliased), or like a photo: {between} of its "
            f"{np.count_nonzero(all_values)} values lie between two others. Save label maps as PNG without "
            "smoothing; or if each shows one object, bright on black, give one_object=True (--one-object)"
        )
    return labels == values[:, None, None]


def _values_between(labels: np.ndarray, values: np.ndarray, areas: np.ndarray) -> int:
    """How many values of a map are no objects, but steps from one to another; 0 if few are.

    Almost every pixel of such a step touches both a lower and a higher value. At least two such steps, as
    many as objects or more, come of smoothing; most of all pixels being so, of a photo.
    """
    objects = np.count_nonzero(values)
    if objects < 3:
        return 0
    lowest, highest = minimum_filter(labels, 3, mode="nearest"), maximum_filter(labels, 3, mode="nearest")
    steps, counts = np.unique(labels[(lowest < labels) & (labels < highest)], return_counts=True)
    most = counts >= 0.9 * areas[np.searchsorted(values, steps)]
    is_photo = counts.sum() > 0.5 * areas[values != 0].sum()
    found = len(steps) if is_photo else int(np.count_nonzero(most))
    return found if found >= 2 and 2 * found >= objects else 0


def bright(image: Image.Image) -> np.ndarray:
    """Where a map is at least half as bright as where it is brightest: [H, W], 1 there and 0 elsewhere."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
    else:  # what is transparent is black
        visible = Image.new("RGBA", image.size, "black")
        visible.alpha_composite(image.convert("RGBA"))
        grey = np.asarray(visible.convert("L")).astype(np.int64)
    return ((grey > 0) & (2 * grey >= grey.max())).astype(np.uint8)


def _labels(image: Image.Image, path: Path) -> np.ndarray:
    """A label map as numbers [H, W], 0 where there is no object."""
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"label map {path} must be grey, RGB or have a palette; got mode {image.mode}")
    pixels = np.asarray(image).astype(np.uint32)
    labels = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    return np.where(pixels[..., 3] > 0, labels, 0) if image.mode == "RGBA" else labels
