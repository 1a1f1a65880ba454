"""`Sam2ImageProcessor`: pictures to the network's pixels, mask logits to masks of the pictures' own size."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.hub import IMAGE_PROCESSOR_FILE, HubFolder
from sam2_jax.checks import check_options, shown
from sam2_jax.config import Sam2Config, read_config
from sam2_jax.json_files import read_json_object, to_json, write_json
from sam2_jax.processing import crops
from sam2_jax.processing.batch_feature import BatchFeature
from sam2_jax.processing.files import LOADING_OPTIONS, find_image_processor, read_source
from sam2_jax.processing.images import (
    MAX_PIXELS,
    center_crop,
    normalize,
    require_8_bits,
    to_pixels,
)
from sam2_jax.processing.inputs import Size, as_list, check_return_tensors, read_map, to_tensors
from sam2_jax.processing.options import OPTIONS, SWITCHES, check_padding, read_options
from sam2_jax.processing.post_processing import post_process_masks
from sam2_jax.processing.resampling import BILINEAR, resize, resize_nearest


@dataclass(frozen=True, init=False)
class Sam2ImageProcessor:
    """How pictures become pixels; the options are those of transformers' class and its JSON files.

    Steps, each of which `do_...` turns on or off: convert to RGB; resize to `size` (squeezed, the aspect
    ratio is not kept) with Pillow's filter number `resample`; cut `crop_size` out of the middle; multiply by
    `rescale_factor`; normalise by `image_mean` and `image_std`. `mask_size` is the size of labels. Sizes are
    {"height": h, "width": w}, (h, w) or one side of a square, at most 8192 a side. `input_data_format` is the
    layout of arrays whose shape leaves it open (see `to_pixels`). `max_pixels`: larger pictures are refused,
    300 million by default; files neither have nor set it.

    With do_convert_rgb=False pictures keep their channels, as many as image_mean and image_std have numbers:
    so a network of four channels gets four.

    An option of None is as if it were not given; but a do_... of None is off, as in transformers. device,
    disable_grouping, default_to_square and image_seq_length are accepted for transformers' sake and change
    nothing; so are data_format="channels_last" and do_pad=False. Options cannot be assigned: `replace` gives
    a processor with others. Raises ValueError for unknown options and those that cannot be meant.
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
    input_data_format: str | None = None
    max_pixels: int = MAX_PIXELS

    def __init__(self, **options: Any) -> None:
        switched_off = {name: False for name in SWITCHES if name in options and options[name] is None}
        defaults = {option.name: option.default for option in fields(self)}
        for name, value in read_options(defaults | read_options(options | switched_off)).items():
            object.__setattr__(self, name, value)
        self._check_channels()
        if self.do_center_crop and self.crop_size is None:
            raise ValueError("crop_size must be given if do_center_crop is True, such as 512; got None")

    def _check_channels(self) -> None:
        """Bring image_mean and image_std to one number for each channel."""
        statistics = {name: getattr(self, name) for name in ("image_mean", "image_std")}
        counts = {name: len(value) for name, value in statistics.items() if isinstance(value, tuple)}
        channels = 3 if self.do_convert_rgb else max(counts.values(), default=3)
        for name, count in counts.items():
            if count != channels and self.do_convert_rgb:
                raise ValueError(
                    f"{name} must be three numbers, for red, green and blue; got {shown(statistics[name])}: "
                    "pictures of other channels need do_convert_rgb=False"
                )
            if count != channels:
                raise ValueError(f"image_mean and image_std must be for as many channels; got {counts}")
        for name, value in statistics.items():
            object.__setattr__(self, name, value if isinstance(value, tuple) else (value,) * channels)

    @property
    def channels(self) -> int:
        """Channels of the pixels: 3, or with do_convert_rgb=False as many as image_mean has numbers."""
        return len(self.image_mean)

    def replace(self, **options: Any) -> Self:
        """Return a processor with other options; those of None stay. Raises ValueError for unknown ones."""
        given = read_options(options)
        return replace(self, **given) if given else self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **options: Any) -> Self:
        """Read the options of transformers' JSON, of which other keys are not looked at; options go first.

        null means off for a do_..., and the default for all else. Raises ValueError for a processing that is
        not SAM 2's: padding, or a size by edges.
        """
        given = read_options(options)
        if not isinstance(values, Mapping):
            raise ValueError(f"values must be a dictionary of options; got {shown(values)}")
        check_padding({name: values.get(name) for name in ("do_pad", "pad_size")})
        known = {option.name for option in fields(cls)} - {"max_pixels"}
        return cls(**{name: value for name, value in values.items() if name in known} | given)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as transformers' JSON has them."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        del values["max_pixels"]
        if not self.do_center_crop:
            del values["do_center_crop"]
        lists = {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return values | lists | {"image_processor_type": "Sam2ImageProcessor"}

    def to_json_string(self) -> str:
        """The options as the text of a JSON file."""
        return to_json(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the options to a JSON file. Raises ValueError if it cannot be written."""
        write_json(json_file_path, self.to_dict())

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read a JSON file of options. Raises ValueError, naming it, if it is broken."""
        values = read_json_object(json_file)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{json_file}: {error}") from error

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        **options: Any,
    ) -> Self:
        """Read the image processor of the same hub id or local folder as the model's.

        model may be called pretrained_model_name_or_path, as in transformers. options: those of `HubFolder`,
        such as revision, and those of this class, which go first. A folder without an image processor gets
        the default for the image size of its config.json. use_fast, backend and trust_remote_code are taken
        for transformers' sake and change nothing. Raises ValueError, before anything is fetched, for options
        that cannot be meant, and if the folder cannot be found, a file is broken or asks for another way of
        processing.
        """
        check_options(options, cls.loading_options(), "the image processor")
        model, of_hub = read_source(model, options)
        read_options(options)
        return cls.from_folder(HubFolder(model, **of_hub), **options)

    @classmethod
    def loading_options(cls) -> list[str]:
        """Names of the arguments of `from_pretrained`, but for the model."""
        return [*OPTIONS, *LOADING_OPTIONS]

    @classmethod
    def from_folder(cls, folder: HubFolder, **options: Any) -> Self:
        """As `from_pretrained`, of a folder that is at hand."""
        if found := find_image_processor(folder):
            path, values = found
            try:
                return cls.from_dict(values, **options)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        path_of_config = folder.find("config.json")
        if path_of_config is None:
            return cls().replace(**options)
        config = read_config(path_of_config)
        own = cls.for_config(config if isinstance(config, Sam2Config) else config.image_config)
        return own.replace(**options)

    @classmethod
    def for_config(cls, config: Sam2Config) -> Self:
        """The image processor for a model's image size, its labels as large as the model's masks.

        For a model of other channels than three, pictures keep theirs and go from -1 to 1.
        """
        height, width = config.image_size
        own = cls(size=(height, width), mask_size=(height // 4, width // 4))
        channels = config.vision_config.backbone_config.num_channels
        if channels == 3:
            return own
        return own.replace(do_convert_rgb=False, image_mean=[0.5] * channels, image_std=[0.5] * channels)

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write preprocessor_config.json to a folder; returns its path in a list, as transformers does.

        Raises ValueError if it cannot be written.
        """
        path = Path(folder) / IMAGE_PROCESSOR_FILE
        write_json(path, self.to_dict())
        return [str(path)]

    def __call__(
        self,
        images: Any,
        segmentation_maps: Any = None,
        *,
        return_tensors: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Prepare one picture or several.

        images: a path, PIL image or array (see `to_pixels`), a list of them, or one array [B, ...].
        segmentation_maps: as many pictures or integer arrays [H, W] of labels. options: any option of this
        class, for this call; None leaves it as it is. return_tensors: None or "np" for numpy arrays, "jax"
        for JAX arrays.

        Returns pixel_values float32 [B, H, W, 3], original_sizes int64 [B, 2] (height, width) and, with maps,
        labels int64 [B, h, w] of `mask_size`, by name and as attributes. pixel_values stay uint8 if neither
        rescaled nor normalised. Raises ValueError for pictures that cannot be read, and for unequal sizes
        without do_resize.
        """
        check_return_tensors(return_tensors)
        if options:
            return self.replace(**options)(images, segmentation_maps, return_tensors=return_tensors)
        pictures = [self._read(image) for image in as_list("images", images, 3)]
        if not pictures:
            raise ValueError("images must not be an empty list")
        inputs = {
            "pixel_values": _stack("images", [self._to_network(picture) for picture in pictures]),
            "original_sizes": np.array([picture.shape[:2] for picture in pictures], np.int64),
        }
        if segmentation_maps is not None:
            maps = [read_map(map_) for map_ in as_list("segmentation_maps", segmentation_maps, 2)]
            if len(maps) != len(pictures):
                raise ValueError(
                    f"segmentation_maps must be as many as the images, {len(pictures)}; got {len(maps)}"
                )
            inputs["labels"] = _stack("segmentation_maps", [self._to_labels(map_) for map_ in maps])
        return to_tensors(inputs, return_tensors)

    preprocess = __call__

    def read_8_bits(self, image: Any) -> np.ndarray:
        """One picture as uint8 [H, W, channels], as a call reads it before it is resized.

        Raises ValueError for what a call refuses and for floating point.
        """
        return require_8_bits(image, self._read(image))

    def _read(self, image: Any) -> np.ndarray:
        return to_pixels(
            image,
            self.input_data_format,
            do_convert_rgb=self.do_convert_rgb,
            channels=self.channels,
            max_pixels=self.max_pixels,
        )

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
            image,
            target,
            crop_n_layers,
            overlap_ratio,
            points_per_crop,
            crop_n_points_downscale_factor,
            max_pixels=self.max_pixels,
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
