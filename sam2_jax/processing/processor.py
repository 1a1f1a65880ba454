"""`Sam2Processor`: photos and prompts to the network's inputs, its outputs to masks of the photos."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from sam2_jax.hub import PROCESSOR_FILES, HubFolder
from sam2_jax.processing import masks as mask_tools
from sam2_jax.processing.images import normalize, resize, to_rgb
from sam2_jax.processing.prompts import Size, read_boxes, read_points


class Sam2Processor:
    """Prepares pictures and prompts, and turns mask logits into masks of the pictures' own size.

    size: (height, width) of the network's input; pictures are squeezed to it, their aspect ratio not kept.
    """

    def __init__(
        self,
        size: Size = (1024, 1024),
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.size = size
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Read the processor of the same hub id or local folder as the model's; defaults where it has none.

        Raises ValueError if the folder cannot be found or its file asks for another way of processing.
        """
        folder = HubFolder(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        path = next((path for name in PROCESSOR_FILES if (path := folder.find(name))), None)
        if path is None:
            return cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values = values.get("image_processor", values)
            size = values.get("size", {"height": 1024, "width": 1024})
            height, width = size["height"], size["width"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is not a SAM 2 processor's configuration ({error!r})") from error
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not values.get(step, True):
                raise ValueError(f"{path} sets {step} to false, which this processor does not support")
        defaults = {key: values[key] for key in ("image_mean", "image_std") if key in values}
        return cls((height, width), **defaults)

    def __call__(
        self,
        images: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        original_sizes: Any = None,
    ) -> dict[str, np.ndarray]:
        """Prepare one or several pictures, prompts on them, or both.

        images: a path, PIL image or array [H, W, C], or a list of them. In the pictures' pixels:
        input_points: image > object > point > (x, y), input_labels: image > object > point,
        input_boxes: image > object > (x0, y0, x1, y1). original_sizes: (height, width) of each picture,
        if images are not given.

        Returns what was asked for of pixel_values float32 [B, H, W, 3], original_sizes int64 [B, 2],
        input_points float32 [B, P, N, 2], input_labels int64 [B, P, N], input_boxes float32 [B, P, 4].
        Raises ValueError for pictures that cannot be read and prompts that cannot be meant.
        """
        inputs: dict[str, np.ndarray] = {}
        if images is not None:
            pictures = [to_rgb(image) for image in _as_list(images)]
            if not pictures:
                raise ValueError("images must not be an empty list")
            found = [picture.shape[:2] for picture in pictures]
            if original_sizes is not None and np.asarray(original_sizes).tolist() != [
                list(size) for size in found
            ]:
                raise ValueError(f"original_sizes must be those of the images, {found}; leave them out")
            original_sizes = found
            resized = [resize(picture, *self.size) for picture in pictures]
            inputs["pixel_values"] = np.stack(
                [normalize(x, self.image_mean, self.image_std) for x in resized]
            )
        if original_sizes is None:
            raise ValueError("images or original_sizes must be given")
        sizes = _sizes(original_sizes)
        inputs["original_sizes"] = np.array(sizes, np.int64)
        if input_points is not None:
            inputs["input_points"], inputs["input_labels"] = read_points(
                input_points, input_labels, sizes, self.size
            )
        elif input_labels is not None:
            raise ValueError("input_labels are given without input_points; give both or neither")
        if input_boxes is not None:
            inputs["input_boxes"] = read_boxes(input_boxes, sizes, self.size)
        return inputs

    def post_process_masks(
        self, masks: Any, original_sizes: Any, mask_threshold: float = 0.0, binarize: bool = True
    ) -> list[np.ndarray]:
        """Bring mask logits [B, P, M, h, w] to each picture's size: a list of [P, M, H, W], bool or float32.

        original_sizes: (height, width) of each picture. Raises ValueError if their number is not B.
        """
        sizes = _sizes(original_sizes)
        if len(masks) != len(sizes):
            raise ValueError(
                f"original_sizes must be for {len(masks)} images, as masks are; got {len(sizes)}"
            )
        full = [mask_tools.upscale(np.asarray(m), *size) for m, size in zip(masks, sizes, strict=True)]
        return [logits > mask_threshold for logits in full] if binarize else full


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    array = np.asarray(images)
    return list(array) if array.ndim == 4 else [array]


def _sizes(sizes: Any) -> list[Size]:
    array = np.asarray(sizes)
    if array.ndim != 2 or array.shape[1] != 2 or not (array > 0).all():
        raise ValueError(
            f"original_sizes must be (height, width) of each image, in pixels; got {array.tolist()}"
        )
    return [(int(height), int(width)) for height, width in array]
