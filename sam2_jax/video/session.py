"""`Sam2VideoInferenceSession`: a clip and the prompts on it, on their way from the processor to the model.

Nothing is tracked here: a `VideoTracker` does that, which the first model that is called begins.
"""

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sam2_jax.checks import check_options, read_array, read_whole, shown
from sam2_jax.video.frames import PreparedFrame, PreparedFrames
from sam2_jax.video.objects import FramePrompts
from sam2_jax.video.options import VideoOptions
from sam2_jax.video.tracker import TrackableModel, VideoTracker


@dataclass
class Waiting:
    """Prompts of an object on a frame whose result nobody has asked for; points refine the mask."""

    mask: np.ndarray | None = None
    prompts: FramePrompts | None = None
    clear_old: bool = True


class Sam2VideoInferenceSession:
    """A clip or a stream of frames with objects on it, made by `Sam2VideoProcessor.init_video_session`.

    transformers' names. Prompts wait here until `Sam2VideoModel` is called with the session; so several on
    one frame are taken together, and an object's first click needs no frame of a stream yet.
    """

    def __init__(
        self,
        video: Any = None,
        video_height: int | None = None,
        video_width: int | None = None,
        inference_device: Any = "cpu",
        inference_state_device: Any = "cpu",
        video_storage_device: Any = "cpu",
        dtype: Any = "float32",
        max_vision_features_cache_size: int = 1,
        **options: Any,
    ) -> None:
        """Begin with frames as the network takes them, float [T, H, W, 3], or None for a stream of them.

        video_height, video_width: of the frames before they were prepared; prompts refer to it. The devices,
        dtype and max_vision_features_cache_size are taken for transformers' sake and change nothing. options:
        those of `VideoOptions` but size, such as keep="all" for a stream whose frames are to be seen again.
        Raises ValueError for what is no such array and for options that cannot be meant.
        """
        known = [field.name for field in fields(VideoOptions) if field.name != "size"]
        check_options(options, known, "a session on a clip")
        VideoOptions(**options).checked()
        self.video_height = video_height
        self.video_width = video_width
        self._video = video if video is None or isinstance(video, PreparedFrames) else _read_frames(video)
        self._count = 0 if self._video is None else len(self._video)
        self._options = options
        self._tracker: VideoTracker | None = None
        # Frames of a stream that came before a model.
        self._arrived: list[PreparedFrame] = []
        self._waiting: dict[tuple[int, Hashable], Waiting] = {}

    def __repr__(self) -> str:
        """How many frames and objects there are."""
        kind = "of a stream" if self._video is None else "of a clip"
        return f"Sam2VideoInferenceSession({self._count} frames {kind}; {len(self.obj_ids)} objects)"

    @property
    def num_frames(self) -> int | None:
        """How many frames have come so far, None before the first."""
        return self._count or None

    @property
    def obj_ids(self) -> list[Hashable]:
        """The objects, in the order in which they were added."""
        known = () if self._tracker is None else self._tracker.object_ids
        return list(dict.fromkeys([*known, *(id_ for _, id_ in self._waiting)]))

    def get_obj_num(self) -> int:
        """How many objects there are."""
        return len(self.obj_ids)

    def obj_id_to_idx(self, obj_id: Hashable) -> int:
        """Where an object stands in what the model returns. Raises ValueError for an unknown one."""
        if obj_id not in self.obj_ids:
            raise ValueError(f"obj_id must be one of {shown(self.obj_ids)}; got {shown(obj_id)}")
        return self.obj_ids.index(obj_id)

    def obj_idx_to_id(self, obj_idx: int) -> Hashable:
        """The object that stands there. Raises ValueError for a place where none does."""
        return self.obj_ids[read_whole("obj_idx", obj_idx, 0, len(self.obj_ids) - 1)]

    def check_frame(self, frame_idx: Any) -> int:
        """The number of a frame of the clip, or of one of a stream, which may be still to come."""
        if self._video is None:
            return read_whole("frame_idx", frame_idx, 0)
        t = read_whole("frame_idx", frame_idx)
        if not 0 <= t < self._count:
            raise ValueError(f"frame_idx must be from 0 to {self._count - 1}, the clip's last; got {t}")
        return t

    def add_prompts(self, frame_idx: int, obj_id: Hashable, prompts: FramePrompts, clear_old: bool) -> None:
        """Points and a box in the network's pixels; without clear_old beside those that still wait."""
        there = self._waiting.get((frame_idx, obj_id))
        if there is None or clear_old:
            self._waiting[frame_idx, obj_id] = Waiting(prompts=prompts, clear_old=clear_old)
        else:
            there.prompts = prompts if there.prompts is None else there.prompts.joined(prompts)

    def add_mask(self, frame_idx: int, obj_id: Hashable, mask: np.ndarray) -> None:
        """A mask [h, w] of booleans, in place of what still waits."""
        self._waiting[frame_idx, obj_id] = Waiting(mask=mask)

    def add_new_frame(self, pixel_values: Any, frame_idx: int | None = None) -> int:
        """Append a frame of a stream, pixels float [H, W, 3] or [1, H, W, 3]; returns its number.

        frame_idx: that number, if it is given. Raises ValueError for another one, and for a clip.
        """
        if self._video is not None:
            raise ValueError(
                f"frames cannot be added to a clip of {self._count}: leave out the video, "
                "processor.init_video_session(), for frames that come one by one"
            )
        if frame_idx is not None and read_whole("frame_idx", frame_idx) != self._count:
            raise ValueError(f"frame_idx of a new frame must be the next, {self._count}; got {frame_idx}")
        expected = "pixels [height, width, 3], a picture's pixel_values[0] of the processor"
        pixels = np.array(read_array("frame", pixel_values, expected, "f"))
        pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
        if pixels.ndim != 3:
            raise ValueError(f"frame must be {expected}; got shape {pixels.shape}")
        frame = PreparedFrame(pixels, (pixels.shape[0], pixels.shape[1]))
        if self._tracker is None:
            self._arrived.append(frame)
        else:
            self._tracker.add_frame(frame)
        self._count += 1
        return self._count - 1

    def tracker(self, model: TrackableModel) -> VideoTracker:
        """The session that tracks, in the network's pixels. Raises ValueError for another model."""
        if self._tracker is None:
            size = model.config.image_config.image_size
            tracker = VideoTracker(model, self._video, size=size, **self._options)
            for frame in self._arrived:
                tracker.add_frame(frame)
            self._tracker, self._arrived = tracker, []
        if self._tracker.model is not model:
            raise ValueError(
                "inference_session must be used with one model, whose memories it holds: begin another with "
                "processor.init_video_session"
            )
        return self._tracker

    def prompted(self, model: TrackableModel) -> VideoTracker:
        """The session that tracks, told of all prompts whose frames have come."""
        tracker = self.tracker(model)
        for frame, id_ in [key for key in self._waiting if key[0] < self._count]:
            waiting = self._waiting[frame, id_]
            clear_old = waiting.clear_old
            if waiting.mask is not None:
                tracker.prompt(frame, id_, mask=waiting.mask)
                clear_old = False
            if waiting.prompts is not None:
                tracker.prompt(frame, id_, waiting.prompts, clear_old=clear_old)
            del self._waiting[frame, id_]
        return tracker

    def reset_tracking_data(self) -> None:
        """Forget all objects; the frames stay."""
        self._waiting.clear()
        if self._tracker is not None:
            self._tracker.reset()

    def reset_inference_session(self) -> None:
        """The same: encoded frames are few here, and stay too."""
        self.reset_tracking_data()


def _read_frames(video: Any) -> list[PreparedFrame]:
    expected = "frames as the network takes them, [frames, height, width, 3] of floating point"
    remedy = ": for pictures, processor.init_video_session(video=...)"
    frames = read_array("video", video, expected + remedy, "f")
    if frames.ndim != 4 or not frames.size:
        raise ValueError(f"video must be {expected}; got shape {frames.shape}{remedy}")
    return [PreparedFrame(frame, (frame.shape[0], frame.shape[1])) for frame in frames]


def read_session(given: Any) -> Sam2VideoInferenceSession:
    """Return a session. Raises ValueError for anything else."""
    if isinstance(given, Sam2VideoInferenceSession):
        return given
    raise ValueError(
        f"inference_session must be a Sam2VideoInferenceSession; got {shown(given)}: "
        "processor.init_video_session makes one"
    )
