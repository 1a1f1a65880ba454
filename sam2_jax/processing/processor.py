"""`Sam2Processor`: photos and prompts to the network's inputs, its outputs to masks of the photos."""

from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.hub import PROCESSOR_FILE, HubFolder
from sam2_jax.checks import check_options, read_number, shown
from sam2_jax.json_files import read_json_object, to_json, write_json
from sam2_jax.processing.batch_feature import BatchFeature
from sam2_jax.processing.files import LOADING_OPTIONS, read_source
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.inputs import check_return_tensors, read_size, read_sizes, to_tensors
from sam2_jax.processing.options import OPTIONS, read_options
from sam2_jax.processing.post_processing import post_process_masks
from sam2_jax.processing.prompts import LARGEST_COORDINATE, PADDING, count_images, read_prompts


class Sam2Processor:
    """Prepares pictures and prompts, and turns mask logits into masks of the pictures' own size.

    image_processor: how pictures are prepared, SAM 2's own way by default. target_size: side of the square
    that pictures are resized to, in place of the image processor's size. point_pad_value: coordinates of
    padding points; what makes them padding is their label, -10.
    """

    def __init__(
        self,
        image_processor: Sam2ImageProcessor | None = None,
        target_size: int | None = None,
        point_pad_value: float | None = None,
    ) -> None:
        """None is as if it were not given. Raises ValueError for what cannot be meant."""
        self.image_processor = _read_image_processor(image_processor).replace(size=target_size)
        self.point_pad_value = _read_pad_value(point_pad_value)

    @property
    def target_size(self) -> int:
        """Height of the network's input in pixels; transformers' name, which supposes a square."""
        return self.image_processor.size["height"]

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        image_processor: Sam2ImageProcessor | None = None,
        target_size: int | None = None,
        point_pad_value: float | None = None,
        **options: Any,
    ) -> Self:
        """Read the processor of the same hub id or local folder as the model's.

        model may be called pretrained_model_name_or_path, as in transformers. options: those of `HubFolder`,
        such as revision, and those of the image processor, which go first as image_processor, target_size and
        point_pad_value do. A folder without a processor gets the default for the image size of its
        config.json. use_fast, backend and trust_remote_code are taken for transformers' sake and change
        nothing. Raises ValueError, before anything is fetched, for options that cannot be meant, and if the
        folder cannot be found, a file is broken or asks for another way of processing.
        """
        check_options(options, Sam2Processor.loading_options(), "the processor")
        model, of_hub = read_source(model, options)
        read_options(options)
        if target_size is not None and options.get("size") is not None:
            raise ValueError("target_size and size are the same; give one of them")
        if image_processor is not None:
            _read_image_processor(image_processor)
        _read_pad_value(point_pad_value)
        size = {} if target_size is None else {"size": read_size("target_size", target_size)}
        folder = HubFolder(model, **of_hub)
        path = folder.find(PROCESSOR_FILE)
        values = {} if path is None else read_json_object(path)
        if image_processor is None:
            image_processor = Sam2ImageProcessor.from_folder(folder)
            stated = values.get("target_size")
            if stated not in (None, *image_processor.size.values()):
                raise ValueError(
                    f"{path}: target_size must be a side of the image processor's size, "
                    f"{image_processor.size}; got {shown(stated)}: remove it, the size says all"
                )
        if point_pad_value is None:
            point_pad_value = _read_pad_value(values.get("point_pad_value"), f"{path}: ")
        return cls(image_processor.replace(**options, **size), point_pad_value=point_pad_value)

    @classmethod
    def loading_options(cls) -> list[str]:
        """Names of the arguments of `from_pretrained`, but for the model."""
        return [*OPTIONS, "image_processor", "target_size", "point_pad_value", *LOADING_OPTIONS]

    def __repr__(self) -> str:
        return f"Sam2Processor({self.image_processor!r}, point_pad_value={self.point_pad_value})"

    def to_dict(self) -> dict[str, Any]:
        """Return the options as transformers' JSON has them, those of the image processor among them."""
        return {
            "image_processor": self.image_processor.to_dict(),
            "point_pad_value": self.point_pad_value,
            "processor_class": "Sam2Processor",
            "target_size": self.target_size,
        }

    def to_json_string(self) -> str:
        """The options as the text of a JSON file."""
        return to_json(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the options to a JSON file. Raises ValueError if it cannot be written."""
        write_json(json_file_path, self.to_dict())

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write processor_config.json to a folder; returns its path in a list, as transformers does.

        Raises ValueError if it cannot be written.
        """
        path = Path(folder) / PROCESSOR_FILE
        write_json(path, self.to_dict())
        return [str(path)]

    def __call__(
        self,
        images: Any = None,
        segmentation_maps: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        original_sizes: Any = None,
        return_tensors: str | None = None,
        *,
        input_masks: Any = None,
        **options: Any,
    ) -> BatchFeature:
        """Prepare one or several pictures, prompts on them, or both.

        images, segmentation_maps, return_tensors, options: as for `Sam2ImageProcessor`. Prompts are lists,
        tuples or arrays, ragged at every level, in the pictures' pixels:
        input_points: image > object > point > (x, y); input_labels: image > object > point, 1 or True on the
        object and 0 or False off it, all 1 if omitted; input_boxes: image > object > (x0, y0, x1, y1);
        input_masks: image > object > rough mask [H, W] of the picture, of bool or 0 and 1, or logits of an
        earlier prediction. An object may have points ([] if not), a box (None if not) or both; an image of a
        batch may have no objects ([]).
        original_sizes: (height, width) of each picture, or of all, if images are not given.

        Returns what was asked for of pixel_values float32 [B, H, W, 3], original_sizes int64 [B, 2], labels
        int64 [B, h, w], and in the network's pixels input_points float32 [B, P, N, 2], input_labels int64
        [B, P, N], input_boxes float32 [B, P, 4], input_masks float32 [B, P, h, w]. Padding has label -10, a
        padding box is NaN. Raises ValueError for pictures that cannot be read, prompts that cannot be meant.
        """
        check_return_tensors(return_tensors)
        check_options(options, [*OPTIONS, *_PROMPTS, *_OTHER_ARGUMENTS], "the processor")
        image_processor = self.image_processor.replace(**options)
        given = (input_points, input_labels, input_boxes, input_masks)
        prompts = {name: value for name, value in zip(_PROMPTS, given, strict=True) if value is not None}
        inputs: dict[str, np.ndarray] = {}
        if images is not None:
            inputs = image_processor(images, segmentation_maps)
            _check_sizes(original_sizes, inputs["original_sizes"])
            sizes = read_sizes(inputs["original_sizes"])
        elif original_sizes is None:
            raise ValueError("images or original_sizes must be given")
        elif segmentation_maps is not None:
            raise ValueError("segmentation_maps are given without images; give both")
        else:
            sizes = read_sizes(original_sizes)
            if len(sizes) == 1:  # of one picture, or of all alike
                sizes *= count_images(prompts)
            inputs["original_sizes"] = np.array(sizes, np.int64)
        if prompts and image_processor.do_center_crop:
            raise ValueError(
                f"{next(iter(prompts))} cannot be combined with do_center_crop, which moves the picture; "
                "crop the picture first"
            )
        targets = [image_processor.network_size(size) for size in sizes]
        if prompts:
            mask_size = image_processor.mask_size["height"], image_processor.mask_size["width"]
            inputs |= read_prompts(prompts, sizes, targets, mask_size, self.point_pad_value)
        return to_tensors(inputs, return_tensors)

    post_process_masks = staticmethod(post_process_masks)

    @property
    def model_input_names(self) -> list[str]:
        """What the processor returns of pictures, as in transformers."""
        return ["pixel_values", "original_sizes"]


_PROMPTS = ("input_points", "input_labels", "input_boxes", "input_masks")
_OTHER_ARGUMENTS = ("images", "segmentation_maps", "original_sizes", "return_tensors")


def _read_image_processor(given: Any) -> Sam2ImageProcessor:
    if given is not None and not isinstance(given, Sam2ImageProcessor):
        raise ValueError(
            f"image_processor must be a Sam2ImageProcessor or None; got {type(given).__name__}: "
            "Sam2Processor(Sam2ImageProcessor(size=1024)), or Sam2Processor.from_pretrained"
        )
    return Sam2ImageProcessor() if given is None else given


def _read_pad_value(given: Any, place: str = "") -> float:
    name = f"{place}point_pad_value"
    number = PADDING if given is None else read_number(name, given)
    number = read_number(name, number, -LARGEST_COORDINATE, LARGEST_COORDINATE)
    return int(number) if number == int(number) else number


def _check_sizes(given: Any, found: np.ndarray) -> None:
    """Refuse original_sizes that are not those of the images."""
    if given is None:
        return
    sizes = np.array(read_sizes(given))
    if len(sizes) not in (1, len(found)) or (sizes != found).any():
        raise ValueError(
            f"original_sizes must be those of the images, {shown(found.tolist())}; got "
            f"{shown(sizes.tolist())}: leave them out"
        )
