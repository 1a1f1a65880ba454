"""What `Sam2VideoModel` returns for a frame."""

from collections.abc import Hashable
from typing import Self

import flax.struct
import numpy as np

from sam2_jax.image.outputs import ModelOutput
from sam2_jax.video.results import FrameMasks


@flax.struct.dataclass
class Sam2VideoSegmentationOutput(ModelOutput):
    """Masks of P objects on one frame: transformers' fields, and numpy arrays where it has torch's tensors.

    object_ids: P ids, in the order in which the objects were added. pred_masks: logits float32 [P, 1, H/4,
    W/4] of the network's size, for `Sam2VideoProcessor.post_process_masks`. object_score_logits: float32
    [P, 1], positive where the object is present. frame_idx: the frame's number.
    """

    object_ids: list[Hashable]
    pred_masks: np.ndarray
    object_score_logits: np.ndarray
    frame_idx: int

    @classmethod
    def of(cls, found: FrameMasks) -> Self:
        """What a session found."""
        return cls(list(found.object_ids), found.logits[:, None], found.object_scores[:, None], found.frame)
