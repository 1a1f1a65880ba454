"""A stand-in for the network in tests of what is made of its masks."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from sam2_jax import Sam2ImageSegmentationOutput, Sam2Model
from sam2_jax.model.mask_decoder import NO_MASK


class Discs(Sam2Model):
    """In place of a network, whose masks with random weights all look alike: discs around clicks.

    Around the middles of boxes, where there are no clicks. Three sizes, edges of several softnesses, scores
    as if at random; all depend on click and photo.
    """

    def __call__(
        self,
        pixel_values: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        image_embeddings: Any = None,
        multimask_output: bool = True,
        min_score: float | None = None,
        **_: Any,
    ) -> Sam2ImageSegmentationOutput:
        given = pixel_values if image_embeddings is None else image_embeddings
        brightness = np.asarray(given).mean(axis=(1, 2, 3))[:, None, None]
        if input_points is None and input_boxes is None:
            input_points = np.zeros((len(brightness), 1, 1, 2))
        if input_points is None:
            boxes = np.asarray(input_boxes)
            clicks = boxes.reshape(*boxes.shape[:2], 2, 2).mean(axis=2) / 4
        else:
            clicks = np.asarray(input_points)[:, :, 0] / 4
        if input_masks is not None:
            logits = 1.5 * np.asarray(input_masks)[:, :, None]
            scores = 0.5 + 0.4 * np.sin(logits.sum(axis=(3, 4)))
        else:
            y, x = np.mgrid[:32, :32]
            distance = np.hypot(x - clicks[..., 0, None, None], y - clicks[..., 1, None, None])
            radius = np.array([3, 6, 12]) + np.sin(clicks.sum(axis=2, keepdims=True) + brightness)
            slope = 1.5 + np.cos(clicks[..., :1] * [3, 5, 7])
            logits = slope[..., None, None] * (radius[..., None, None] - distance[:, :, None])
            scores = 0.5 + 0.4 * np.sin(clicks[..., :1] * [5, 7, 9] + clicks[..., 1:] + brightness)
        if not multimask_output:
            logits, scores = logits[:, :, :1], scores[:, :, :1]
        if min_score is not None:
            logits = np.where((scores > min_score).any(axis=2)[..., None, None, None], logits, NO_MASK)
        logits, scores = (jnp.asarray(a, jnp.float32) for a in (logits, scores))
        return Sam2ImageSegmentationOutput(scores, logits, object_score_logits=None, image_embeddings=None)

    def get_image_embeddings(self, pixel_values: Any) -> Any:
        return pixel_values
