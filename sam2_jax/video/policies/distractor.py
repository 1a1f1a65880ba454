"""`memory="distractor"`: frames that tell the object from its look-alikes are kept, the others thinned out.

Source: Videnovic, Lukezic, Kristan 2024, DAM4SAM (arXiv:2411.17576), and its constants. Different here: areas
and boxes are those of the logits at a quarter of the network's size, and prompts are decoded as always.
"""

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np
from scipy import ndimage

from sam2_jax.video.plan import Role, Roles, Rules, window
from sam2_jax.video.policies.boxes import box_of, overlap
from sam2_jax.video.policies.released import ReleasedMemory

MOST_ENTRIES = 4
"""Conditioning frames attended to, those of prompts included."""
STRIDE = 5
"""Between recent memories, but for the one right before."""
MIN_IOU = 0.8
"""Of a sure mask's predicted IoU."""
AREA_CHANGE = 0.2
"""A sure mask's area is so near to the median of the latest."""
AREAS = 10
"""Latest areas of which the median is taken."""
MIN_GAP = 5
"""Frames between one kept for its look-alike and the next."""
MAX_OVERLAP = 0.7
"""Of the mask's box with the box around it and another candidate's largest part, if that is a look-alike."""


class DistractorMemory(ReleasedMemory):
    """Half of the memories are of frames with a look-alike on them that the network told apart."""

    looks_at_results = True
    wants_candidates = True

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._hidden: set[int] = set()
        self._areas: deque[int] = deque(maxlen=AREAS)
        self._kept: deque[int] = deque(maxlen=MOST_ENTRIES - 1)

    def roles(self, t: int, direction: int, conditioning: Sequence[int], ordinary: Collection[int]) -> Roles:
        """Four conditioning frames at most, prompted or kept; recent ones, unless hidden, in what is left."""
        selected = self._select(t, direction, conditioning)
        usable = (set(ordinary) | set(conditioning)) - set(selected) - {t} - self._hidden
        last = self.rules.num_maskmem - 1
        count = max(self.rules.num_maskmem - len(selected), 0)
        recent = [f for f in window(t, direction, count, STRIDE) if f in usable]
        spatial = [*((f, last) for f in selected), *((f, row) for row, f in enumerate(recent))]
        pointers: list[Role] = [(f, abs(t - f)) for f in selected]
        behind = ((t - direction * d, d) for d in range(1, self.rules.max_pointers))
        return Roles(tuple(spatial), tuple(pointers + [(f, d) for f, d in behind if f in usable]))

    def _select(self, t: int, direction: int, conditioning: Sequence[int]) -> list[int]:
        """The first, the last before the frame right before t, then the nearest of all."""
        right_before = t - direction
        entries = [f for f in conditioning if f not in self._kept or f != right_before]
        behind = [f for f in entries if (right_before - f) * direction > 0]
        order = entries[:1] + sorted(behind, key=lambda f: abs(t - f))[:1]
        order += sorted(entries, key=lambda f: abs(t - f))
        return list(dict.fromkeys(order))[:MOST_ENTRIES]

    def saw(self, t: int, low: np.ndarray, score: float, iou: float) -> None:
        """Note whether anything of the object was seen."""
        self._hidden.discard(t)
        if not (low > 0).any():
            self._hidden.add(t)

    def is_kept(self, t: int, low: np.ndarray, iou: float, candidates: np.ndarray) -> bool:
        """Whether frame t, just seen, becomes a conditioning frame. candidates: all masks' logits."""
        chosen = low > 0
        area = int(chosen.sum())
        if area == 0:
            return False
        usual = float(np.median(self._areas)) if self._areas else np.inf
        self._areas.append(area)
        is_sure = iou > MIN_IOU and abs(area - usual) <= AREA_CHANGE * usual < np.inf
        is_due = not self._kept or abs(t - self._kept[-1]) > MIN_GAP
        if is_sure and is_due and _has_look_alike(chosen, candidates > 0):
            self._kept.append(t)
            return True
        return False

    def keep_only(self, frames: Collection[int]) -> None:
        """Forget which others were hidden."""
        self._hidden &= set(frames)


def _has_look_alike(chosen: np.ndarray, candidates: np.ndarray) -> bool:
    """Whether a candidate has a part outside of the chosen mask that stretches the box around it far."""
    box = box_of(chosen)
    for candidate in candidates:
        parts, count = ndimage.label(candidate & ~chosen, np.ones((3, 3), int))
        if not count:
            continue
        largest = np.bincount(parts.ravel())[1:].argmax() + 1
        around = box_of(chosen | (parts == largest))
        assert box is not None
        assert around is not None
        if overlap(box, around) <= MAX_OVERLAP:
            return True
    return False
