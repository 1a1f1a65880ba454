"""`Sam2Processor`: photos and prompts to the network's inputs, its outputs to masks of the photos."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from sam2_jax.config import Sam2Config, read_config
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
        """Set size and normalisation; raises ValueError for what cannot be meant."""
        self.size = _sizes([size], "size")[0]
        self.image_mean = _three_numbers("image_mean", image_mean)
        self.image_std = _three_numbers("image_std", image_std)
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std must be positive; got {self.image_std}")

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Read the processor of the same hub id or local folder as the model's.

        A folder without one gets the default for the image size of its config.json. Raises ValueError if the
        folder cannot be found or its file asks for another way of processing.
        """
        folder = HubFolder(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        for name in PROCESSOR_FILES:
            path = folder.find(name)
            if path is not None and (values := _read_image_processor(path)) is not None:
                try:
                    return cls(**_options(values))
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
        path = folder.find("config.json")
        if path is None:
            return cls()
        config = read_config(path)
        return cls((config if isinstance(config, Sam2Config) else config.image_config).image_size)

    def __call__(
        self,
        images: Any = None,
        segmentation_maps: None = None,
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
        if segmentation_maps is not None:
            raise ValueError("segmentation_maps are not supported yet; leave them out")
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


def _sizes(sizes: Any, name: str = "original_sizes") -> list[Size]:
    try:
        array = np.asarray(sizes, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2 or not (array > 0).all() or (array % 1).any():
        raise ValueError(f"{name} must be (height, width) in pixels, for each image; got {sizes!r}")
    return [(int(height), int(width)) for height, width in array]


def _three_numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be three numbers, for red, green and blue; got {values!r}")
    return numbers


def _read_image_processor(path: Path) -> dict[str, Any] | None:
    """The image part of a processor's file; None if it has none, as where another file beside it has."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values = values.get("image_processor", values)
        return values if "size" in values or "image_processor_type" in values else None
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a SAM 2 processor's configuration ({error!r})") from error


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """Our options from transformers' values; raises ValueError for a processing that is not ours."""
    expected = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2}
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise ValueError(f"{name} must be {value}; got {values[name]!r}")
    if not np.isclose(values.get("rescale_factor", 1 / 255), 1 / 255):
        raise ValueError(f"rescale_factor must be 1/255; got {values['rescale_factor']!r}")
    options = {key: values[key] for key in ("image_mean", "image_std") if key in values}
    size = values.get("size", {"height": 1024, "width": 1024})
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
        raise ValueError(f"size must have height and width; got {size!r}")
    return options | {"size": (size["height"], size["width"])}
