"""`VideoTracker`: a session on a clip, with prompts for objects on any frame, tracked forward and backward.

Source: Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos (arXiv:2408.00714). Where its two
implementations differ this does what the network was trained for: a prompted frame becomes a conditioning
frame of its object, also one that was tracked before, and prompts refine the mask that the frame has.
"""

import os
import warnings
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.checks import check_options, read_flag, read_whole, shown
from sam2_jax.config import Sam2VideoConfig
from sam2_jax.image.arguments import bucket, pad_prompts
from sam2_jax.image.prompt_masks import clamp
from sam2_jax.model.memory_bank import FrameOutput
from sam2_jax.model.sam2_video import FrameFeatures
from sam2_jax.processing.components import small_components
from sam2_jax.processing.inputs import Size
from sam2_jax.processing.photo_prompts import join, read_box, read_labels, read_points
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.video.ahead import TrackedAhead
from sam2_jax.video.encoded import EncodedFrames
from sam2_jax.video.frames import Frames, check_uncut
from sam2_jax.video.objects import FramePrompts, Output, VideoObject, outputs_of
from sam2_jax.video.options import VideoOptions
from sam2_jax.video.policies import POLICIES
from sam2_jax.video.prompts import read_id, read_mask
from sam2_jax.video.results import ABSENT_LOGIT, ABSENT_SCORE, FILLED_LOGIT, FrameMasks
from sam2_jax.video.saved import load_objects, save_objects
from sam2_jax.video.state import Memories
from sam2_jax.video.steps import Steps

# Every prompt is padded to so many points, so that clicks do not compile the decoder again and again.
_POINTS = 16
_POST_PROCESSING = (
    "mask_threshold",
    "max_hole_area",
    "max_sprinkle_area",
    "apply_non_overlapping_constraints",
)


class TrackableModel(Protocol):
    """What a session needs of a model; `Sam2VideoModel` is one."""

    config: Sam2VideoConfig
    module: Any

    @property
    def params(self) -> Any:
        """The network's parameters."""

    @property
    def device(self) -> Any:
        """JAX's device that holds the parameters."""

    @property
    def mesh(self) -> Mesh | None:
        """The devices that share the work, if there are several."""

    @property
    def processor(self) -> Sam2Processor:
        """What prepares frames and makes masks of the video's size."""


class VideoTracker:
    """Objects on a clip, each prompted on some frames and tracked through the others.

    Objects do not influence each other: each has the masks that it would have alone. chunk: so many frames of
    a run are tracked at once, see `VideoOptions`. Not to be shared between threads.
    """

    def __init__(self, model: TrackableModel, source: Any = None, **options: Any) -> None:
        """Begin a session on a source of frames, see `Frames`; None for frames that come by `step`.

        options: those of `VideoOptions`, and for all masks those of `Sam2Processor.post_process_masks`
        mask_threshold, max_hole_area, max_sprinkle_area and apply_non_overlapping_constraints. Raises
        ValueError for what is no source and for options that cannot be meant.
        """
        own = [field.name for field in fields(VideoOptions)]
        check_options(options, [*own, *_POST_PROCESSING], "a session on a clip")
        self.model = model
        self.processor = model.processor
        check_uncut(self.processor.image_processor)
        self.options = VideoOptions(**{k: v for k, v in options.items() if k in own}).checked()
        self._post_processing = {k: v for k, v in options.items() if k not in own}
        nothing = np.zeros((1, 1, 1, 1, 1), np.float32)
        self.processor.post_process_masks(nothing, [(1, 1)], **self._post_processing)
        self._frames = Frames(source, self.processor.image_processor, model.config.image_config)
        self._window = self._frames.keep = self.options.window(is_stream=self._frames.length is None)
        self._rules = self.options.rules(model.config, self._frames.length)
        self._steps = Steps(model.module, model.params, model.mesh)
        self._encoded = EncodedFrames(self._frames, self._steps)
        is_stream, is_cpu = self.num_frames is None, model.device.platform == "cpu"
        self.chunk = self.options.frames_at_once(is_stream=is_stream, is_cpu=is_cpu)
        # A CPU has nothing to do it with, and a live stream is not to be waited for.
        self._encodes_ahead = not is_cpu and (self.chunk > 1 or not is_stream)
        self.reset()

    def __repr__(self) -> str:
        """How many frames and objects there are."""
        frames = "more to come" if self.num_frames is None else "all"
        return f"VideoTracker({self._frames.count} frames, {frames}; {len(self._objects)} objects)"

    # What there is ------------------------------------------------------------------------------------------

    @property
    def num_frames(self) -> int | None:
        """How many frames the clip has; None for a stream."""
        return self._frames.length

    @property
    def size(self) -> Size:
        """(height, width) of the video: of prompts and masks."""
        return self.options.size or self._frames.size

    @property
    def object_ids(self) -> tuple[Hashable, ...]:
        """The objects, in the order in which they were added."""
        return tuple(self._objects)

    def prompted_frames(self, object_id: Hashable) -> tuple[int, ...]:
        """The frames with prompts for an object, in ascending order."""
        return tuple(sorted(self._known(object_id).prompts))

    def output(self, object_id: Hashable, frame: int) -> Output | None:
        """What the network gave for an object on a frame, as far as it is kept: see `Output`."""
        return self._known(object_id).output(read_whole("frame", frame))

    # Prompts ------------------------------------------------------------------------------------------------

    def prompt(
        self,
        frame: int,
        object_id: Hashable,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        *,
        clear_old: bool = True,
    ) -> FrameMasks:
        """Say where an object is on a frame; a new id adds an object. Returns its mask there.

        points: [N, 2], (x, y) in the video's pixels; labels: [N], 1 on the object and 0 off it, all 1 if
        None; box: (x0, y0, x1, y1). Or else mask: [h, w] of booleans, or 0 and 1, of any size: the object
        itself; without any pixel it says that it is absent. clear_old: these prompts take the place of the
        frame's earlier ones, else they are added to them (a box takes the place of one). Either way they
        refine the mask that the frame has, of earlier prompts or of tracking.
        Other frames see it from the next frame tracked on; masks yielded before stay as they are.
        Raises ValueError for unknown frames and for prompts that cannot be meant, and then changes nothing.
        """
        self._ahead.drop()
        t = self._reach("frame", frame)
        known = self._objects.get(read_id(object_id))
        clear_old = read_flag("clear_old", clear_old)
        if mask is not None:
            if points is not None or labels is not None or box is not None:
                raise ValueError("mask must be given alone; points and boxes may refine it afterwards")
            given = read_mask(mask)
            prompts = FramePrompts()
            found = self._steps.prompt_mask(self._encoded.frame(t), given[None])
        else:
            prompts = self._read_prompts(points, labels, box)
            if known is not None and not clear_old and t in known.prompts:
                prompts = known.prompts[t].joined(prompts)
            found = self._segment(t, prompts, known)
        output = self._filled(outputs_of(found)[0])
        if mask is not None and output.score <= 0 and np.any(mask):
            warnings.warn(
                f"of the mask of object {shown(object_id)} on frame {t} nothing is left at the network's "
                "size, so that it says that the object is absent: it is too thin",
                stacklevel=2,
            )
        object_ = known or self._add(object_id)
        before = object_.output(t)
        object_.pending.pop(t, None)
        object_.pending[t] = output._replace(direction=before and before.direction)
        object_.prompts[t] = prompts
        is_conditioning = self._conditions(object_, t, object_.pending[t])
        return self._result(t, {object_id: object_.pending[t]}, [is_conditioning])

    def clear_prompts(self, frame: int, object_id: Hashable) -> None:
        """Take all prompts of an object on a frame back; the frame may be tracked again, or prompted anew.

        Without prompts nothing changes. Raises ValueError for an unknown object.
        """
        self._ahead.drop()
        self._known(object_id).clear(read_whole("frame", frame))

    def remove_object(self, object_id: Hashable) -> None:
        """Forget an object. Raises ValueError for an unknown one."""
        self._ahead.drop()
        self._memories.remove(self._known(object_id))
        del self._objects[object_id]

    def reset(self) -> None:
        """Forget all objects; the frames stay."""
        self._go_on_with({}, self._no_memories())

    @property
    def waiting(self) -> int:
        """How many frames are tracked ahead of those that were yielded; `save` takes them back."""
        return len(self._ahead)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that tracking on depends on to a file, but for the frames: see `load`.

        Raises ValueError if that cannot be done, and for policies of memory other than "released".
        """
        self._ahead.drop()
        save_objects(Path(path), self._objects, self._memories, self._made_of, self._frames.count)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on, to the bit, where a session on the same clip with the same options was when it was saved.

        Of a stream as many frames as there were then must have come, by `add_frame`, for frames are numbered.
        Raises ValueError for other files and other models' and clips', and then changes nothing.
        """
        memories = self._no_memories()
        loaded = load_objects(Path(path), memories, self._made_of, self._frames, self._rules, self._kept)
        self._go_on_with(loaded, memories)

    def masks_on(self, frame: int) -> FrameMasks:
        """The masks that objects have on a frame so far, of prompts or of tracking; computes none.

        An object without one is absent. Raises ValueError for a frame that is not known.
        """
        t = self._reach("frame", frame)
        objects = self._objects.values()
        is_conditioning = [
            t in each.conditioning or (t in each.pending and self._conditions(each, t, each.pending[t]))
            for each in objects
        ]
        return self._result(t, {each.id: each.output(t) for each in objects}, is_conditioning)

    # Tracking -----------------------------------------------------------------------------------------------

    def propagate(
        self, start: int | None = None, count: int | None = None, reverse: bool = False
    ) -> Iterator[FrameMasks]:
        """Track all objects from frame to frame, yielding each as soon as it is done.

        start: first frame, by default the earliest with prompts. count: go on for so many frames after it,
        by default to the end. reverse: towards the first frame; from frame 0 on there is nothing to do.
        Frames with prompts yield these prompts' masks. One may stop at any frame, prompt, and go on; what is
        done is kept. Raises ValueError without any prompts, and if a frame cannot be read.
        """
        reverse = read_flag("reverse", reverse)
        prompted = [t for each in self._objects.values() for t in (*each.conditioning, *each.pending)]
        if not prompted:
            raise ValueError("there is nothing to track: prompt an object on a frame first")
        first = self._reach("start", min(prompted) if start is None else start)
        count = read_whole("count", 2**52 if count is None else count, 0)
        if reverse:
            last = max(first - count, 0) if first > 0 else 1
            return self._track_frames(range(first, last - 1, -1), -1)
        return self._track_frames(range(first, first + count + 1), 1)

    def _track_frames(self, frames: range, direction: int) -> Iterator[FrameMasks]:
        for i, t in enumerate(frames):
            if not self._has(t):
                return
            yield self._track(frames[i:], direction)

    def step(
        self, picture: Any = None, frame: int | None = None, reverse: bool = False, *, passes: bool = True
    ) -> FrameMasks:
        """Track all objects on one frame.

        picture: the next frame of a stream, which is added. Without it, frame: the number of one that is
        known, by default the newest. passes: objects with prompts on the frame count as tracked there, so
        that what is said of them there later sees their memories; False if it is only looked at. Raises
        ValueError for both picture and frame, and for a frame that is not known.
        """
        direction = -1 if read_flag("reverse", reverse) else 1
        if picture is not None:
            if frame is not None:
                raise ValueError("picture and frame must not both be given: a new picture is the next frame")
            t = self.add_frame(picture)
        else:
            newest = max(self._frames.count - 1, 0)
            t = self._reach("frame", newest if frame is None else frame)
        return self._track(range(t, t + 1), direction, passes=read_flag("passes", passes))

    def add_frame(self, picture: Any) -> int:
        """Append a frame to a stream, to be prompted or tracked; returns its number."""
        self._settle()
        return self._frames.add(picture)

    # How ----------------------------------------------------------------------------------------------------

    def _known(self, object_id: Any) -> VideoObject:
        found = self._objects.get(read_id(object_id))
        if found is None:
            raise ValueError(f"object_id must be one of {shown(list(self._objects))}; got {shown(object_id)}")
        return found

    @cached_property
    def _made_of(self) -> dict[str, Any]:
        """On what results depend beside frames and prompts, as JSON has it, by what messages call it."""
        config, options = self.model.config, self.options
        own = ("memory", "fill_hole_area", "binarize_prompted_masks", "compat")
        return {
            "weights": fingerprint(self._steps.params),
            "number types": [str(np.dtype(self.model.module.dtype)), str(options.memory_dtype)],
            "image size": list(config.image_config.image_size),
            "video size": options.size and list(options.size),
            "clip length": self.num_frames,
            "options": [asdict(self._rules), *(getattr(options, name) for name in own)],
        }

    def _no_memories(self) -> Memories:
        return Memories(self.model.config, self._rules, self.options.memory_dtype)

    def _go_on_with(self, objects: dict[Hashable, VideoObject], memories: Memories) -> None:
        self._objects, self._memories = objects, memories
        wants = POLICIES[self.options.memory].wants_candidates
        self._ahead = TrackedAhead(self._steps, self._encoded, memories, with_candidates=wants)

    def _add(self, object_id: Hashable) -> VideoObject:
        policy = POLICIES[self.options.memory](self._rules)
        found = self._memories.add(object_id, policy, self._kept)
        self._objects[object_id] = found
        return found

    @property
    def _kept(self) -> int | None:
        """So many ordinary results of an object are kept, None for all."""
        # So far back reach the memories of the frame that was tracked last.
        reach = max(self._rules.num_maskmem - 1, self._rules.max_pointers - 1) + 1
        return self._window and max(self._window, reach)

    def _reach(self, name: str, t: Any) -> int:
        """The number of a frame that is known, or that an iterator is read on to."""
        self._has(read_whole(name, t))
        return self._frames.check(name, t)

    def _has(self, t: int) -> bool:
        if t >= self._frames.count:
            self._settle()  # a stream may drop the frames that prompts are for
        return self._frames.has(t)

    def _read_prompts(self, points: Any, labels: Any, box: Any) -> FramePrompts:
        if isinstance(points, FramePrompts):  # of a session that has read them, in the clip's own pixels
            return points
        read = read_points(points, self.size)
        found = FramePrompts(read, read_labels(labels, len(read)), read_box(box, self.size))
        if not found.points and found.box is None:
            raise ValueError("there is nothing to segment: give points, a box or a mask")
        return found

    def _segment(self, t: int, prompts: FramePrompts, object_: VideoObject | None) -> FrameOutput:
        """Segment an object by all prompts of a frame, what it looked like elsewhere, and its mask so far."""
        features = self._encoded.frame(t)
        points, labels = join(prompts.points, prompts.labels, prompts.box)
        height, width = self.size
        target = np.array(self.model.config.image_config.image_size[::-1], np.float32)
        scaled = np.array(points, np.float32) / np.array([width, height], np.float32) * target
        kinds = np.array(labels, np.int32)
        count = bucket(max(len(labels), _POINTS), 4)
        padded_points, padded_labels = pad_prompts(scaled[None, None], kinds[None, None], 1, count)
        before = None if object_ is None else object_.output(t)
        conditioned = mask = None
        if object_ is not None and before is not None:
            is_prompt = t in object_.pending or object_.is_given(t)
            if is_prompt or before.direction is not None:
                mask = clamp(before.low)[None]
            if before.direction is not None:
                conditioned = self._condition(object_, t, before.direction, features)
        return self._steps.prompt(
            features,
            padded_points[0],
            padded_labels[0],
            mask,
            conditioned,
            multimask=self.model.config.uses_multimask(len(labels)),
        )

    def _condition(self, object_: VideoObject, t: int, direction: int, features: FrameFeatures) -> Any:
        """Features of a frame conditioned on the memories of an object, None if there are none."""
        roles = object_.roles(t, direction, is_own_seen=self.options.compat is not None)
        if not roles.spatial:
            return None
        self._memories.load(object_, roles)
        plan = self._memories.plan([(object_, roles)], alone=True)
        return self._steps.condition(features, self._memories.state, object_.index, plan)

    def _conditions(self, object_: VideoObject, t: int, output: Output) -> bool:
        """Whether prompts on frame t make it a conditioning frame of an object."""
        is_first = output.direction is None or t in object_.conditioning
        return is_first or self.options.compat != "meta_legacy"

    def _settle(self) -> None:
        """Turn the results of prompts into memories: of the last prompts of each frame only."""
        for each in self._objects.values():
            for t, output in list(each.pending.items()):
                score = np.array([output.score], np.float32)
                binary = np.full(1, self.options.binarize_prompted_masks)
                memory = self._steps.remember(self._encoded.frame(t), output.low[None], score, binary)
                remembered = output._replace(memory=memory[0].astype(self.options.memory_dtype))
                each.settle(t, remembered, is_conditioning=self._conditions(each, t, output))
                del each.pending[t]

    def _moving(self, t: int) -> list[VideoObject]:
        """The objects to be tracked on frame t."""
        return [each for each in self._objects.values() if not each.is_given(t) and not each.is_dormant]

    def _chunk_of(self, run: range) -> range:
        """The frames of a run that go together: a chunk, if the same objects move on all of them, or one."""
        frames = run[: self.chunk]
        first, *others = ([each.index for each in self._moving(t)] for t in frames)
        is_whole = len(frames) == self.chunk and all(each == first for each in others)
        return frames if is_whole and self._frames.can_have(frames[-1]) else run[:1]

    def _encode_ahead(self, run: range) -> None:
        """Have the next frames of a run encoded while the host is busy with those before."""
        if run and self._moving(run[0]) and self._frames.can_have(run[0]):
            with suppress(ValueError):  # of a broken frame, which is told when its turn comes
                self._encoded.run(self._chunk_of(run))

    def _track(self, run: range, direction: int, *, passes: bool = True) -> FrameMasks:
        """Track the objects that have no prompts on the first frame of a run, and remember it."""
        t = run[0]
        self._settle()
        if moving := self._moving(t):
            if not self._ahead.is_next(t, direction):
                count = self._ahead.track(self._chunk_of(run), direction, moving)
                if self._encodes_ahead:
                    self._encode_ahead(run[count:])
            outputs, candidates = self._ahead.take()
            for each in moving:
                output = self._filled(outputs[each.index])._replace(direction=direction)
                each.policy.saw(t, output.low, output.score, output.iou)
                each.add_ordinary(t, output)
                if candidates is not None and each.policy.is_kept(
                    t, output.low, output.iou, candidates[each.index]
                ):
                    each.keep_as_conditioning(t, output)
        objects = self._objects.values()
        for each in objects if passes else ():
            each.passed(t, direction)
        yielded = {each.id: None if each.is_dormant else each.output(t) for each in objects}
        return self._result(t, yielded, [t in each.conditioning for each in objects])

    def _filled(self, output: Output) -> Output:
        """The same with small holes of its mask filled, if that is wanted."""
        if self.options.fill_hole_area <= 0:
            return output
        holes = small_components(output.low[None] <= 0, self.options.fill_hole_area)[0]
        return output._replace(low=np.where(holes, FILLED_LOGIT, output.low))

    def _result(
        self, t: int, outputs: dict[Hashable, Output | None], is_conditioning: list[bool]
    ) -> FrameMasks:
        height, width = self.model.config.image_config.image_size
        absent = Output(
            np.full((height // 4, width // 4), ABSENT_LOGIT, np.float32), np.zeros(0), ABSENT_SCORE, 0.0
        )
        found = [output or absent for output in outputs.values()]
        return FrameMasks(
            frame=t,
            object_ids=tuple(outputs),
            logits=np.array([each.low for each in found], np.float32).reshape(-1, *absent.low.shape),
            scores=np.array([each.iou for each in found], np.float32),
            object_scores=np.array([each.score for each in found], np.float32),
            is_conditioning=np.array(is_conditioning, bool),
            size=self.size,
            processor=self.processor,
            post_processing=self._post_processing,
        )
