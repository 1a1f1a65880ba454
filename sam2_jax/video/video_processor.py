"""`Sam2VideoVideoProcessor`: all frames of clips to the network's pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.hub import PROCESSOR_FILE, HubFolder
from sam2_jax.checks import check_options, read_array, read_flag, shown
from sam2_jax.json_files import read_json_object, to_json, write_json
from sam2_jax.processing.batch_feature import BatchFeature
from sam2_jax.processing.files import LOADING_OPTIONS, read_source
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.inputs import check_return_tensors, read_size, read_sizes, to_tensors
from sam2_jax.processing.masks import read_level, upscale
from sam2_jax.processing.options import OPTIONS, read_options
from sam2_jax.video.frames import PreparedFrames, read_clips

VIDEO_PROCESSOR_FILE = "video_preprocessor_config.json"


class Sam2VideoVideoProcessor:
    """Prepares frames of clips as `Sam2ImageProcessor` does pictures; the options are the same.

    transformers' names, and numpy arrays where it has torch's tensors.
    """

    def __init__(self, **options: Any) -> None:
        """Raises ValueError for unknown options and those that cannot be meant."""
        self.image_processor = Sam2ImageProcessor(**options)

    @classmethod
    def of(cls, image_processor: Sam2ImageProcessor) -> Self:
        """The one that prepares frames as this image processor does pictures."""
        made = cls()
        made.image_processor = image_processor
        return made

    def __repr__(self) -> str:
        return f"Sam2VideoVideoProcessor({self.image_processor!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.image_processor == self.image_processor

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        """An option, such as size."""
        if name not in OPTIONS:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.image_processor, name)

    def replace(self, **options: Any) -> Self:
        """Return a processor with other options; those of None stay. Raises ValueError for unknown ones."""
        return self.of(self.image_processor.replace(**options))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **options: Any) -> Self:
        """Read the options of transformers' JSON, as `Sam2ImageProcessor.from_dict`; options go first."""
        return cls.of(Sam2ImageProcessor.from_dict(values, **options))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as transformers' JSON has them."""
        values = self.image_processor.to_dict()
        del values["image_processor_type"]
        return values | {"video_processor_type": "Sam2VideoVideoProcessor"}

    def to_json_string(self) -> str:
        """The options as the text of a JSON file."""
        return to_json(self.to_dict())

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Self:
        """Read the video processor of the same hub id or local folder as the model's.

        Arguments and errors as of `Sam2ImageProcessor.from_pretrained`. A folder without a video processor
        gets one that prepares frames as its pictures are prepared.
        """
        check_options(options, [*OPTIONS, *LOADING_OPTIONS], "the video processor")
        model, of_hub = read_source(model, options)
        read_options(options)
        return cls.from_folder(HubFolder(model, **of_hub), **options)

    @classmethod
    def from_folder(cls, folder: HubFolder, **options: Any) -> Self:
        """As `from_pretrained`, of a folder that is at hand."""
        for name in (PROCESSOR_FILE, VIDEO_PROCESSOR_FILE):
            path = folder.find(name)
            values = {} if path is None else read_json_object(path)
            own = values.get("video_processor") if name == PROCESSOR_FILE else values
            if path is None or not own:
                continue
            try:
                return cls.from_dict(own, **options)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        return cls.of(Sam2ImageProcessor.from_folder(folder, **options))

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write video_preprocessor_config.json to a folder; returns its path in a list.

        Raises ValueError if it cannot be written.
        """
        path = Path(folder) / VIDEO_PROCESSOR_FILE
        write_json(path, self.to_dict())
        return [str(path)]

    def __call__(self, videos: Any, *, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        """Prepare one clip, or several of the same length.

        videos: a list of pictures, an array [T, H, W, 3] or [B, T, H, W, 3], or a list of clips. options: any
        of this class, for this call. return_tensors: None or "np" for numpy arrays,
        "jax" for JAX arrays.

        Returns pixel_values_videos float32 [B, T, H, W, 3], original_sizes int64 [B, 2] and
        reshaped_input_sizes int64 [B, 2], (height, width) before and after. All frames are in memory at once;
        a session prepares them one by one. Raises ValueError for what cannot be read.
        """
        check_return_tensors(return_tensors)
        processor = self.image_processor.replace(**options)
        clips, sizes = [], []
        for clip in read_clips(videos):
            frames = [PreparedFrames(clip, processor)[t] for t in range(len(clip))]
            if len(found := {frame.size for frame in frames}) > 1:
                raise ValueError(f"videos must have frames of one size; got {shown(sorted(found))}")
            clips.append(np.stack([frame.pixels for frame in frames]))
            sizes.append(frames[0].size)
        if len(shapes := {clip.shape for clip in clips}) > 1:
            raise ValueError(f"videos must be of one length to form a batch; got {shown(sorted(shapes))}")
        inputs = {
            "pixel_values_videos": np.stack(clips),
            "original_sizes": np.array(sizes, np.int64),
            "reshaped_input_sizes": np.array([clip.shape[1:3] for clip in clips], np.int64),
        }
        return to_tensors(inputs, return_tensors)

    preprocess = __call__

    @property
    def model_input_names(self) -> list[str]:
        """transformers' name of what the model takes."""
        return ["pixel_values"]

    def post_process_masks(
        self,
        masks: Any,
        original_sizes: Any,
        reshaped_input_sizes: Any,
        mask_threshold: float = 0.0,
        binarize: bool = True,
        pad_size: Any = None,
    ) -> list[np.ndarray]:
        """Bring logits [P, M, h, w] of each clip to its size by way of the network's, as transformers does.

        pad_size: the size on the way, by default this processor's; of it reshaped_input_sizes are what shows
        the frame. `Sam2VideoProcessor.post_process_masks` goes straight to the clip's size, and does more.
        Returns a list of [P, M, H, W], bool or, not binarized, float32. Raises ValueError for wrong shapes.
        """
        sizes = read_sizes(original_sizes)
        inner = read_sizes(reshaped_input_sizes, "reshaped_input_sizes")
        between = read_size("pad_size", self.image_processor.size if pad_size is None else pad_size)
        threshold = read_level("mask_threshold", mask_threshold)
        binarize = read_flag("binarize", binarize)
        if not isinstance(masks, (list, tuple)) and getattr(masks, "ndim", 0) == 0:
            raise ValueError(f"masks must be logits of each clip; got {shown(masks)}")
        if not len(masks) == len(sizes) == len(inner):
            raise ValueError(
                "masks, original_sizes and reshaped_input_sizes must be for as many clips; got "
                f"{len(masks)}, {len(sizes)} and {len(inner)}"
            )
        found = []
        for logits, size, (height, width) in zip(masks, sizes, inner, strict=True):
            array = read_array("masks", logits, "logits [objects, masks, height, width]", "f")
            full = upscale(array, between["height"], between["width"])[..., :height, :width]
            full = upscale(full, *size)
            found.append(full > threshold if binarize else full)
        return found
