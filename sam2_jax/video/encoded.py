"""Frames of a clip as the network has encoded them: the latest, one by one or several in a row."""

import numpy as np

from sam2_jax.model.sam2_video import FrameFeatures
from sam2_jax.video.frames import Frames
from sam2_jax.video.steps import Steps

# Frames, or several in a row: a click on the frame before, or another click on this one, costs no encoder.
_KEPT = 2


class EncodedFrames:
    """Features of frames, made when they are asked for."""

    def __init__(self, frames: Frames, steps: Steps) -> None:
        self._frames = frames
        self._steps = steps
        # Those not used for longest come first.
        self._kept: dict[range, FrameFeatures] = {}

    def frame(self, t: int) -> FrameFeatures:
        """Features of one frame. Raises ValueError if it cannot be read."""
        run = next((run for run in self._kept if t in run), range(t, t + 1))
        return self._steps.frame_of(self._run(run), run.index(t))

    def run(self, frames: range) -> FrameFeatures:
        """Features of frames in a row, encoded together. Raises ValueError if one cannot be read."""
        return self.frame(frames[0]) if len(frames) == 1 else self._run(frames)

    def _run(self, frames: range) -> FrameFeatures:
        if frames in self._kept:
            self._kept[frames] = self._kept.pop(frames)
        else:
            pixels = [self._frames.pixels(t) for t in frames]
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[frames] = self._steps.encode(pixels[0] if len(pixels) == 1 else np.concatenate(pixels))
        return self._kept[frames]
