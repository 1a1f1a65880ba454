"""What is known of one object of a clip, on the host: prompts, results by frame, slots on the device."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sam2_jax.model.memory_bank import FrameOutput
from sam2_jax.processing.photo_prompts import Box, Point
from sam2_jax.video.plan import Roles, Slots
from sam2_jax.video.policies.released import ReleasedMemory

MOST_KEPT = 3
"""Frames that a policy may make conditioning ones beside those with prompts."""


class Output(NamedTuple):
    """The network's result for one object on one frame.

    low: logits float32 [H / 4, W / 4] of the network's size, -1024 throughout where the object is absent.
    pointer: float32 [C]. score: logit of the object's presence. iou: predicted IoU. memory: [S, 64] of the
    session's memory type, None before the prompts of the frame are settled. direction: in which the frame was
    passed, 1 or -1; None if it never was, or its prompts were cleared since.
    """

    low: np.ndarray
    pointer: np.ndarray
    score: float
    iou: float
    memory: np.ndarray | None = None
    direction: int | None = None


def outputs_of(found: FrameOutput, memories: Any = None) -> list[Output]:
    """Results of all objects, on the host, each by itself: one that is kept does not hold the others."""
    parts = [np.asarray(part) for part in (*found, *(() if memories is None else (memories,)))]
    return [
        Output(low.copy(), pointer.copy(), float(score), float(iou), *(each.copy() for each in memory))
        for low, pointer, score, iou, *memory in zip(*parts, strict=True)
    ]


@dataclass
class FramePrompts:
    """The points and the box of an object on a frame, in the video's pixels."""

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None

    def joined(self, other: "FramePrompts") -> "FramePrompts":
        """Both together; another box takes the place of this one."""
        return FramePrompts(self.points + other.points, self.labels + other.labels, other.box or self.box)


@dataclass
class VideoObject:
    """One object.

    conditioning: results of frames with prompts, in the order of these; ordinary: of frames that were tracked
    or, corrected without becoming conditioning frames, are `fixed`; of ordinary ones only the newest `keep`
    are there. pending: results of prompts that no frame has seen yet. kept: ordinary frames that the policy
    made conditioning ones, the latest of them.
    """

    id: Hashable
    index: int
    slots: Slots
    policy: ReleasedMemory
    keep: int | None = None
    conditioning: dict[int, Output] = field(default_factory=dict)
    ordinary: dict[int, Output] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    pending: dict[int, Output] = field(default_factory=dict)
    kept: dict[int, Output] = field(default_factory=dict)
    prompts: dict[int, FramePrompts] = field(default_factory=dict)

    def output(self, t: int) -> Output | None:
        """The result for a frame, of its prompts or of tracking; None without any."""
        for outputs in (self.pending, self.conditioning, self.ordinary):
            if t in outputs:
                return outputs[t]
        return None

    def is_given(self, t: int) -> bool:
        """Whether prompts say what frame t yields, so that it is not tracked."""
        return t in self.conditioning or t in self.fixed

    @property
    def is_dormant(self) -> bool:
        """Whether there is nothing to track: no prompts, or all of them cleared."""
        return not self.conditioning

    def roles(self, t: int, direction: int, also: int | None = None, *, is_own_seen: bool = False) -> Roles:
        """What frame t attends to. also: a frame that counts as tracked already.

        is_own_seen: a conditioning frame attends to its own memory.
        """
        conditioning = [f for f in (*self.conditioning, *self.kept) if f != t or is_own_seen]
        ordinary = {*self.ordinary, *self.slots.frames} | ({also} if also is not None else set())
        return self.policy.roles(t, direction, conditioning, ordinary)

    def could_load(self, wanted: Roles, frames: Collection[int]) -> bool:
        """Whether anything is wanted that is not on the device but known, or in some frames, not seen yet."""
        memories, pointers = self.slots.missing(wanted)
        known = {*self.conditioning, *self.kept, *self.ordinary, *frames}
        return not known.isdisjoint(memories + pointers)

    def forget(self, t: int) -> None:
        """Forget what frame t gave to others to remember: it is tracked or prompted again."""
        self.slots.forget(t)
        self.kept.pop(t, None)

    def keep_as_conditioning(self, t: int, output: Output) -> None:
        """Make an ordinary frame a conditioning one, in place of the first of those if they are many."""
        self.slots.forget(t)
        self.kept[t] = output
        while len(self.kept) > MOST_KEPT:
            self.forget(next(iter(self.kept)))

    def add_ordinary(self, t: int, output: Output) -> None:
        """Keep the result of a frame, the newest last, and forget the oldest beyond `keep`."""
        self.ordinary.pop(t, None)
        self.ordinary[t] = output
        if self.keep is not None:
            loose = [f for f in self.ordinary if f not in self.fixed]
            for f in loose[: max(len(loose) - self.keep, 0)]:
                del self.ordinary[f]
            self.policy.keep_only({*self.ordinary, *self.slots.frames})

    def settle(self, t: int, output: Output, *, is_conditioning: bool) -> None:
        """Make the result of prompts, its memory included, one that other frames see."""
        self.ordinary.pop(t, None)
        self.forget(t)
        self.policy.prompted(t)
        if is_conditioning:
            self.conditioning[t] = output
        else:
            self.fixed.add(t)
            self.add_ordinary(t, output)

    def passed(self, t: int, direction: int) -> None:
        """Note in which direction frame t was passed, if prompts say what it yields."""
        for outputs in (self.conditioning, self.ordinary):
            if self.is_given(t) and t in outputs:
                outputs[t] = outputs[t]._replace(direction=direction)

    def clear(self, t: int) -> None:
        """Take the prompts of a frame back: what they gave is an ordinary result, and no prompt's mask."""
        self.prompts.pop(t, None)
        self.pending.pop(t, None)
        given = self.conditioning.pop(t, None) or (self.ordinary.get(t) if t in self.fixed else None)
        if given is not None:
            self.fixed.discard(t)
            self.forget(t)
            self.add_ordinary(t, given._replace(direction=None))
