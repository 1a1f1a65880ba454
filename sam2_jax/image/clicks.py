"""Many clicks on encoded photos, each an object of its own: what the automatic mask generator decodes."""

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


def clicks_of_each(most: int | None, photos: int, devices: int) -> int | None:
    """How many clicks on each photo are decoded together, where a device may decode so many."""
    return None if most is None else max(1, most * devices // photos)


def decode_clicks(
    model: PromptableModel,
    embeddings: ImageEmbeddings,
    points: np.ndarray,
    *,
    multimask_output: bool = True,
    min_score: float | None = None,
    use_m2m: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Decode clicks [N, 2], in pixels of the network's input, on each of B photos.

    min_score: as of `Sam2Model`. use_m2m: each mask is refined once, with its click, as a prompt for itself.
    Returns logits [B, P, M, h, w] and predicted IoU [B, P, M], on the device, the first N of the P being the
    clicks'; with use_m2m, [B, P * M, 1, h, w] and [B, P * M, 1].
    """
    clicks: Any = np.tile(points.astype(np.float32)[None, :, None], (len(embeddings[0]), 1, 1, 1))
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
    """Bring logits [B, P, M, h, w] to prompts [B, P * M, h, w]."""
    return masks.clip(-MAX_LOGIT, MAX_LOGIT).reshape(len(masks), -1, *masks.shape[3:])
