"""The released rule of memory, and what other policies build on: one of them for each object of a session."""

from collections.abc import Collection, Sequence

import numpy as np

from sam2_jax.video.plan import Roles, Rules, roles


class ReleasedMemory:
    """Plain SAM 2, as the network was trained: the latest frames, whatever was seen on them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def roles(self, t: int, direction: int, conditioning: Sequence[int], ordinary: Collection[int]) -> Roles:
        """What frame t attends to; see `plan.roles`."""
        return roles(t, direction, conditioning, ordinary, self.rules)

    def saw(self, t: int, low: np.ndarray, score: float, iou: float) -> None:
        """Note what the network gave for the object on frame t: see `Output`."""

    def keep_only(self, frames: Collection[int]) -> None:
        """Forget what is known of other frames."""
