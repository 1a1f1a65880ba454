"""`Sam2VideoModel`: objects of a clip, prompted on some frames, tracked through all."""

from collections.abc import Sequence
from typing import Any

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.image.rehearsal import check_sizes, time_each
from sam2_jax.image.with_processor import ModelWithProcessor
from sam2_jax.video.rehearsal import rehearse
from sam2_jax.video.tracker import VideoTracker


class Sam2VideoModel(ModelWithProcessor[Sam2VideoConfig]):
    """SAM 2 for clips. `config`, `params` and `module` (a pure Flax module) are there for direct use."""

    config_class = Sam2VideoConfig

    def with_image_size(self, image_size: int | Sequence[int]) -> "Sam2VideoModel":
        """The same weights for inputs of another size: a side, or (height, width), multiples of 32."""
        config = self.config.with_image_size(image_size)
        resized = Sam2VideoModel(config, self.params, dtype=self.module.dtype)
        resized._source = self._source
        return resized

    def video(self, source: Any = None, **options: Any) -> VideoTracker:
        """Begin a session on a clip or a stream: `model.video(frames, keep="window:50")`.

        source: an array [T, H, W, 3], a list of pictures, an iterator of pictures, or None for frames that
        come one by one. options: those of `VideoOptions` and of `VideoTracker`.
        """
        return VideoTracker(self, source, **options)

    def compile(
        self,
        objects: int | Sequence[int] = (1,),
        conditioning_frames: int | Sequence[int] = (1,),
        *,
        progress: bool = False,
        **options: Any,
    ) -> dict[str, float]:
        """Compile ahead of time what sessions run, so that their first frames are as fast as any.

        objects: how many a session has; conditioning_frames: on how many frames an object has prompts; 5, 6
        and 8 are one program. options: those of the sessions, such as memory_dtype, memory and max_hole_area.
        progress shows a bar. Returns what was run, on blank frames, and its seconds, which are few where it
        was compiled before or the compilation cache has it. Raises ValueError for numbers below 1.
        """
        counts = check_sizes("objects", objects)
        prompted = check_sizes("conditioning_frames", conditioning_frames)
        steps = rehearse(
            lambda clip: self.video(clip, **options), self.image_config.image_size, counts, prompted
        )
        return time_each(steps, progress)
