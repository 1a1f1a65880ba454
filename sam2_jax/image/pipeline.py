"""`pipeline("mask-generation")`, with the options and the result of transformers' pipeline of that name."""

from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checkpoint.embedded import DEFAULT_MODEL
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.boxes import mask_to_boxes
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.rle import encode_rle

# transformers' names of the generator's options; its one threshold serves within crops and between them.
_NAMES = {
    "points_per_crop": ("points_per_side",),
    "crops_n_layers": ("crop_n_layers",),
    "crops_nms_thresh": ("box_nms_thresh", "crop_nms_thresh"),
}


def pipeline(
    task: str,
    model: str | Path | Sam2Model = DEFAULT_MODEL,
    processor: Sam2Processor | None = None,
    device: Any = None,
    **options: Any,
) -> "MaskGenerationPipeline":
    """Make the pipeline of a task, of which there is one: "mask-generation".

    model: a hub id, a folder or a Sam2Model. processor: the model's own by default. device is accepted for
    transformers' sake: JAX computes on its default device. options: as of the pipeline's call, for all calls.
    Raises ValueError for another task and for what cannot be loaded.
    """
    if task != "mask-generation":
        raise ValueError(f'task must be "mask-generation"; got {task!r}')
    loaded = model if isinstance(model, Sam2Model) else Sam2Model.from_pretrained(model)
    return MaskGenerationPipeline(loaded, processor, **options)


class MaskGenerationPipeline:
    """Finds all masks of a photo or of several. Source: transformers MaskGenerationPipeline."""

    def __init__(self, model: Sam2Model, processor: Sam2Processor | None = None, **options: Any) -> None:
        """Options are those of a call, in which they can be changed. Raises ValueError for unknown ones."""
        self.model = model
        self.processor = processor or model.processor
        self.options = options
        self._generator(options)  # to refuse what cannot be meant before anything is computed

    def __call__(self, inputs: Any, **options: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """Find the masks of inputs: a photo (a path, PIL image or array), or a list of them.

        options: output_rle_mask and output_bboxes_mask, False by default, ask for more in the result; the
        rest are those of `MaskGenerationOptions`, with transformers' defaults (pred_iou_thresh 0.88), also
        under transformers' names: points_per_crop for points_per_side, crops_n_layers for crop_n_layers,
        crops_nms_thresh for box_nms_thresh and crop_nms_thresh.

        Returns for each photo a dictionary: masks, a list of bool [H, W], by falling score; scores, predicted
        IoU float32 [N]; if asked for, rle_mask, a list of uncompressed COCO run lengths, and bounding_boxes,
        int64 [N, 4] as x0, y0, x1, y1, inclusive. Raises ValueError for photos that cannot be read and for
        unknown options.
        """
        chosen = self.options | options
        generator = self._generator(chosen)
        if isinstance(inputs, (list, tuple)):
            return [self._find(generator, photo, chosen) for photo in inputs]
        return self._find(generator, inputs, chosen)

    def _generator(self, options: dict[str, Any]) -> AutomaticMaskGenerator:
        translated: dict[str, Any] = {}
        for name, value in options.items():
            if name not in ("output_rle_mask", "output_bboxes_mask"):
                translated |= dict.fromkeys(_NAMES.get(name, (name,)), value)
        return AutomaticMaskGenerator(
            self.model, preset="transformers", processor=self.processor, **translated
        )

    def _find(self, generator: AutomaticMaskGenerator, photo: Any, options: dict[str, Any]) -> dict[str, Any]:
        found = sorted(generator.find(photo), key=lambda mask: -mask.predicted_iou)
        masks = [each.mask for each in found]
        result: dict[str, Any] = {
            "masks": masks,
            "scores": np.array([each.predicted_iou for each in found], np.float32),
        }
        if options.get("output_rle_mask"):
            result["rle_mask"] = [encode_rle(mask) for mask in masks]
        if options.get("output_bboxes_mask"):
            result["bounding_boxes"] = np.array([mask_to_boxes(mask) for mask in masks]).reshape(-1, 4)
        return result
