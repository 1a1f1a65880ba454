"""`memory="selected"`: frames on which the object was hidden, or its mask not to be trusted, are no memories.

The common core of several published trackers, without their other parts. Source: Yang et al. 2024, SAMURAI
(arXiv:2411.11922), whose threshold of the predicted IoU this has; also Ding et al. 2024, SAM2Long
(arXiv:2410.16268).
"""

from collections.abc import Collection, Sequence

import numpy as np

from sam2_jax.video.plan import Roles, Rules, roles
from sam2_jax.video.policies.released import ReleasedMemory

MIN_IOU = 0.5
"""Of a trusted mask's predicted IoU."""


class SelectedMemory(ReleasedMemory):
    """The frame right before, and the nearest of those whose mask can be trusted; rows by rank, no gaps.

    Pointers, which cost little and say less, stay those of the latest frames.
    """

    looks_at_results = True

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._trusted: set[int] = set()

    def roles(self, t: int, direction: int, conditioning: Sequence[int], ordinary: Collection[int]) -> Roles:
        """As the released rule, but for recent memories."""
        worthy = {*self._trusted, *conditioning, t - direction}
        return roles(t, direction, conditioning, ordinary, self.rules, worthy)

    def saw(self, t: int, low: np.ndarray, score: float, iou: float) -> None:
        """Trust the frame's mask, or not."""
        self.distrust(t)
        if self.is_trusted(score, iou):
            self._trusted.add(t)

    def is_trusted(self, score: float, iou: float) -> bool:
        """Whether the object is there, and its mask likely right."""
        return score > 0 and iou > MIN_IOU

    def distrust(self, t: int) -> None:
        """Trust a frame no longer."""
        self._trusted.discard(t)

    def keep_only(self, frames: Collection[int]) -> None:
        """Forget the trust in other frames."""
        self._trusted &= set(frames)
