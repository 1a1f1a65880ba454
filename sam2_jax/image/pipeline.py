"""`pipeline("mask-generation")`, with transformers' options, call forms and results."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from sam2_jax.checkpoint.embedded import DEFAULT_MODEL
from sam2_jax.checks import check_options, read_flag, shown
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.generation_options import (
    OPTION_NAMES,
    PRESETS,
    MaskGenerationOptions,
    merge_options,
)
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.crops import read_option
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.rle import convert_rle

TASK = "mask-generation"

# transformers' names of the generator's options; its one threshold serves within crops and between them.
_NAMES = {
    "points_per_crop": ("points_per_side",),
    "crops_n_layers": ("crop_n_layers",),
    "crops_nms_thresh": ("box_nms_thresh", "crop_nms_thresh"),
}
_OUTPUTS = ("output_rle_mask", "output_bboxes_mask")
# Of transformers, without a meaning here: photos are read where they lie and found in one after the other.
_WITHOUT_MEANING = ("timeout", "num_workers", "batch_size")
_CALL_OPTIONS = (*_OUTPUTS, *_NAMES, *OPTION_NAMES, *_WITHOUT_MEANING)


def pipeline(
    task: str | None = None,
    model: str | Path | Sam2Model | None = None,
    processor: Any = None,
    device: Any = None,
    *,
    image_processor: Any = None,
    device_map: Any = None,
    use_fast: Any = None,
    trust_remote_code: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> "MaskGenerationPipeline":
    """Make the pipeline of a task, of which there is one: "mask-generation", meant by None as well.

    model: a hub id, a folder or a Sam2Model; the tiny released one by default. processor, image_processor:
    one of them (both only if the one holds the other), a Sam2Processor, a Sam2ImageProcessor, or a hub id or
    folder that holds one; the model's own by default. device, device_map, use_fast, trust_remote_code, and a
    tokenizer and feature_extractor of None are accepted for transformers' sake: JAX computes on its default
    device. options: those of `Sam2Model.from_pretrained` for a model that is
    loaded by name (revision, cache_dir, local_files_only, dtype or torch_dtype, ...), also as model_kwargs;
    and those of the pipeline's call, for all calls. Raises ValueError for another task, for what cannot be
    loaded, and, before anything is loaded, for unknown options and impossible values.
    """
    if task is not None and task != TASK:
        raise ValueError(f'task must be "{TASK}"; got {shown(task)}')
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise ValueError(f"model_kwargs must be a dictionary or None; got {shown(model_kwargs)}")
    options = _without_absent(options)
    known = Sam2Model.loading_options()
    loading = {name: options.pop(name) for name in known if name in options}
    if twice := sorted(loading.keys() & (model_kwargs or {}).keys()):
        raise ValueError(f"{twice[0]} is given twice, by itself and in model_kwargs: give it once")
    loading |= model_kwargs or {}
    loading = {name: value for name, value in loading.items() if value is not None}
    check_options(options, (*_CALL_OPTIONS, *known), "the mask-generation pipeline")
    Sam2Model.check_loading(**loading)
    _read_options(options)
    prepared = _read_processor(processor, image_processor)
    if isinstance(model, Sam2Model):
        if loading:
            raise ValueError(
                f"{next(iter(loading))} is for a model that is loaded by name; this one is loaded"
            )
    else:
        model = Sam2Model.from_pretrained(DEFAULT_MODEL if model is None else model, **loading)
    return MaskGenerationPipeline(model, prepared, **options)


class MaskGenerationPipeline:
    """Finds all masks of a photo or of several. Source: transformers MaskGenerationPipeline."""

    task = TASK

    def __init__(
        self,
        model: Sam2Model,
        processor: Any = None,
        *,
        image_processor: Any = None,
        **options: Any,
    ) -> None:
        """Options are those of a call, in which they can be changed. Raises ValueError as `pipeline` does."""
        options = _without_absent(options)
        check_options(options, _CALL_OPTIONS, "the mask-generation pipeline")
        prepared = _read_processor(processor, image_processor)
        self.model = model
        self._outputs, self._options = _read_options(options)
        # To refuse what cannot be meant before anything is computed.
        self.processor = _generator(model, prepared, self._options).processor

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={shown(value)}" for name, value in (self._outputs | self._options).items()
        )
        return f"MaskGenerationPipeline({self.model!r}{options})"

    @property
    def image_processor(self) -> Sam2ImageProcessor:
        """How photos are prepared."""
        return self.processor.image_processor

    def __call__(self, inputs: Any = None, *, image: Any = None, images: Any = None, **options: Any) -> Any:
        """Find the masks of a photo: a path, PIL image or array; of a list of them; or of a generator.

        inputs may also be called image or images. A photo is turned upright as its EXIF orientation says, be
        it a file or a PIL image. options: output_rle_mask and output_bboxes_mask, False by default, ask for
        more in the result; timeout, num_workers and batch_size are accepted for transformers' sake and mean
        nothing here; the rest are those of `MaskGenerationOptions`, with transformers' defaults
        (pred_iou_thresh 0.88) or those that the model brings along, also under transformers' names:
        points_per_crop for points_per_side, crops_n_layers for crop_n_layers, crops_nms_thresh for
        box_nms_thresh and crop_nms_thresh.

        Returns for a photo a dictionary: masks, a list of bool [H, W], by falling score; scores, predicted
        IoU float32 [N]; if asked for, rle_mask, a list of uncompressed COCO run lengths, and bounding_boxes,
        int64 [N, 4] as x0, y0, x1, y1, inclusive. Of a list, a list of them; of a generator or a dataset, an
        iterator that takes each photo when its result is asked for. Raises ValueError for photos that cannot
        be read, for unknown options and for two names of one option.
        """
        given = [value for value in (inputs, image, images) if value is not None]
        if len(given) != 1:
            raise ValueError(f"a photo or several must be given, once; got {len(given)} arguments for them")
        check_options(options, _CALL_OPTIONS, "the mask-generation pipeline")
        outputs, changed = _read_options(options)
        generator = _generator(self.model, self.processor, merge_options(self._options, changed))
        outputs = self._outputs | outputs
        photos = given[0]
        if isinstance(photos, (list, tuple)):
            return [_find(generator, photo, outputs) for photo in photos]
        if _is_stream(photos):
            return _stream(generator, photos, outputs)
        return _find(generator, photos, outputs)


def _without_absent(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the parts of transformers' pipelines that there are none of here, if they are None there."""
    absent = ("tokenizer", "feature_extractor")
    return {name: value for name, value in options.items() if value is not None or name not in absent}


def _read_processor(processor: Any, image_processor: Any) -> Sam2Processor | None:
    """The processor that was asked for, in whatever way; None for the model's own."""
    if isinstance(processor, Sam2Processor) and processor.image_processor == image_processor:
        return processor
    if processor is not None and image_processor is not None:
        raise ValueError("processor and image_processor must not both be given: a processor holds the other")
    given = image_processor if processor is None else processor
    if isinstance(given, (str, Path)):
        return Sam2Processor.from_pretrained(given)
    if isinstance(given, Sam2ImageProcessor):
        return Sam2Processor(given)
    if given is None or isinstance(given, Sam2Processor):
        return given
    name = "processor" if image_processor is None else "image_processor"
    raise ValueError(
        f"{name} must be a Sam2Processor, a Sam2ImageProcessor, a hub id or a folder; got {shown(given)}"
    )


def _read_options(options: Mapping[str, Any]) -> tuple[dict[str, bool], dict[str, Any]]:
    """What a result holds, and the generator's options by its own names; None is not given.

    Raises ValueError for two names of one option and for impossible values.
    """
    translated: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, value in options.items():
        if name in (*_OUTPUTS, *_WITHOUT_MEANING):
            continue
        for own in _NAMES.get(name, (name,)):
            if own in named:
                raise ValueError(f"{named[own]} and {name} are two names of one option: give one of them")
            named[own] = name
            translated[own] = value if own == name else read_option(own, value, name)
    MaskGenerationOptions(**merge_options(translated))
    flags = {name: options[name] for name in _OUTPUTS if options.get(name) is not None}
    return {name: read_flag(name, value) for name, value in flags.items()}, translated


def _generator(
    model: Sam2Model, processor: Sam2Processor | None, options: Mapping[str, Any]
) -> AutomaticMaskGenerator:
    """A generator with transformers' defaults, where the model brings none along."""
    brought = model.generation_options if isinstance(model, Sam2Model) else {}
    merged = merge_options(PRESETS["transformers"], brought, options)
    return AutomaticMaskGenerator(model, "meta", processor=processor, **merged)


def _is_stream(photos: Any) -> bool:
    """Whether this is many photos, one after the other: a generator, a dataset; and not one photo."""
    is_one = isinstance(photos, (str, Path, bytes, Image.Image, Mapping)) or hasattr(photos, "__array__")
    return not is_one and (hasattr(photos, "__iter__") or hasattr(photos, "__getitem__"))


def _stream(
    generator: AutomaticMaskGenerator, photos: Any, outputs: Mapping[str, bool]
) -> Iterator[dict[str, Any]]:
    for photo in photos:
        yield _find(generator, photo, outputs)


def _upright(photo: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(photo)
    except Exception as error:  # Pillow meets broken EXIF data with errors of every kind
        raise ValueError(f"the photo's EXIF data cannot be read ({shown(error)}): remove it") from error


def _find(generator: AutomaticMaskGenerator, photo: Any, outputs: Mapping[str, bool]) -> dict[str, Any]:
    if isinstance(photo, Image.Image):
        photo = _upright(photo)
    found = sorted(generator.find(photo), key=lambda each: -each.predicted_iou)
    result: dict[str, Any] = {
        "masks": [each.mask for each in found],
        "scores": np.array([each.predicted_iou for each in found], np.float32),
    }
    if outputs.get("output_rle_mask"):
        result["rle_mask"] = [convert_rle(each.rle, compressed=False) for each in found]
    if outputs.get("output_bboxes_mask"):
        result["bounding_boxes"] = np.array([each.box for each in found], np.int64).reshape(-1, 4)
    return result
