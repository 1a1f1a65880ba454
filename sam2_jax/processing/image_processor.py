"""`Sam2ImageProcessor`: pictures to the network's pixels, mask logits to masks of the pictures' own size."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.hub import IMAGE_PROCESSOR_FILE, HubFolder
from sam2_jax.config import Sam2Config, read_config
from sam2_jax.json_files import write_json
from sam2_jax.processing import crops
from sam2_jax.processing.files import find_image_processor
from sam2_jax.processing.images import center_crop, normalize, to_pixels
from sam2_jax.processing.inputs import Size, as_list, read_map, read_numbers, read_size, to_tensors
from sam2_jax.processing.post_processing import post_process_masks
from sam2_jax.processing.resampling import BILINEAR, RESAMPLING, resize, resize_nearest


@dataclass(frozen=True)
class Sam2ImageProcessor:
    """How pictures become pixels; the options are those of transformers' class and its JSON files.

    Steps, each of which `do_...` turns on or off: convert to RGB; resize to `size` (squeezed, the aspect
    ratio is not kept) with Pillow's filter number `resample`; cut `crop_size` out of the middle; multiply by
    `rescale_factor`; normalise by `image_mean` and `image_std`. `mask_size` is the size of labels. Sizes are
    {"height": h, "width": w}, (h, w) or one side of a square. Options cannot be assigned: `replace` gives a
    processor with others. Raises ValueError for options that cannot be meant.
    """

    do_resize: bool = True
    size: Any = 1024
    resample: int = BILINEAR
    do_center_crop: bool = False
    crop_size: Any = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Any = (0.485, 0.456, 0.406)
    image_std: Any = (0.229, 0.224, 0.225)
    do_convert_rgb: bool = True
    mask_size: Any = 256

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
        for name in ("size", "mask_size"):
            put(name, read_size(name, getattr(self, name)))
        if self.crop_size is not None:
            put("crop_size", read_size("crop_size", self.crop_size))
        elif self.do_center_crop:
            raise ValueError("crop_size must be given if do_center_crop is True, such as 512; got None")
        if self.resample not in RESAMPLING:
            raise ValueError(
                f"resample must be one of Pillow's filters {RESAMPLING} (nearest, Lanczos, bilinear, "
                f"bicubic); got {self.resample!r}"
            )
        put("resample", int(self.resample))
        factor = read_numbers("rescale_factor", self.rescale_factor, 1)[0]
        put("image_mean", read_numbers("image_mean", self.image_mean, 3))
        put("image_std", read_numbers("image_std", self.image_std, 3))
        if factor <= 0 or min(self.image_std) <= 0:
            name = "rescale_factor" if factor <= 0 else "image_std"
            raise ValueError(f"{name} must be positive; got {getattr(self, name)!r}")
        put("rescale_factor", factor)

    def replace(self, **options: Any) -> Self:
        """Return a processor with other options; those of None stay. Raises ValueError for unknown ones."""
        known = [option.name for option in fields(self)]
        for name in options:
            if name not in known:
                close = get_close_matches(name, known, 1)
                hint = f": did you mean {close[0]}?" if close else f"; the options are {', '.join(known)}"
                raise ValueError(f"unknown option {name!r} of the image processor{hint}")
        given = {name: value for name, value in options.items() if value is not None}
        return replace(self, **given) if given else self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the options of transformers' JSON; null means the default, other keys are not looked at.

        Raises ValueError for a processing that is not SAM 2's: padding, or a size by edges.
        """
        if values.get("do_pad") or values.get("pad_size"):
            raise ValueError("do_pad must be false: SAM 2 pads nothing; remove it and pad_size")
        known = {option.name for option in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known and value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as transformers' JSON has them."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.do_center_crop:
            values.pop("do_center_crop")
        lists = {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return values | lists | {"image_processor_type": "Sam2ImageProcessor"}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Read the image processor of the same hub id or local folder as the model's; options go first.

        A folder without one gets the default for the image size of its config.json. Raises ValueError if the
        folder cannot be found, a file is broken or asks for another way of processing.
        """
        folder = HubFolder(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls.from_folder(folder).replace(**options)

    @classmethod
    def from_folder(cls, folder: HubFolder) -> Self:
        """As `from_pretrained`, of a folder that is at hand."""
        if found := find_image_processor(folder):
            path, values = found
            try:
                return cls.from_dict(values)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        path_of_config = folder.find("config.json")
        if path_of_config is None:
            return cls()
        config = read_config(path_of_config)
        return cls.for_config(config if isinstance(config, Sam2Config) else config.image_config)

    @classmethod
    def for_config(cls, config: Sam2Config) -> Self:
        """The image processor for a model's image size, its labels as large as the model's masks."""
        height, width = config.image_size
        return cls(size=(height, width), mask_size=(height // 4, width // 4))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json to a folder. Raises ValueError if it cannot be written."""
        write_json(Path(folder) / IMAGE_PROCESSOR_FILE, self.to_dict())

    def __call__(
        self,
        images: Any,
        segmentation_maps: Any = None,
        *,
        input_data_format: str | None = None,
        return_tensors: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Prepare one picture or several.

        images: a path, PIL image or array (see `to_pixels`), a list of them, or one array [B, ...].
        segmentation_maps: as many pictures or integer arrays [H, W] of labels.
        input_data_format: layout of arrays, if their shape leaves it open. options: any option of this class,
        for this call. return_tensors: None or "np" for numpy arrays, "jax" for JAX arrays.

        Returns pixel_values float32 [B, H, W, 3], original_sizes int64 [B, 2] (height, width) and, with maps,
        labels int64 [B, h, w] of `mask_size`. pixel_values stay uint8 if neither rescaled nor normalised.
        Raises ValueError for pictures that cannot be read, and for unequal sizes without do_resize.
        """
        if options:
            return self.replace(**options)(
                images, segmentation_maps, input_data_format=input_data_format, return_tensors=return_tensors
            )
        pictures = [
            to_pixels(image, input_data_format, do_convert_rgb=self.do_convert_rgb)
            for image in as_list(images, 3)
        ]
        if not pictures:
            raise ValueError("images must not be an empty list")
        inputs = {
            "pixel_values": _stack("images", [self._to_network(picture) for picture in pictures]),
            "original_sizes": np.array([picture.shape[:2] for picture in pictures], np.int64),
        }
        if segmentation_maps is not None:
            maps = [read_map(segmentation_map) for segmentation_map in as_list(segmentation_maps, 2)]
            if len(maps) != len(pictures):
                raise ValueError(
                    f"segmentation_maps must be as many as the images, {len(pictures)}; got {len(maps)}"
                )
            inputs["labels"] = _stack("segmentation_maps", [self._to_labels(map_) for map_ in maps])
        return to_tensors(inputs, return_tensors)

    preprocess = __call__

    def network_size(self, original_size: Size) -> Size:
        """Height and width that a picture of original_size is resized to."""
        return _pair(self.size) if self.do_resize else original_size

    def _to_network(self, picture: np.ndarray) -> np.ndarray:
        if picture.dtype == np.float32 and self.do_rescale and 0 < picture.max() <= 1:
            warnings.warn(
                "an image has floating-point values within 0 and 1, and is to be multiplied by "
                "rescale_factor; if that is its full range, pass do_rescale=False",
                stacklevel=4,
            )
        if self.do_resize:
            picture = resize(picture, *_pair(self.size), self.resample)
        if self.do_center_crop:
            picture = center_crop(picture, *_pair(self.crop_size))
        if self.do_normalize:
            factor = self.rescale_factor if self.do_rescale else 1.0
            return normalize(picture, self.image_mean, self.image_std, factor)
        return picture * np.float32(self.rescale_factor) if self.do_rescale else picture

    def _to_labels(self, labels: np.ndarray) -> np.ndarray:
        if self.do_resize:
            labels = resize_nearest(labels, *_pair(self.mask_size))
        if self.do_center_crop:
            labels = center_crop(labels[..., None], *_pair(self.crop_size))[..., 0]
        return labels

    def generate_crop_boxes(
        self,
        image: Any,
        target_size: int | Size | None = None,
        crop_n_layers: int = 0,
        overlap_ratio: float = 512 / 1500,
        points_per_crop: int = 32,
        crop_n_points_downscale_factor: int = 1,
        device: None = None,
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
        """As `crops.generate_crop_boxes`, for this processor's size unless target_size says another."""
        target = _pair(self.size) if target_size is None else target_size
        return crops.generate_crop_boxes(
            image, target, crop_n_layers, overlap_ratio, points_per_crop, crop_n_points_downscale_factor
        )

    post_process_masks = staticmethod(post_process_masks)
    filter_masks = staticmethod(crops.filter_masks)
    post_process_for_mask_generation = staticmethod(crops.post_process_for_mask_generation)


Sam2ImageProcessorFast = Sam2ImageProcessor
"""The name that transformers gave the class at first."""


def _stack(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"{name} must be of one size to form a batch; got {sorted(shapes)}: leave do_resize on, or "
            "prepare them one by one"
        )
    return np.stack(arrays)


def _pair(size: Mapping[str, int]) -> Size:
    return size["height"], size["width"]
