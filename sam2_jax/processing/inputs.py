"""What the processors are called with: pictures, label maps and sizes in all their forms."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.checks import read_array, read_numbers, read_whole, shown
from sam2_jax.processing.batch_feature import BatchFeature
from sam2_jax.processing.images import open_image

Size = tuple[int, int]
"""Height and width in pixels."""

LARGEST_SIDE = 8192
"""Of what pictures are resized to, in pixels; the released models take 1024."""

MOST_PIXELS = 2**30
"""Of a mask that is drawn, a byte each; whoever asks for more has mistaken the size."""


def as_list(name: str, images: Any, rank: int) -> list[Any]:
    """One picture, an array of more than rank dimensions or a list as a list of pictures.

    Numbers in nested lists are the array that they write down. Raises ValueError for a list of a picture's
    rows, which would pass for small grey pictures.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, (list, tuple)) and not (images and isinstance(images[0], (list, tuple))):
        shapes: list[tuple[int, ...]] = [getattr(image, "shape", ()) for image in images]
        if rank == 3 and shapes and all(len(shape) == 2 and shape[1] in (1, 3, 4) for shape in shapes):
            raise ValueError(
                f"{name} are arrays of shape {shapes[0]}, which look like the rows of one picture: give it "
                "as one array, numpy.stack(rows); grey pictures as [height, width, 1]"
            )
        return list(images)
    array = read_array(name, images, "a path, a PIL image, an array or a list of these")
    return list(array) if array.ndim > rank else [array]


def read_map(segmentation_map: Any) -> np.ndarray:
    """Read a label map, a path, PIL image or array [H, W] of integers, as int64; ValueError for others."""
    if isinstance(segmentation_map, (str, os.PathLike)):
        segmentation_map = open_image(segmentation_map)
    expected = "label pictures or arrays [height, width] of integers, one for each image"
    labels = read_array("segmentation_maps", segmentation_map, expected)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "uib":
        raise ValueError(
            f"segmentation_maps must be {expected}; got {type(segmentation_map).__name__} of shape "
            f"{labels.shape} and type {labels.dtype}"
        )
    return labels.astype(np.int64)


def check_return_tensors(return_tensors: Any) -> None:
    """Raise ValueError for a kind of arrays that there is not."""
    if return_tensors is not None and (
        not isinstance(return_tensors, str) or return_tensors not in ("np", "jax")
    ):
        raise ValueError(
            f'return_tensors must be None, "np" or "jax"; got {shown(return_tensors)}: leave it out, the '
            "model takes numpy arrays"
        )


def to_tensors(inputs: Mapping[str, np.ndarray], return_tensors: str | None) -> BatchFeature:
    """Return numpy arrays as they are for None and "np", as JAX arrays for "jax"; ValueError for others."""
    check_return_tensors(return_tensors)
    if return_tensors != "jax":
        return BatchFeature(inputs)
    import jax.numpy as jnp  # only here: the rest of processing needs no JAX

    return BatchFeature({name: jnp.asarray(value) for name, value in inputs.items()})


def read_sizes(sizes: Any, name: str = "original_sizes") -> list[Size]:
    """Read (height, width) of each image; raises ValueError for anything else."""
    expected = "(height, width) in pixels, for each image"
    array = read_numbers(name, sizes, expected)
    if array.ndim != 2 or array.shape[1] != 2 or not (array > 0).all() or (array % 1).any():
        raise ValueError(f"{name} must be {expected}; got {shown(sizes)}")
    if array.size and array.prod(axis=1).max() > MOST_PIXELS:
        raise ValueError(f"{name} must be {expected}, {MOST_PIXELS:,} in all at most; got {shown(sizes)}")
    return [(int(height), int(width)) for height, width in array]


def read_size(name: str, value: Any) -> dict[str, int]:
    """A size in any of its forms as {"height": h, "width": w}."""
    pair: Any
    if isinstance(value, Mapping):
        pair = [value[side] for side in ("height", "width")] if set(value) == {"height", "width"} else []
    else:
        is_pair = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
        pair = value if is_pair else (value, value)
    try:
        height, width = (read_whole(name, side, 1, LARGEST_SIDE) for side in pair)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'{name} must be (height, width) in pixels, {{"height": h, "width": w}} or one side of a square, '
            f"each at most {LARGEST_SIDE}; got {shown(value)}"
        ) from error
    return {"height": height, "width": width}
