"""Masks of clips as pictures: label maps as DAVIS has them, a folder for each object as SA-V has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from sam2_jax.atomic import aside
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.tracks import Add, TrackedFrame
from sam2_jax.processing.drawing import palette_image


@contextmanager
def label_maps(folder: Path, clip: Clip) -> Iterator[Add]:
    """A folder of PNGs with a palette, one for each frame; a pixel is the id of its object, 0 of none.

    Where masks overlap the smaller lies above the larger. Raises ValueError for ids beyond 255.
    """
    with aside(folder, is_folder=True) as path:

        def add(found: TrackedFrame, picture: np.ndarray) -> None:
            labels = np.zeros(picture.shape[:2], np.uint16)
            for track in sorted(found.tracks, key=lambda track: -track.area):
                labels[track.mask] = track.object_id
            palette_image(labels).save(path / f"{clip.name(found.t)}.png", "PNG")

        yield add


@contextmanager
def object_masks(folder: Path, clip: Clip) -> Iterator[Add]:
    """A folder for each object, named by its id in three digits, of black and white PNGs, one for each frame.

    Masks may overlap. There are none of frames before the object was first looked for.
    """
    with aside(folder, is_folder=True) as path:

        def add(found: TrackedFrame, picture: np.ndarray) -> None:
            for track in found.tracks:
                own = path / f"{track.object_id:03}"
                own.mkdir(exist_ok=True)
                Image.fromarray(track.mask).save(own / f"{clip.name(found.t)}.png", "PNG")

        yield add
