"""`Sam2VideoModel`: objects of a clip, prompted on some frames, tracked through all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sam2_jax.checks import read_flag
from sam2_jax.config import Sam2VideoConfig
from sam2_jax.image.encoding import EncodingModel
from sam2_jax.image.rehearsal import check_sizes, time_each
from sam2_jax.progress import progress_bar
from sam2_jax.video.outputs import Sam2VideoSegmentationOutput
from sam2_jax.video.processor import Sam2VideoProcessor
from sam2_jax.video.rehearsal import rehearse
from sam2_jax.video.results import FrameMasks
from sam2_jax.video.session import Sam2VideoInferenceSession, read_session
from sam2_jax.video.tracker import VideoTracker


class Sam2VideoModel(EncodingModel[Sam2VideoConfig]):
    """SAM 2 for clips. `config`, `params` and `module` (a pure Flax module) are there for direct use.

    `video` begins a session of this package's own. A call and `propagate_in_video_iterator`, transformers'
    names, are for sessions that `Sam2VideoProcessor` begins.
    """

    config_class = Sam2VideoConfig
    processor_class = Sam2VideoProcessor

    def with_image_size(self, image_size: int | Sequence[int]) -> "Sam2VideoModel":
        """The same weights for inputs of another size: a side, or (height, width), multiples of 32.

        The processor does the same to a picture's values, for that size.
        """
        config = self.config.with_image_size(image_size)
        resized = Sam2VideoModel(config, self.params, dtype=self.module.dtype)
        self._bring_along(resized)
        resized._resize_processor()
        return resized

    def with_params(self, params: Mapping[str, Any]) -> "Sam2VideoModel":
        """The same model with other weights, trained ones say: its processor stays."""
        other = Sam2VideoModel(self.config, params, dtype=self.module.dtype)
        self._bring_along(other)
        return other

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

    def __call__(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int | None = None,
        frame: Any = None,
        reverse: bool = False,
        run_mem_encoder: bool = True,
    ) -> Sam2VideoSegmentationOutput:
        """Segment all objects of a session on one frame, and remember it.

        frame_idx: its number; or else frame: the next one of a stream, the processor's pixel_values[0]. On a
        frame with prompts for an object these say what is there, and it is not tracked. reverse: others are
        tracked backward in time. run_mem_encoder is taken for transformers' sake: a frame is remembered in
        any case, or the next ones could not be tracked. Raises ValueError for a frame that is not known.
        """
        reverse, _ = read_flag("reverse", reverse), read_flag("run_mem_encoder", run_mem_encoder)
        session = read_session(inference_session)
        session.tracker(self)  # which checks new frames
        t = session.add_new_frame(frame, frame_idx) if frame is not None else frame_idx
        if t is None:
            raise ValueError("frame_idx must be given, or frame, a new one of a stream")
        tracker = session.prompted(self)
        found = tracker.masks_on(t)
        if not all(found.is_conditioning):
            found = tracker.step(frame=t, reverse=reverse, passes=False)
        return Sam2VideoSegmentationOutput.of(found)

    forward = __call__

    def propagate_in_video_iterator(
        self,
        inference_session: Sam2VideoInferenceSession,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        show_progress_bar: bool = False,
    ) -> Iterator[Sam2VideoSegmentationOutput]:
        """Track all objects of a session from frame to frame, yielding each as soon as it is done.

        start_frame_idx: first frame, by default the earliest with prompts. max_frame_num_to_track: go on for
        so many frames after it, by default to the end. reverse: towards the first frame; from frame 0 on
        there is nothing to do. Prompts that are added meanwhile are seen from the next frame on. Raises
        ValueError without any prompts, and if a frame cannot be read.
        """
        show = read_flag("show_progress_bar", show_progress_bar)
        session = read_session(inference_session)
        frames = session.prompted(self).propagate(start_frame_idx, max_frame_num_to_track, reverse)
        return self._outputs(session, progress_bar(frames, show=show, desc="propagate in video"))

    def _outputs(
        self, session: Sam2VideoInferenceSession, frames: Iterable[FrameMasks]
    ) -> Iterator[Sam2VideoSegmentationOutput]:
        for found in frames:
            yield Sam2VideoSegmentationOutput.of(found)
            session.prompted(self)
