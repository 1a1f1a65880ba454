"""`SAM2ImagePredictor`: prompts in Meta's array forms on one photo or several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.checks import read_flag, shown
from sam2_jax.image.model import Sam2Model
from sam2_jax.image.prompt_masks import clamp
from sam2_jax.meta.build import build_sam2_hf, split_options
from sam2_jax.meta.prompts import read_boxes, read_masks, read_points
from sam2_jax.model.sam2 import ImageEmbeddings
from sam2_jax.processing.crops import read_option
from sam2_jax.processing.images import in_float
from sam2_jax.processing.inputs import Size

_OPTIONS = ("mask_threshold", "max_hole_area", "max_sprinkle_area")

Result = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Masks, predicted IoU, low-resolution logits."""


class SAM2ImagePredictor:
    """Encodes a photo, or several, and predicts masks for prompts on them: Meta's class.

    What Meta's asserts or lets pass is a ValueError with a remedy here; asking before a photo is set is a
    RuntimeError, as there. Not to be shared between threads.
    """

    def __init__(
        self,
        sam_model: Sam2Model,
        mask_threshold: float = 0.0,
        max_hole_area: float | None = 0.0,
        max_sprinkle_area: float | None = 0.0,
    ) -> None:
        """Nothing is computed yet.

        mask_threshold: logits above it are inside. max_hole_area, max_sprinkle_area: holes and islands of up
        to so many pixels of the network's masks are removed, 0 or None for none. Raises ValueError for what
        cannot be meant.
        """
        if not isinstance(sam_model, Sam2Model):
            raise ValueError(
                f"sam_model must be a Sam2Model; got {shown(sam_model)}: SAM2ImagePredictor.from_pretrained "
                "takes a name"
            )
        self.model = sam_model
        self._post_processing: dict[str, Any] = _read_options(
            mask_threshold, max_hole_area, max_sprinkle_area
        )
        self.mask_threshold = self._post_processing["mask_threshold"]
        self._embeddings: list[ImageEmbeddings] = []
        self._orig_hw: list[Size] = []
        self.reset_predictor()

    def __repr__(self) -> str:
        photos = f"{len(self._orig_hw)} photo{'' if len(self._orig_hw) == 1 else 's'} set"
        return f"SAM2ImagePredictor({self.model!r}, {photos})"

    @classmethod
    def from_pretrained(cls, model_id: str | Path, **options: Any) -> Self:
        """Load a model by its hub id or from a folder; options of `build_sam2` and of the predictor."""
        building, own = split_options(options, _OPTIONS)
        _read_options(**own)  # before anything is loaded
        return cls(build_sam2_hf(model_id, **building), **own)

    def set_image(self, image: Any) -> None:
        """Encode a photo for `predict`: an array [H, W, 3] of 0 to 255 in RGB, a PIL image or a path.

        It is resized without rounding to 8 bits, as Meta does it. Raises ValueError for what is no photo.
        """
        self.reset_predictor()
        self._encode([image])

    def set_image_batch(self, image_list: Sequence[Any]) -> None:
        """Encode several photos, one after the other, for `predict_batch`; of each as `set_image`."""
        self.reset_predictor()
        if not isinstance(image_list, (list, tuple)) or not image_list:
            raise ValueError(f"image_list must be a list of photos; got {shown(image_list)}")
        self._encode(image_list)
        self._is_batch = True

    def _encode(self, images: Sequence[Any]) -> None:
        pictures = [self.model.processor.image_processor.read_8_bits(image) for image in images]
        for picture in pictures:
            pixels = self.model.processor(images=in_float(picture))["pixel_values"]
            self._embeddings.append(self.model.get_image_embeddings(pixels))
        self._orig_hw = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        self._is_image_set = True

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Result:
        """Predict the masks of one object, or of N, on the photo that is set.

        point_coords: [n, 2] or [N, n, 2], (x, y) in the photo's pixels; point_labels: [n] or [N, n], 1 on the
        object and 0 off it. box: [4], [1, 4] or [N, 4] as x0, y0, x1, y1. mask_input: low-resolution logits
        of an earlier prediction, [1, h, w], or [N, 1, h, w]. multimask_output: three masks, not one.
        return_logits: masks as logits and not cut at the threshold. normalize_coords=False: coordinates are
        parts of the photo's width and height, 0 to 1. Without any prompt the network is asked as transformers
        asks it, with a single not-a-point.

        Returns masks float32 [M, H, W] of 0 and 1 or logits, predicted IoU float32 [M], and low-resolution
        logits float32 [M, h, w] within -32 and 32; for N > 1 objects [N, M, H, W], [N, M] and [N, M, h, w].
        Raises ValueError for prompts that cannot be meant, RuntimeError if no photo is set.
        """
        if not self._is_image_set:
            raise RuntimeError("an image must be set with set_image before masks are predicted")
        if self._is_batch:
            raise RuntimeError("several images are set: predict_batch predicts on them")
        prompts = point_coords, point_labels, box, mask_input
        return self._predict(0, prompts, multimask_output, return_logits, normalize_coords)

    def predict_batch(
        self,
        point_coords_batch: Any = None,
        point_labels_batch: Any = None,
        box_batch: Any = None,
        mask_input_batch: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Predict masks on all photos that are set with `set_image_batch`.

        Each argument is a list with what `predict` takes for each photo, None where it has none, or None for
        all. Returns three lists of what `predict` returns. Raises as `predict` does, naming the photo.
        """
        if not self._is_batch:
            raise RuntimeError("several images must be set with set_image_batch before predict_batch")
        count = len(self._embeddings)
        given = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        for name, values in given.items():
            if values is not None and (not hasattr(values, "__len__") or len(values) != count):
                raise ValueError(f"{name} must have an entry for each of {count} images; got {shown(values)}")
        flags = multimask_output, return_logits, normalize_coords
        results = []
        for i in range(count):
            prompts = tuple(None if values is None else values[i] for values in given.values())
            try:
                results.append(self._predict(i, prompts, *flags))
            except ValueError as error:
                raise ValueError(f"image {i}: {error}") from error
        masks, scores, logits = (list(arrays) for arrays in zip(*results, strict=True))
        return masks, scores, logits

    def _predict(
        self,
        i: int,
        prompts: tuple[Any, ...],
        multimask_output: bool,
        return_logits: bool,
        normalize_coords: bool,
    ) -> Result:
        multimask_output = read_flag("multimask_output", multimask_output)
        return_logits = read_flag("return_logits", return_logits)
        point_coords, point_labels, box, mask_input = prompts
        size = self._orig_hw[i]
        # The frame that coordinates are in, and how much it is stretched to the network's input.
        frame = size if read_flag("normalize_coords", normalize_coords) else (1, 1)
        scale = np.array(self.model.config.image_size[::-1]) / frame[::-1]
        points, labels = read_points(point_coords, point_labels, frame)
        boxes = read_boxes(box, frame)
        if points is not None and boxes is not None and len(points) != len(boxes):
            raise ValueError(
                f"point_coords and box must be of as many objects; got {len(points)} and {len(boxes)}"
            )
        outputs = self.model(
            input_points=None if points is None else (points * scale)[None],
            input_labels=None if labels is None else labels[None],
            input_boxes=None if boxes is None else (boxes * np.tile(scale, 2))[None],
            input_masks=read_masks(mask_input),
            image_embeddings=self._embeddings[i],
            multimask_output=multimask_output,
        )
        masks = self.model.processor.post_process_masks(
            np.asarray(outputs.pred_masks),
            [size],
            binarize=not return_logits,
            **self._post_processing,
        )[0].astype(np.float32)
        logits = clamp(np.asarray(outputs.pred_masks, np.float32)[0])
        scores = np.array(outputs.iou_scores[0], np.float32)
        return (masks[0], scores[0], logits[0]) if len(masks) == 1 else (masks, scores, logits)

    def get_image_embedding(self) -> jax.Array:
        """The coarsest embedding of what is set, [images, C, h, w]. Raises RuntimeError if nothing is set."""
        if not self._is_image_set:
            raise RuntimeError("an image must be set with set_image before it has an embedding")
        return self._channels_first(2)

    @property
    def device(self) -> Any:
        """JAX's device that holds the weights."""
        return self.model.device

    def reset_predictor(self) -> None:
        """Forget the photos that are set."""
        self._embeddings = []
        self._orig_hw = []
        self._is_image_set = self._is_batch = False

    @property
    def _features(self) -> dict[str, Any] | None:
        """Meta's dictionary of embeddings, channels first, which its notebook looks into; None if not set."""
        if not self._is_image_set:
            return None
        return {
            "image_embed": self._channels_first(2),
            "high_res_feats": [self._channels_first(0), self._channels_first(1)],
        }

    def _channels_first(self, level: int) -> jax.Array:
        return jnp.concatenate([each[level] for each in self._embeddings]).transpose(0, 3, 1, 2)


def _read_options(
    mask_threshold: Any = 0.0, max_hole_area: Any = 0.0, max_sprinkle_area: Any = 0.0
) -> dict[str, float]:
    areas = {"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}
    return {
        "mask_threshold": read_option("mask_threshold", mask_threshold),
        **{name: 0.0 if area is None else read_option(name, area) for name, area in areas.items()},
    }
