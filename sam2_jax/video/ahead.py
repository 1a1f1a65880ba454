"""Frames tracked ahead: several in a row as one program, handed out one by one, taken back if need be.

The device runs on while the host prepares and yields. What was not handed out has left its traces on the
device alone, whose slots are a cache: they forget it, and load again what it had pushed out.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from sam2_jax.model.memory_bank import Plan, TrackedFrame
from sam2_jax.model.sam2_video import FrameFeatures
from sam2_jax.video.encoded import EncodedFrames
from sam2_jax.video.objects import Output, VideoObject, outputs_of
from sam2_jax.video.state import Memories
from sam2_jax.video.steps import Steps


class _Chunk:
    """Results of frames tracked by one program, brought to the host when the first is asked for."""

    def __init__(self, tracked: TrackedFrame) -> None:
        self._tracked = tracked

    def at(self, place: int) -> TrackedFrame:
        """Those of one frame."""
        self._tracked = jax.device_get(self._tracked)
        found: TrackedFrame = jax.tree.map(lambda leaf: leaf[place], self._tracked)
        return found


class _Waiting(NamedTuple):
    """A frame that was tracked, and its place in a chunk."""

    frame: int
    chunk: _Chunk
    place: int


class TrackedAhead:
    """Tracks objects on frames in a row, whose results wait here until they are asked for."""

    def __init__(
        self, steps: Steps, encoded: EncodedFrames, memories: Memories, *, with_candidates: bool
    ) -> None:
        self._steps = steps
        self._encoded = encoded
        self._memories = memories
        self._with_candidates = with_candidates
        self._waiting: deque[_Waiting] = deque()
        self._direction = 1
        self._objects: Sequence[VideoObject] = ()

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._waiting)

    def is_next(self, t: int, direction: int) -> bool:
        """Whether frame t, in this direction, is the one to be handed out."""
        return bool(self._waiting) and self._waiting[0].frame == t and self._direction == direction

    def track(self, frames: range, direction: int, objects: Sequence[VideoObject]) -> int:
        """Track objects on the first frame, and on those behind it as far as that can be planned now.

        Returns on how many. Raises ValueError if the first cannot be read.
        """
        self.drop()
        try:
            features = self._encoded.run(frames)
        except ValueError:
            if len(frames) == 1:
                raise
            return self.track(frames[:1], direction, objects)
        self._direction, self._objects = direction, objects
        try:
            plans = self._memories.plan_run(frames, direction, objects)
            if len(plans) == len(frames):
                self._run(features, plans, frames)
            else:
                for i, plan in enumerate(plans):
                    self._run(self._steps.frame_of(features, i), [plan], frames[i : i + 1])
        except BaseException:
            self._fail()
            raise
        return len(plans)

    def _run(self, features: FrameFeatures, plans: Sequence[Plan], frames: range) -> None:
        in_a_row = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
        track = partial(self._steps.track, features, plans=in_a_row, with_candidates=self._with_candidates)
        chunk = _Chunk(self._memories.update(track))
        self._waiting += (_Waiting(t, chunk, i) for i, t in enumerate(frames))

    def take(self) -> tuple[list[Output], np.ndarray | None]:
        """Hand the next frame out: the results of the objects there is room for, and candidates if wanted."""
        _, chunk, place = self._waiting[0]
        try:
            found = chunk.at(place)
        except BaseException:
            self._fail()
            raise
        self._waiting.popleft()
        candidates = None if found.candidates is None else np.asarray(found.candidates)
        return outputs_of(found.output, found.memory), candidates

    def drop(self) -> None:
        """Take back what was not handed out, before anything else is done with the objects."""
        for waiting in self._waiting:
            for each in self._objects:
                each.slots.forget(waiting.frame)
        self._waiting.clear()

    def _fail(self) -> None:
        self._waiting.clear()
        self._memories.start_again()
