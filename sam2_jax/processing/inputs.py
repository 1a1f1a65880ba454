"""What the processors are called with: pictures, label maps and sizes in all their forms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.processing.images import open_image

Size = tuple[int, int]
"""Height and width in pixels."""


def as_list(images: Any, rank: int) -> list[Any]:
    """One picture, or an array of more than rank dimensions, or a list, as a list of pictures."""
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    array = np.asarray(images)
    return list(array) if array.ndim > rank else [array]


def read_map(segmentation_map: Any) -> np.ndarray:
    """Read a label map, a path, PIL image or array [H, W] of integers, as int64; ValueError for others."""
    if isinstance(segmentation_map, (str, Path)):
        segmentation_map = open_image(segmentation_map)
    labels = np.asarray(segmentation_map)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "uib":
        raise ValueError(
            "segmentation_maps must be label pictures or arrays [height, width] of integers, one for each "
            f"image; got {type(segmentation_map).__name__} of shape {labels.shape} and type {labels.dtype}"
        )
    return labels.astype(np.int64)


def read_sizes(sizes: Any, name: str = "original_sizes") -> list[Size]:
    """Read (height, width) of each image; raises ValueError for anything else."""
    try:
        array = np.asarray(sizes, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2 or not (array > 0).all() or (array % 1).any():
        raise ValueError(f"{name} must be (height, width) in pixels, for each image; got {sizes!r}")
    return [(int(height), int(width)) for height, width in array]


def to_tensors(inputs: dict[str, np.ndarray], return_tensors: str | None) -> dict[str, Any]:
    """Return numpy arrays as they are for None and "np", as JAX arrays for "jax"; ValueError for others."""
    if return_tensors in (None, "np"):
        return inputs
    if return_tensors != "jax":
        raise ValueError(
            f'return_tensors must be None, "np" or "jax"; got {return_tensors!r}: leave it out, the model '
            "takes numpy arrays"
        )
    import jax.numpy as jnp  # only here: the rest of processing needs no JAX

    return {name: jnp.asarray(value) for name, value in inputs.items()}


def read_size(name: str, value: Any) -> dict[str, int]:
    """A size in any of its forms as {"height": h, "width": w}."""
    pair: Any = value
    if isinstance(value, Mapping):
        pair = (value["height"], value["width"]) if set(value) == {"height", "width"} else None
    elif isinstance(value, (int, np.integer)):
        pair = (value, value)
    is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    if not is_pair or not all(isinstance(side, (int, np.integer)) and side > 0 for side in pair):
        raise ValueError(
            f'{name} must be (height, width) in pixels, {{"height": h, "width": w}} or one side of a square; '
            f"got {value!r}"
        )
    return {"height": int(pair[0]), "width": int(pair[1])}


def read_numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """One number for all channels, or as many as there are."""
    try:
        numbers = (float(values),) * count if np.ndim(values) == 0 else tuple(float(x) for x in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        expected = "a number" if count == 1 else "three numbers, for red, green and blue"
        raise ValueError(f"{name} must be {expected}; got {values!r}")
    return numbers
