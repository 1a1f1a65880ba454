"""`SAM2VideoPredictor`: objects of a clip, prompted and tracked, with Meta's arguments and results."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from sam2_jax.checks import read_array, read_flag, read_numbers, shown
from sam2_jax.clips.reading import open_clip
from sam2_jax.meta.build import load
from sam2_jax.processing.components import read_area
from sam2_jax.processing.inputs import Size
from sam2_jax.processing.photo_prompts import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2_jax.processing.resampling import BICUBIC
from sam2_jax.video.frames import PreparedFrames, read_clips
from sam2_jax.video.model import Sam2VideoModel
from sam2_jax.video.results import FrameMasks
from sam2_jax.video.tracker import VideoTracker

Result = tuple[int, list[Hashable], np.ndarray]
"""A frame's number, the objects, and their mask logits at the video's size, float32 [P, 1, H, W]."""

_OPTIONS = (
    "fill_hole_area",
    "non_overlap_masks",
    "clear_non_cond_mem_around_input",
    "add_all_frames_to_correct_as_cond",
    "binarize_mask_from_pts_for_mem_enc",
)
# In pixels of the network's masks, what Meta's function fills unless it is told not to.
_USUAL_HOLES = 8


class InferenceState(Mapping[str, Any]):
    """A session on a clip, with what people read in Meta's dictionary; `tracker` is the session itself."""

    _values: Mapping[str, Callable[[VideoTracker], Any]] = {
        "num_frames": lambda tracker: tracker.num_frames,
        "video_height": lambda tracker: tracker.size[0],
        "video_width": lambda tracker: tracker.size[1],
        "obj_ids": lambda tracker: list(tracker.object_ids),
        "obj_id_to_idx": lambda tracker: {id_: i for i, id_ in enumerate(tracker.object_ids)},
        "obj_idx_to_id": lambda tracker: dict(enumerate(tracker.object_ids)),
    }

    def __init__(self, tracker: VideoTracker) -> None:
        self.tracker = tracker

    def __getitem__(self, key: str) -> Any:
        """What is known by one of Meta's names. Raises KeyError for others."""
        if key not in self._values:
            raise KeyError(f"{key!r}: there are {', '.join(self._values)}")
        return self._values[key](self.tracker)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._values)

    def __len__(self) -> int:
        """Count them."""
        return len(self._values)


class SAM2VideoPredictor:
    """Tracks objects through clips: Meta's class, by `VideoTracker`, with numpy arrays for its tensors.

    What Meta's code raises of all kinds is a ValueError with a remedy here. A prompted frame is a
    conditioning frame, as the network was trained, so that corrections are not lost at the next propagation
    as in Meta's default; an object without prompts is absent and no error.
    """

    def __init__(
        self,
        model: Sam2VideoModel,
        fill_hole_area: float = 0,
        non_overlap_masks: bool = False,
        clear_non_cond_mem_around_input: bool = False,
        add_all_frames_to_correct_as_cond: bool = True,
        *,
        binarize_mask_from_pts_for_mem_enc: bool = True,
    ) -> None:
        """Nothing is computed yet.

        fill_hole_area: holes of up to so many pixels of the network's masks are filled. non_overlap_masks:
        in results each pixel belongs to the object of the highest logit alone. binarize_...: of prompted
        frames the mask is remembered as yes or no. clear_non_cond_mem_around_input must be False, which is
        all that Meta's code can do, and add_all_frames_to_correct_as_cond True. Raises ValueError for others.
        """
        if not isinstance(model, Sam2VideoModel):
            raise ValueError(
                f"model must be a Sam2VideoModel; got {shown(model)}: SAM2VideoPredictor.from_pretrained "
                "takes a name"
            )
        self.model = model
        _check_options(
            fill_hole_area=fill_hole_area,
            non_overlap_masks=non_overlap_masks,
            clear_non_cond_mem_around_input=clear_non_cond_mem_around_input,
            add_all_frames_to_correct_as_cond=add_all_frames_to_correct_as_cond,
            binarize_mask_from_pts_for_mem_enc=binarize_mask_from_pts_for_mem_enc,
        )
        self.fill_hole_area = read_area("fill_hole_area", fill_hole_area)
        self.non_overlap_masks = bool(non_overlap_masks)
        self.binarize_mask_from_pts_for_mem_enc = bool(binarize_mask_from_pts_for_mem_enc)

    def __repr__(self) -> str:
        return f"SAM2VideoPredictor({self.model!r})"

    @classmethod
    def from_pretrained(cls, model_id: str | Path, **options: Any) -> Self:
        """Load a model by its hub id or from a folder; options as of `build_sam2_video_predictor`."""
        return _build(cls, None, model_id, options)

    @property
    def image_size(self) -> int:
        """Height of the network's input in pixels; Meta's name, which supposes a square."""
        return self.model.config.image_config.image_size[0]

    @property
    def device(self) -> Any:
        """JAX's device that holds the weights."""
        return self.model.device

    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        **options: Any,
    ) -> InferenceState:
        """Begin a session on a clip: a path for `open_clip`, a list of pictures or an array [T, H, W, 3].

        Frames are read when they are needed, resized bicubically as Meta does it, and what is remembered
        lies on the host, so that the other arguments change nothing. options: those of `VideoOptions`. Raises
        ValueError for what is no clip and for options that cannot be meant.
        """
        for name, value in (
            ("offload_video_to_cpu", offload_video_to_cpu),
            ("offload_state_to_cpu", offload_state_to_cpu),
            ("async_loading_frames", async_loading_frames),
        ):
            read_flag(name, value)
        is_path = isinstance(video_path, (str, os.PathLike))
        clips = [open_clip(video_path)] if is_path else read_clips(video_path, "video_path")
        if len(clips) != 1:
            raise ValueError(f"video_path must be one clip; got {len(clips)}: begin a state for each")
        processor = self.model.processor.image_processor.replace(resample=BICUBIC)
        own = {
            "fill_hole_area": self.fill_hole_area,
            "binarize_prompted_masks": self.binarize_mask_from_pts_for_mem_enc,
        }
        tracker = self.model.video(PreparedFrames(clips[0], processor), **own | options)
        _ = tracker.size  # reads the first frame
        return InferenceState(tracker)

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> Result:
        """Say where an object is on a frame; a new id adds an object. Returns all objects' masks there.

        points: [n, 2] as (x, y) in the video's pixels, with labels [n], 1 on the object and 0 off it; box:
        [4] as x0, y0, x1, y1, or as the first two points, labelled 2 and 3. clear_old_points: these prompts
        take the place of the frame's earlier ones, else they are added (a box takes the place of one).
        normalize_coords=False: coordinates are parts of the video's width and height. Raises ValueError for
        prompts that cannot be meant, and then changes nothing.
        """
        tracker = _tracker(inference_state)
        unit = (1, 1) if read_flag("normalize_coords", normalize_coords) else tracker.size
        given = _read_prompts(points, labels, box, unit)
        tracker.prompt(frame_idx, obj_id, *given, clear_old=read_flag("clear_old_points", clear_old_points))
        return self._result(tracker.masks_on(frame_idx))

    def add_new_points(self, *args: Any, **kwargs: Any) -> Result:
        """The name that `add_new_points_or_box` had at first."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> Result:
        """Say what an object is on a frame: mask [h, w] of booleans or 0 and 1, of any size.

        Returns all objects' masks there. Raises ValueError for prompts that cannot be meant.
        """
        tracker = _tracker(inference_state)
        tracker.prompt(frame_idx, obj_id, mask=mask)
        return self._result(tracker.masks_on(frame_idx))

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Result]:
        """Track all objects from frame to frame, yielding each as soon as it is done.

        start_frame_idx: first frame, by default the earliest with prompts. max_frame_num_to_track: go on for
        so many frames after it, by default to the end. reverse: towards the first frame; from frame 0 on
        there is nothing to do. Raises ValueError without any prompts, and if a frame cannot be read.
        """
        frames = _tracker(inference_state).propagate(start_frame_idx, max_frame_num_to_track, reverse)
        return (self._result(found) for found in frames)

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> Result | None:
        """Take all prompts of an object on a frame back; returns all masks there, if they are needed.

        Raises ValueError for an unknown object.
        """
        tracker, need_output = _tracker(inference_state), read_flag("need_output", need_output)
        tracker.clear_prompts(frame_idx, obj_id)
        return self._result(tracker.masks_on(frame_idx)) if need_output else None

    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: Hashable,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[Hashable], list[tuple[int, np.ndarray]]]:
        """Forget an object. Returns the others, and their masks on the frames where it had prompts.

        strict: raise ValueError for an object that there is not, else it is no matter.
        """
        tracker = _tracker(inference_state)
        strict, need_output = read_flag("strict", strict), read_flag("need_output", need_output)
        if obj_id not in tracker.object_ids and not strict:
            return list(tracker.object_ids), []
        frames = tracker.prompted_frames(obj_id)
        tracker.remove_object(obj_id)
        left = list(tracker.object_ids)
        if not left or not need_output:
            return left, []
        return left, [(t, self._result(tracker.masks_on(t))[2]) for t in frames]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects; the frames stay."""
        _tracker(inference_state).reset()

    def _result(self, found: FrameMasks) -> Result:
        masks = found.processor.post_process_masks(
            [found.logits[:, None]],
            [found.size],
            binarize=False,
            apply_non_overlapping_constraints=self.non_overlap_masks,
        )[0]
        return found.frame, list(found.object_ids), masks


Predictor = TypeVar("Predictor", bound=SAM2VideoPredictor)


def build_sam2_video_predictor(
    config_file: str | None = None,
    ckpt_path: str | Path | None = None,
    device: Any = None,
    mode: str | None = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **options: Any,
) -> SAM2VideoPredictor:
    """Load a predictor as Meta's function of this name does.

    Arguments as of `build_sam2`. apply_postprocessing: holes of up to 8 pixels of the network's masks are
    filled, masks of prompted frames remembered as yes or no, and a single mask that is not stable gives way
    to the best of three. vos_optimized changes nothing: all is compiled in any case. options: those of
    `Sam2VideoModel.from_pretrained` and of `SAM2VideoPredictor`. Raises ValueError for what cannot be loaded
    or meant.
    """
    building = {
        "device": device,
        "mode": mode,
        "hydra_overrides_extra": hydra_overrides_extra,
        "apply_postprocessing": apply_postprocessing,
        "vos_optimized": vos_optimized,
    }
    return _build(SAM2VideoPredictor, config_file, ckpt_path, building | options)


def build_sam2_video_predictor_hf(model_id: str | Path, **options: Any) -> SAM2VideoPredictor:
    """Load a predictor by its hub id or from a folder; options as of `build_sam2_video_predictor`."""
    return _build(SAM2VideoPredictor, None, model_id, options)


def _build(kind: type[Predictor], config_file: Any, ckpt_path: Any, options: dict[str, Any]) -> Predictor:
    own = {name: options.pop(name) for name in _OPTIONS if name in options}
    _check_options(**own)  # before anything is loaded
    read_flag("vos_optimized", options.pop("vos_optimized", False))
    if read_flag("apply_postprocessing", options.get("apply_postprocessing", True)):
        usual: dict[str, Any] = {"fill_hole_area": _USUAL_HOLES}
    else:
        usual = {"binarize_mask_from_pts_for_mem_enc": False}
    return kind(load(Sam2VideoModel, config_file, ckpt_path, **options), **usual | own)


def _check_options(**given: Any) -> None:
    """Raise ValueError for options of the predictor that cannot be meant."""
    for name, value in given.items():
        check = read_area if name == "fill_hole_area" else read_flag
        check(name, value)
    if given.get("clear_non_cond_mem_around_input", False):
        raise ValueError("clear_non_cond_mem_around_input must be False: memories are kept")
    if not given.get("add_all_frames_to_correct_as_cond", True):
        raise ValueError(
            "add_all_frames_to_correct_as_cond must be True, as the network was trained: without it the next "
            "propagation forgets corrections"
        )


def _tracker(state: Any) -> VideoTracker:
    if isinstance(state, InferenceState):
        return state.tracker
    raise ValueError(f"inference_state must be what init_state returns; got {shown(state)}")


def _read_prompts(points: Any, labels: Any, box: Any, unit: Size) -> tuple[Any, Any, Any]:
    """Points, labels and a box in the video's pixels; unit: height and width of a coordinate's 1."""
    if (points is None) != (labels is None):
        raise ValueError("points and labels must be given together: labels are 1 on the object, 0 off it")
    scale = np.array(unit[::-1], np.float64)
    corners = None if box is None else read_numbers("box", box, "[4], as (x0, y0, x1, y1)").reshape(-1)
    if points is not None:
        points = read_numbers("points", points, "[n, 2], as (x, y)")
        points = points[0] if points.ndim == 3 and len(points) == 1 else points
        labels = read_array("labels", labels, "[n]").reshape(-1)
        is_box = labels[:2].tolist() == [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
        if is_box and corners is None and points.ndim == 2 and len(points) >= 2:
            corners, points, labels = points[:2].reshape(-1), points[2:], labels[2:]
        points = points * scale if points.shape[-1:] == (2,) else points
    if corners is not None and len(corners) == 4:
        corners = corners * np.tile(scale, 2)
    return points, labels, corners
