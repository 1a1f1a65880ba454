"""What a session yields for a frame: logits, scores and masks of its objects."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sam2_jax.checks import shown
from sam2_jax.processing.inputs import Size
from sam2_jax.processing.processor import Sam2Processor

ABSENT_LOGIT = -1024.0
"""Of every pixel of an object that is absent."""
FILLED_LOGIT = np.float32(0.1)
"""Of pixels in small holes that were filled."""
ABSENT_SCORE = -10.0
"""Presence of an object that was never prompted."""


@dataclass(frozen=True, eq=False)
class FrameMasks:
    """Masks of P objects on one frame.

    frame: its number. object_ids: P ids, in the order in which the objects were added. logits: float32
    [P, h, w] at a quarter of the network's input size, -1024 throughout where an object is absent. scores:
    predicted IoU, float32 [P] in [0, 1]. object_scores: float32 [P], positive where the object is present.
    is_conditioning: bool [P], whether the mask is that of prompts. size: the video's (height, width). Masks
    of that size are made when first asked for.
    """

    frame: int
    object_ids: tuple[Hashable, ...]
    logits: np.ndarray = field(repr=False)
    scores: np.ndarray
    object_scores: np.ndarray
    is_conditioning: np.ndarray
    size: Size
    processor: Sam2Processor = field(repr=False)
    post_processing: Mapping[str, Any] = field(repr=False)

    @cached_property
    def masks(self) -> np.ndarray:
        """All masks, bool [P, height, width]."""
        return self._upscale(self.logits)

    def mask(self, object_id: Hashable) -> np.ndarray:
        """The mask of one object, bool [height, width]. Raises ValueError for an unknown id."""
        if object_id not in self.object_ids:
            known = shown(list(self.object_ids))
            raise ValueError(f"object_id must be one of {known}; got {shown(object_id)}")
        mask: np.ndarray = self.masks[self.object_ids.index(object_id)]
        return mask

    def _upscale(self, logits: np.ndarray) -> np.ndarray:
        full = self.processor.post_process_masks([logits[:, None]], [self.size], **self.post_processing)
        return full[0][:, 0]
