"""Many clicks on one encoded photo, each an object of its own: what the automatic mask generator decodes."""

import math
from functools import partial
from typing import Any

import jax
import numpy as np

from sam2_jax.checkpoint.pretrained import computed_at_once
from sam2_jax.image.arguments import bucket, pad_prompts
from sam2_jax.image.prompt_masks import MAX_LOGIT
from sam2_jax.image.promptable import PromptableModel
from sam2_jax.model.sam2 import ImageEmbeddings


def batches_of_clicks(points: np.ndarray, most: int | None) -> list[np.ndarray]:
    """Divide points [N, 2] into the fewest batches of at most so many, as equal as can be.

    most: None for one batch.
    """
    return np.array_split(points, math.ceil(len(points) / (most or len(points))))


def decode_clicks(
    model: PromptableModel,
    embeddings: ImageEmbeddings,
    points: np.ndarray,
    *,
    multimask_output: bool = True,
    min_score: float | None = None,
    use_m2m: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Decode clicks [N, 2], in pixels of the network's input, on one photo.

    min_score: as of `Sam2Model`. use_m2m: each mask is refined once, with its click, as a prompt for itself.
    Returns logits [1, P, M, h, w] and predicted IoU [1, P, M], on the device, the first N of the P being the
    clicks'; with use_m2m, [1, P * M, 1, h, w] and [1, P * M, 1].
    """
    clicks: Any = points.astype(np.float32)[None, :, None]
    labels: Any = np.ones(clicks.shape[:3], np.int32)
    if model.padding == "masked":
        # Padded here, so that nothing needs to be cut off on the device.
        clicks, labels = pad_prompts(clicks, labels, bucket(len(points), 2), 1)
    decode = partial(model, image_embeddings=embeddings)
    outputs = decode(
        input_points=clicks,
        input_labels=labels,
        multimask_output=multimask_output,
        min_score=None if use_m2m else min_score,
    )
    if not use_m2m:
        return outputs.pred_masks, outputs.iou_scores
    with computed_at_once(outputs.pred_masks):
        masks = _as_prompts(outputs.pred_masks)
    count = outputs.iou_scores.shape[2]
    refined = decode(
        input_points=np.repeat(clicks, count, axis=1),
        input_labels=np.repeat(labels, count, axis=1),
        input_masks=masks,
        multimask_output=False,
        min_score=min_score,
    )
    return refined.pred_masks, refined.iou_scores


@jax.jit
def _as_prompts(masks: jax.Array) -> jax.Array:
    """Bring logits [1, P, M, h, w] to prompts [1, P * M, h, w]."""
    return masks.clip(-MAX_LOGIT, MAX_LOGIT).reshape(1, -1, *masks.shape[3:])
