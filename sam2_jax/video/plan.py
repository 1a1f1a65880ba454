"""Which memories a frame sees: frames, rows of the temporal encoding, distances and slots, all integers.

Nothing here depends on what a network computes, so one plan serves single steps and whole clips. Direction is
1 forward and -1 backward in time. A frame with prompts is a conditioning frame of its object; one that was
tracked without is ordinary.

Source: Ravi et al. 2024, SAM 2 (arXiv:2408.00714), section 4, memory bank; the rules in detail are those that
the released weights were trained with, as Meta's predictor has them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import NamedTuple

import numpy as np

Role = tuple[int, int]
"""A frame, and its row of the temporal encoding or its distance."""

NOT_LIMITED = -1


class Roles(NamedTuple):
    """What a frame attends to. spatial: (frame, row) of memories; pointers: (frame, signed distance)."""

    spatial: tuple[Role, ...]
    pointers: tuple[Role, ...]


@dataclass(frozen=True)
class Rules:
    """How many memories there are. Names as in `Sam2VideoConfig`.

    max_pointers: pointers reach max_pointers - 1 frames back, and their distances are divided by that.
    stride: behind the nearest frame take those that are multiples of it only, which reach further back
    (Meta's memory_temporal_stride_for_eval).
    """

    num_maskmem: int = 7
    max_pointers: int = 16
    max_cond_frame_num: int = NOT_LIMITED
    stride: int = 1


def window(t: int, direction: int, count: int, stride: int = 1) -> list[int]:
    """The frames of rank 1 to count before t, in tracking order."""
    first = (t - 2) // stride * stride if direction > 0 else -(-(t + 2) // stride) * stride
    return [t - direction, *(first - direction * k * stride for k in range(count - 1))][:count]


def nearest_behind(t: int, direction: int, count: int, frames: Collection[int]) -> list[Role]:
    """Of frames before t, in tracking order, the nearest; the row is the rank less one, without gaps."""
    behind = [f for f in frames if (t - f) * direction > 0]
    return [(f, row) for row, f in enumerate(nsmallest(count, behind, key=lambda f: abs(t - f)))]


def select_conditioning(t: int, direction: int, frames: Sequence[int], limit: int) -> list[int]:
    """The conditioning frames that frame t attends to, of frames in the order of their prompts.

    All, unless there are more than limit. Then the last before t, the first from t on, and the nearest
    others, of equally near ones the first prompted. A limit of 1 takes the nearest behind, in tracking order,
    or else the nearest.
    """
    if limit == NOT_LIMITED or len(frames) <= limit:
        return list(frames)
    by_distance = sorted(frames, key=lambda f: abs(t - f))
    if limit == 1:
        behind = [f for f in by_distance if (t - f) * direction >= 0]
        return (behind or by_distance)[:1]
    before = max((f for f in frames if f < t), default=None)
    after = min((f for f in frames if f >= t), default=None)
    chosen = [f for f in (before, after) if f is not None]
    return (chosen + [f for f in by_distance if f not in chosen])[:limit]


def roles(
    t: int,
    direction: int,
    conditioning: Sequence[int],
    ordinary: Collection[int],
    rules: Rules,
    worthy: Collection[int] | None = None,
) -> Roles:
    """What frame t of an object attends to, of its conditioning frames (as prompted) and ordinary ones.

    Conditioning frames that are not selected count as ordinary. Selected ones, past or future, have the last
    row; their pointers are used from the past only, at any distance. Recent memories are those of the frames
    right before t, a gap among them staying one; or, if any are said to be worthy, of the nearest of those,
    close up. Ordinary pointers are those of the max_pointers - 1 frames behind t.
    """
    selected = select_conditioning(t, direction, conditioning, rules.max_cond_frame_num)
    usable = (set(ordinary) | set(conditioning)) - set(selected) - {t}
    recent = rules.num_maskmem - 1
    spatial = [(f, recent) for f in selected]
    if worthy is None:
        before = enumerate(window(t, direction, recent, rules.stride))
        spatial += [(f, row) for row, f in before if f in usable]
    else:
        spatial += nearest_behind(t, direction, recent, usable & set(worthy))
    pointers = [(f, (t - f) * direction) for f in selected if (t - f) * direction >= 0]
    behind = ((t - direction * d, d) for d in range(1, rules.max_pointers))
    return Roles(tuple(spatial), tuple(pointers + [(f, d) for f, d in behind if f in usable]))


EMPTY = None
Slot = int | None


@dataclass
class Slots:
    """Which frames of one object lie in its slots on the device.

    conditioning: memory and pointer of a conditioning frame each; memories and pointers: those of ordinary
    frames, in any order. Attention does not see the order of its keys, so nothing is ever moved.
    """

    conditioning: list[Slot]
    memories: list[Slot]
    pointers: list[Slot]

    @classmethod
    def empty(cls, conditioning: int, rules: Rules, pointers: int) -> "Slots":
        """So many slots of each kind, with nothing in them; one to write to where none is ever read."""
        memories = max(rules.num_maskmem - 1, 1)
        return cls([EMPTY] * conditioning, [EMPTY] * memories, [EMPTY] * max(pointers, 1))

    @property
    def frames(self) -> set[int]:
        """Ordinary frames whose memory or pointer is there."""
        return {f for f in (*self.memories, *self.pointers) if f is not EMPTY}

    def forget(self, frame: int) -> None:
        """Empty the slots of a frame."""
        for slots in (self.conditioning, self.memories, self.pointers):
            slots[:] = [EMPTY if f == frame else f for f in slots]

    def missing(self, wanted: Roles) -> tuple[list[int], list[int]]:
        """Frames whose memory, and frames whose pointer, is wanted and not there."""
        parts = (wanted.spatial, self.memories), (wanted.pointers, self.pointers)
        memories, pointers = (
            [f for f, _ in part if f not in slots and f not in self.conditioning] for part, slots in parts
        )
        return memories, pointers

    def lay_out(self, wanted: Roles) -> "Layout":
        """Rows, distances and what is valid in the order of the slots."""
        row, valid = _in_order([*self.conditioning, *self.memories], wanted.spatial)
        distance, pointer_valid = _in_order([*self.conditioning, *self.pointers], wanted.pointers)
        return Layout(row, valid, distance, pointer_valid)


class Layout(NamedTuple):
    """One object's plan for one frame, in the order of its slots, those of conditioning frames first.

    row: int32 [n] of the temporal encoding; distance: int32 [m] in frames; valid, pointer_valid: bool, False
    for slots that are not attended to.
    """

    row: np.ndarray
    valid: np.ndarray
    distance: np.ndarray
    pointer_valid: np.ndarray


def _in_order(frames: Sequence[Slot], wanted: Sequence[Role]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the wanted frames, in the order of the slots, and which slots are wanted."""
    number = dict(wanted)
    numbers = [0 if f is EMPTY else number.get(f, 0) for f in frames]
    return np.array(numbers, np.int32), np.array([f in number for f in frames], bool)


def free_slot(slots: Sequence[Slot], needed: Collection[int]) -> int:
    """A slot to write to: an empty one, or else the first whose frame is not needed.

    In consecutive frames, either direction, that is the frame which has just left the window.
    """
    free = [i for i, f in enumerate(slots) if f not in needed]
    return min(free, key=lambda i: slots[i] is not EMPTY)
