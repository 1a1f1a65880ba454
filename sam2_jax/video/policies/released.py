"""The released rule of memory, and what other policies build on: one of them for each object of a session."""

from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np

from sam2_jax.video.plan import Roles, Rules, roles
from sam2_jax.video.policies.boxes import Box


class ReleasedMemory:
    """Plain SAM 2, as the network was trained: the latest frames, whatever was seen on them."""

    looks_at_results: ClassVar[bool] = False
    expects_motion: ClassVar[bool] = False
    wants_candidates: ClassVar[bool] = False

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def roles(self, t: int, direction: int, conditioning: Sequence[int], ordinary: Collection[int]) -> Roles:
        """What frame t attends to; see `plan.roles`. conditioning: frames of prompts, then those kept."""
        return roles(t, direction, conditioning, ordinary, self.rules)

    def expect(self, t: int, direction: int) -> tuple[Box, float] | None:
        """Where the object is expected on frame t, which is tracked next, and how much that counts, 0 to 1.

        Asked if `expects_motion`.
        """
        return None

    def saw(self, t: int, low: np.ndarray, score: float, iou: float) -> None:
        """Note what the network gave for the object on frame t: see `Output`."""

    def is_kept(self, t: int, low: np.ndarray, iou: float, candidates: np.ndarray) -> bool:
        """Whether frame t, just seen, becomes a conditioning frame. candidates: all masks' logits.

        candidates: [M, h, w], as `Output.low`. Asked if `wants_candidates`.
        """
        return False

    def prompted(self, t: int) -> None:
        """Note that the object was prompted on frame t."""

    def keep_only(self, frames: Collection[int]) -> None:
        """Forget what is known of other frames."""
