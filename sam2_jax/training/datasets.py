"""Opening a dataset: COCO's annotations, or photos with label maps.

All that can be known without decoding pictures is looked at then; the pictures are read when asked for.
"""

import os
from dataclasses import replace
from pathlib import Path

from sam2_jax.checks import cut, read_flag, read_whole, shown
from sam2_jax.training.coco import open_coco
from sam2_jax.training.examples import Dataset, at_first
from sam2_jax.training.label_maps import open_label_maps


def open_dataset(
    data: str | Path, images: str | Path | None = None, *, min_area: int = 1, one_object: bool = False
) -> Dataset:
    """Open COCO's instance annotations (a JSON file), or a folder of photos with label maps.

    COCO: polygons and both kinds of RLE, cut off at the picture's edges; crowds are left out. A file_name is
    looked for beside the JSON and in its folder images/, or, if images is given, only there.

    Folder: photos are in images, else in FOLDER/images if there is one, else in FOLDER; label maps are in
    FOLDER/masks if there is one, else in FOLDER. NAME.jpg has NAME_mask.png or NAME_labels.png, or
    NAME.jpg.labels.png as `sam2-jax generate` writes it (its annotations.json, which keeps what overlaps,
    opens as COCO), or, where maps and photos are in folders of their own, NAME.png. In a label map 0 is
    background and each other value an object: a palette's index, 1 to 16 bits of grey, or a colour other than
    black. A folder of photos and masks/ may thus be labelled in any editor that does not smooth edges. With
    one_object, each map is of one object instead: what is at least half as bright as its brightest pixel.

    Masks are those of the picture upright, as its EXIF orientation says. Objects of less than min_area pixels
    are left out. What is damaged becomes one of the dataset's problems. Raises ValueError if data is not
    there or neither of these, or nothing in it can be used.
    """
    data, images = _path("data", data), None if images is None else _path("images", images)
    min_area, one_object = read_whole("min_area", min_area, 1), read_flag("one_object", one_object)
    if images is not None and not os.path.isdir(images):
        raise ValueError(
            f"images must be the folder of the pictures; there is no folder {cut(str(images), 200)}"
        )
    if not os.path.exists(data):
        raise ValueError(f"data must be a COCO JSON file or a folder; there is no {cut(str(data), 200)}")
    if data.is_dir():
        dataset = open_label_maps(data, images, min_area, one_object)
    elif one_object:
        raise ValueError(f"one_object is of label maps, in a folder; {data} is a file")
    else:
        dataset = open_coco(data, images, min_area)
    if not dataset.entries:
        counted = "".join(f"; left out: {count} {what}" for what, count in dataset.left_out.items())
        raise ValueError(
            f"{data} has nothing to train on{at_first(dataset.problems)}{counted}. It must be a COCO JSON "
            "file, its pictures beside it, in images/ there or where images says; or a folder with NAME.jpg "
            "and NAME_mask.png, or images/NAME.jpg and masks/NAME.png"
        )
    return replace(dataset, read_as=f"min_area {min_area}, one_object {one_object}")


def _path(name: str, path: object) -> Path:
    if not isinstance(path, (str, Path)):
        raise ValueError(f"{name} must be a path; got {shown(path)}")
    return Path(path)
