"""`Sam2VideoProcessor`: begins sessions on clips, brings them prompts, makes masks of the clips' size."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.hub import HUB_OPTIONS
from sam2_jax.checks import read_flag, read_whole, shown
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.inputs import Size, read_sizes
from sam2_jax.processing.options import OPTIONS
from sam2_jax.processing.photo_prompts import Box, read_box, read_labels, read_points
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.prompts import PADDING, read_prompts
from sam2_jax.video.frames import PreparedFrames, check_uncut, read_clips
from sam2_jax.video.objects import FramePrompts
from sam2_jax.video.prompts import read_id, read_mask
from sam2_jax.video.session import Sam2VideoInferenceSession, read_session
from sam2_jax.video.video_processor import Sam2VideoVideoProcessor


class Sam2VideoProcessor(Sam2Processor):
    """`Sam2Processor` for clips: transformers' names, and numpy arrays where it has torch's tensors.

    video_processor: how the frames of a clip are prepared, by default as image_processor prepares pictures,
    frames of a stream among them. All else as of `Sam2Processor`.
    """

    def __init__(
        self,
        image_processor: Sam2ImageProcessor | None = None,
        video_processor: Sam2VideoVideoProcessor | None = None,
        target_size: int | None = None,
        point_pad_value: float | None = None,
    ) -> None:
        """None is as if it were not given. Raises ValueError for what cannot be meant."""
        super().__init__(image_processor, target_size, point_pad_value)
        if video_processor is None:
            self.video_processor = Sam2VideoVideoProcessor.of(self.image_processor)
        else:
            self.video_processor = _read_video_processor(video_processor).replace(size=target_size)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        video_processor: Sam2VideoVideoProcessor | None = None,
        **options: Any,
    ) -> Self:
        """Read the processor of the same hub id or local folder as the model's.

        Arguments and errors as of `Sam2Processor.from_pretrained`; options of the image processor are the
        video processor's too.
        """
        if video_processor is not None:
            _read_video_processor(video_processor)
        found = super().from_pretrained(model, **options)
        if video_processor is None:
            other_name = options.get("pretrained_model_name_or_path")
            own = {k: v for k, v in options.items() if k in (*OPTIONS, *HUB_OPTIONS)}
            video_processor = Sam2VideoVideoProcessor.from_pretrained(model or other_name, **own)
            video_processor = video_processor.replace(size=options.get("target_size"))
        found.video_processor = video_processor
        return found

    @classmethod
    def loading_options(cls) -> list[str]:
        """Names of the arguments of `from_pretrained`, but for the model."""
        return [*super().loading_options(), "video_processor"]

    def __repr__(self) -> str:
        return (
            f"Sam2VideoProcessor({self.image_processor!r}, {self.video_processor!r}, "
            f"point_pad_value={self.point_pad_value})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the options as transformers' JSON has them, those of both processors among them."""
        own = {"processor_class": "Sam2VideoProcessor", "video_processor": self.video_processor.to_dict()}
        return super().to_dict() | own

    def init_video_session(
        self,
        video: Any = None,
        inference_device: Any = "cpu",
        inference_state_device: Any = None,
        processing_device: Any = None,
        video_storage_device: Any = None,
        max_vision_features_cache_size: int = 1,
        dtype: Any = "float32",
        **options: Any,
    ) -> Sam2VideoInferenceSession:
        """Begin a session on a clip, or on a stream if video is None.

        video: a list of pictures (paths, PIL images, arrays), an array [T, H, W, 3], or what `open_clip` has
        of a file or folder. Its frames are prepared one by one when they are needed; the first is read now.
        options: those of `VideoOptions` but size, such as keep and memory. All else is taken for
        transformers' sake and changes nothing. Raises ValueError for what is no clip and for options that
        cannot be meant.
        """
        if video is None:
            return Sam2VideoInferenceSession(**options)
        clips = read_clips(video, "video")
        if len(clips) != 1:
            raise ValueError(f"video must be one clip; got {len(clips)}: begin a session for each")
        frames = PreparedFrames(clips[0], self.video_processor.image_processor)
        height, width = frames[0].size
        return Sam2VideoInferenceSession(frames, height, width, **options)

    def add_inputs_to_inference_session(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int,
        obj_ids: Any,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        original_size: Any = None,
        clear_old_inputs: bool = True,
    ) -> Sam2VideoInferenceSession:
        """Say where objects are on a frame; they are segmented when the model is called. Returns the session.

        obj_ids: one id or a list of them, each an int or text; a new one adds an object. For these objects,
        in the clip's pixels: input_points: 1 > object > point > (x, y); input_labels: 1 > object > point, 1
        on the object and 0 off it, all 1 if None; input_boxes: 1 > object > (x0, y0, x1, y1). An object may
        have points ([] if not), a box (None if not) or both. Or else input_masks: a list of a mask for each
        object, or the mask of one: [h, w], with leading dimensions of 1 if need be, of booleans or 0 and 1,
        of any size. original_size: (height, width) of a stream's frames, to which prompts refer.
        clear_old_inputs: these prompts take the place of the frame's earlier ones, else they are added.
        Raises ValueError for prompts that cannot be meant, and then changes nothing.
        """
        check_uncut(self.image_processor, self.video_processor.image_processor)
        session = read_session(inference_session)
        t = session.check_frame(frame_idx)
        ids = _read_ids(obj_ids)
        clear_old = read_flag("clear_old_inputs", clear_old_inputs)
        size = None if original_size is None else read_sizes([original_size], "original_size")[0]
        prompts = {"input_points": input_points, "input_labels": input_labels, "input_boxes": input_boxes}
        given = {name: value for name, value in prompts.items() if value is not None}
        if input_masks is not None and given:
            raise ValueError("input_masks must be given alone; points and boxes may refine them afterwards")
        if input_masks is not None:
            for id_, mask in zip(ids, _read_masks(input_masks, len(ids)), strict=True):
                session.add_mask(t, id_, mask)
        else:
            read = self._read_objects(given, len(ids), size or _size_of(session))
            for id_, one in zip(ids, read, strict=True):
                session.add_prompts(t, id_, one, clear_old)
        if size is not None:
            session.video_height, session.video_width = size
        return session

    def process_new_points_or_boxes_for_video_frame(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int,
        obj_ids: Any,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        original_size: Any = None,
        clear_old_inputs: bool = True,
    ) -> Sam2VideoInferenceSession:
        """`add_inputs_to_inference_session` without masks."""
        return self.add_inputs_to_inference_session(
            inference_session,
            frame_idx,
            obj_ids,
            input_points,
            input_labels,
            input_boxes,
            None,
            original_size,
            clear_old_inputs,
        )

    def process_new_mask_for_video_frame(
        self, inference_session: Sam2VideoInferenceSession, frame_idx: int, obj_ids: Any, input_masks: Any
    ) -> Sam2VideoInferenceSession:
        """`add_inputs_to_inference_session` with masks alone."""
        return self.add_inputs_to_inference_session(
            inference_session, frame_idx, obj_ids, input_masks=input_masks
        )

    def _read_objects(self, given: Mapping[str, Any], count: int, size: Size) -> list[FramePrompts]:
        """The prompts of so many objects on a frame of a size, in the network's pixels."""
        if not {"input_points", "input_boxes"} & given.keys():
            raise ValueError("there is nothing to segment: give points, boxes or masks")
        target = self.image_processor.network_size(size)
        scale = target[1] / size[1], target[0] / size[0]
        arrays = read_prompts(given, [size], [size], target)  # not scaled: messages are in the clip's pixels
        objects = next(iter(arrays.values())).shape[1]
        if objects != count:
            raise ValueError(
                f"prompts must be for as many objects as obj_ids, {count}; got {objects}: they are nested "
                "1 > object > ..."
            )
        read = []
        for i in range(count):
            points, labels = _points_of(arrays, i)
            box = arrays["input_boxes"][0, i] if "input_boxes" in arrays else None
            try:
                one = FramePrompts(
                    read_points(points, size),
                    read_labels(labels, len(points)),
                    None if box is None or np.isnan(box).any() else read_box(box, size),
                )
                if not one.points and one.box is None:
                    raise ValueError("there is nothing to segment: give points, a box or both")
            except ValueError as error:
                raise ValueError(f"object {i}: {error}") from error
            read.append(_scaled(one, *scale))
        return read


def _points_of(arrays: Mapping[str, np.ndarray], i: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of an object without its padding."""
    if "input_points" not in arrays:
        return np.zeros((0, 2)), np.zeros(0)
    labels = arrays["input_labels"][0, i]
    is_point = labels != PADDING
    return arrays["input_points"][0, i][is_point], labels[is_point]


def _scaled(prompts: FramePrompts, x_scale: float, y_scale: float) -> FramePrompts:
    points = tuple((x * x_scale, y * y_scale) for x, y in prompts.points)
    box: Box | None = None
    if prompts.box is not None:
        x0, y0, x1, y1 = prompts.box
        box = x0 * x_scale, y0 * y_scale, x1 * x_scale, y1 * y_scale
    return FramePrompts(points, prompts.labels, box)


def _read_ids(obj_ids: Any) -> list[Hashable]:
    """One id or several as a list of one's own."""
    is_many = isinstance(obj_ids, (list, tuple)) or getattr(obj_ids, "ndim", 0) == 1
    ids = [read_id(each, "obj_ids") for each in (obj_ids if is_many else [obj_ids])]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"obj_ids must be an id for each object, no two alike; got {shown(obj_ids)}")
    return ids


def _read_masks(masks: Any, count: int) -> list[np.ndarray]:
    """Masks [h, w] of so many objects."""
    each = list(masks) if isinstance(masks, (list, tuple)) else [masks]
    if len(each) != count:
        raise ValueError(
            f"input_masks must be a list of {count} masks, one for each of obj_ids; got {len(each)}"
        )
    return [read_mask(_without_ones(mask)) for mask in each]


def _without_ones(mask: Any) -> Any:
    """A mask without leading dimensions of 1, such as those of batch and channel."""
    while getattr(mask, "ndim", 0) > 2 and len(mask) == 1:
        mask = mask[0]
    return mask


def _size_of(session: Sam2VideoInferenceSession) -> Size:
    if session.video_height is None or session.video_width is None:
        raise ValueError(
            "original_size must be given, (height, width), for the first points or boxes on a stream: "
            "inputs.original_sizes[0] of the processor"
        )
    return read_whole("video_height", session.video_height, 1), read_whole(
        "video_width", session.video_width, 1
    )


def _read_video_processor(given: Any) -> Sam2VideoVideoProcessor:
    if isinstance(given, Sam2VideoVideoProcessor):
        return given
    raise ValueError(
        f"video_processor must be a Sam2VideoVideoProcessor or None; got {shown(given)}: "
        "Sam2VideoProcessor.from_pretrained reads one"
    )
