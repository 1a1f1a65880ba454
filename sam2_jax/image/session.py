"""`ImagePredictor`: one photo, encoded once, and prompts that each cost a single run of the mask decoder.

Source: Meta's SAM2ImagePredictor for `predict`; Ravi et al. 2024, SAM 2 (arXiv:2408.00714), on refinement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from sam2_jax.checks import shown
from sam2_jax.image.arguments import bucket, check_processor, pad_prompts
from sam2_jax.image.prompt_masks import clamp, read_mask, read_masks
from sam2_jax.image.promptable import PromptableModel
from sam2_jax.model.sam2 import ImageEmbeddings
from sam2_jax.processing.masks import draw_above
from sam2_jax.processing.photo_prompts import (
    NEGATIVE,
    POSITIVE,
    Box,
    Point,
    Size,
    join,
    read_box,
    read_labels,
    read_objects,
    read_points,
)
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.rle import encode_rle

HISTORY = 100
"""So many edits can be undone; older ones are forgotten."""

# Every prompt is padded to so many points: for hiera-tiny on two CPU cores that costs some 5 ms of 45, and
# saves compiling the decoder for 1, 4 and 16 points, over a second each, in the midst of a session.
_POINTS = 16


@dataclass(frozen=True, eq=False)
class Prediction:
    """M masks of one object, in the network's order.

    logits: float32 [M, h, w], at a quarter of the network's input size. scores: predicted IoU, float32 [M] in
    [0, 1]. object_score: positive where the object is present. size: the photo's (height, width).
    Masks of the photo's size are made when first asked for.
    """

    logits: np.ndarray = field(repr=False)
    scores: np.ndarray
    object_score: float
    size: Size
    processor: Sam2Processor = field(repr=False)
    post_processing: Mapping[str, Any] = field(repr=False)

    @property
    def best(self) -> int:
        """Index of the mask with the highest predicted IoU."""
        return int(self.scores.argmax())

    @cached_property
    def masks(self) -> np.ndarray:
        """All masks, bool [M, height, width]."""
        return self._upscale(self.logits)

    @cached_property
    def mask(self) -> np.ndarray:
        """The best mask, bool [height, width]."""
        if "masks" in self.__dict__:
            return self.masks[self.best]
        return self._upscale(self.logits[self.best : self.best + 1])[0]

    def run_lengths(self) -> list[dict[str, Any]]:
        """All masks as compressed run lengths, as `encode_rle` makes them, for photos of any size at once.

        Of each mask only the part is drawn where it is, if no post-processing looks at the rest.
        """
        if self.post_processing or "masks" in self.__dict__:
            return [encode_rle(mask, compressed=True) for mask in self.masks]
        found = []
        for logits in self.logits:
            mask = np.zeros(self.size, bool)
            draw_above(mask, logits, 0.0)
            found.append(encode_rle(mask, compressed=True))
        return found

    def _upscale(self, logits: np.ndarray) -> np.ndarray:
        return self.processor.post_process_masks(logits[None, None], [self.size], **self.post_processing)[0][
            0
        ]


@dataclass(frozen=True)
class _Step:
    """All prompts after an edit, and what the network made of them."""

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    prediction: Prediction | None = None


class ImagePredictor:
    """An interactive session on one photo.

    `predict` and `predict_objects` answer each prompt by itself. `click`, `set_box`, `undo`, `redo` and
    `reset` edit one object after the other. With each edit the network gets all points and the box of the
    object so far and, with a click, the logits of the best mask before it, as it was trained to refine.

    size: the photo's (height, width). embeddings: the encoded photo, as `Sam2Model.get_image_embeddings`
    returns it. Not to be shared between threads.
    """

    def __init__(
        self,
        model: PromptableModel,
        photo: Any,
        processor: Sam2Processor | None = None,
        **post_processing: Any,
    ) -> None:
        """Encode a photo: a path, a PIL image or an array, as the processor takes it.

        processor: the model's own if None. post_processing: options of `Sam2Processor.post_process_masks`,
        such as max_hole_area=8, for all masks of the session. Raises ValueError for what is not one photo.
        """
        self.model = model
        self.processor = model.processor if processor is None else check_processor(processor)
        # What is wrong with the options shows now, not with the first mask.
        self.processor.post_process_masks(np.zeros((1, 1, 1, 1, 1), np.float32), [(1, 1)], **post_processing)
        self._post_processing = post_processing
        inputs = self.processor(images=photo)
        if len(inputs["pixel_values"]) != 1:
            raise ValueError(f"photo must be one picture; got {len(inputs['pixel_values'])}")
        height, width = inputs["original_sizes"][0]
        self.size: Size = int(height), int(width)
        self._prediction: Prediction | None = None
        self.embeddings: ImageEmbeddings = model.get_image_embeddings(inputs["pixel_values"])
        self._history = [_Step()]
        self._position = 0

    def __repr__(self) -> str:
        """The photo's size, and the object so far."""
        height, width = self.size
        box = "" if self.box is None else ", a box"
        return f"ImagePredictor(a photo of {width} x {height}, {len(self.points)} points{box})"

    def predict(
        self,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        multimask_output: bool = True,
    ) -> Prediction:
        """Segment one object; the session's state is neither used nor changed.

        points: [N, 2], (x, y) in the photo's pixels; labels: [N], 1 on the object and 0 off it, all 1 if
        None; box: (x0, y0, x1, y1); mask: logits [h, w] of an earlier prediction, such as
        `prediction.logits[prediction.best]`, clamped to [-32, 32]. At least one of points, box and mask.
        multimask_output: three masks, or the one the network stands by.
        Raises ValueError for prompts outside the photo or that cannot be meant.
        """
        _refuse_several(points, box)
        read = read_points(points, self.size)
        of_points = read_labels(labels, len(read))
        corners = read_box(box, self.size)
        if not read and corners is None and mask is None:
            raise ValueError("there is nothing to segment: give points, a box or a mask")
        logits = None if mask is None else read_mask(mask)
        return self._decode_one(read, of_points, corners, logits, multimask_output)

    def predict_objects(
        self,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        multimask_output: bool = False,
        masks: Any = None,
    ) -> list[Prediction]:
        """Segment several objects in one run of the decoder; the session's state is left alone.

        points: object > point > (x, y), None or [] for an object with a box alone; labels: object > point;
        boxes: object > (x0, y0, x1, y1), None for an object with points alone. masks: object > logits [h, w]
        of an earlier prediction, for each object or for none. Otherwise as `predict`.
        """
        read, of_points = read_objects(points, labels, boxes, self.size, masks)
        found = self._decode(read, of_points, read_masks(masks), multimask_output)
        if self._post_processing.get("apply_non_overlapping_constraints"):
            # What each has of the others is known here alone.
            logits = np.stack([each.logits for each in found])
            together = self.processor.post_process_masks([logits], [self.size], **self._post_processing)[0]
            for each, own in zip(found, together, strict=True):
                vars(each)["masks"] = own
        return found

    def click(self, x: float, y: float, positive: bool = True) -> Prediction:
        """Add a point on the object, or off it; returns the new prediction.

        A first positive click may mean a part, an object or a group: it gives three masks, every other edit
        one. Raises ValueError for a point outside the photo, and then changes nothing.
        """
        step = self._step
        points = (*step.points, *read_points([(x, y)], self.size))
        labels = (*step.labels, POSITIVE if positive else NEGATIVE)
        before = step.prediction
        return self._edit(points, labels, step.box, None if before is None else before.logits[before.best])

    def set_box(self, *box: Any) -> Prediction:
        """Draw a box around the object, in place of an earlier one; returns the new prediction.

        box: x0, y0, x1, y1 in the photo's pixels, as four numbers or as one sequence of them.
        It counts with the points so far, but the mask so far does not: the network would cling to it.
        Raises ValueError for a box that is empty or outside the photo, and then changes nothing.
        """
        # On the truck photo, a box around all of it after a click on a window, with the window's mask as
        # prompt, left the window (IoU with the truck 0.04); without it, it gave the truck (0.99).
        corners = box[0] if len(box) == 1 and np.size(box[0]) == 4 else box
        if len(corners) != 4:
            raise ValueError(f"a box must be (x0, y0, x1, y1); got {shown(box)}")
        step = self._step
        return self._edit(step.points, step.labels, read_box(corners, self.size), None)

    def undo(self) -> Prediction | None:
        """Take the last edit back; returns the prediction before it, None if there was none.

        The network does not run. Without an edit to take back, nothing changes.
        """
        return self._go_to(max(self._position - 1, 0))

    def redo(self) -> Prediction | None:
        """Repeat the edit that was undone last; returns its prediction. Without one, nothing changes."""
        return self._go_to(min(self._position + 1, len(self._history) - 1))

    def reset(self) -> None:
        """Forget the object and its history, and begin the next one."""
        self._history = [_Step()]
        self._go_to(0)

    @property
    def prediction(self) -> Prediction | None:
        """What the last edit returned; None before the first."""
        return self._prediction

    @property
    def points(self) -> tuple[Point, ...]:
        """The object's points (x, y), in the order they were clicked."""
        return self._step.points

    @property
    def labels(self) -> tuple[int, ...]:
        """The points' labels, 1 on the object and 0 off it."""
        return self._step.labels

    @property
    def box(self) -> Box | None:
        """The object's box (x0, y0, x1, y1)."""
        return self._step.box

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone edit to repeat."""
        return self._position < len(self._history) - 1

    @property
    def _step(self) -> _Step:
        return self._history[self._position]

    def _edit(
        self,
        points: tuple[Point, ...],
        labels: tuple[int, ...],
        box: Box | None,
        mask: np.ndarray | None,
    ) -> Prediction:
        """Run the network for all prompts of the object, and then make them and the result the last step."""
        is_ambiguous = labels == (POSITIVE,) and box is None
        logits = None if mask is None else clamp(mask)
        prediction = self._decode_one(points, labels, box, logits, is_ambiguous)
        kept = self._history[max(0, self._position + 1 - HISTORY) : self._position + 1]
        self._history = [*kept, _Step(points, labels, box, prediction)]
        self._position = len(self._history) - 1
        return self._show(prediction)

    def _go_to(self, position: int) -> Prediction | None:
        """Make a step of the history the current one."""
        self._position = position
        prediction = self._history[position].prediction
        if prediction is not None:
            return self._show(prediction)
        self._prediction = None
        return None

    def _show(self, prediction: Prediction) -> Prediction:
        """Hand out a copy, which shares the logits but keeps the masks that it makes for itself.

        So a step of the history holds logits alone: 256 KB for the released models, and three times that
        for a first click.
        """
        self._prediction = replace(prediction)
        return self._prediction

    def _decode_one(
        self,
        points: tuple[Point, ...],
        labels: tuple[int, ...],
        box: Box | None,
        mask: np.ndarray | None,
        multimask_output: bool,
    ) -> Prediction:
        all_points, all_labels = join(points, labels, box)
        masks = None if mask is None else mask[None]
        return self._decode([all_points], [all_labels], masks, multimask_output)[0]

    def _decode(
        self,
        points: list[list[Point]],
        labels: list[list[int]],
        masks: np.ndarray | None,
        multimask_output: bool,
    ) -> list[Prediction]:
        """Run the decoder for points and labels of each object, and a mask prompt for each of them."""
        inputs = self.processor(original_sizes=[self.size], input_points=[points], input_labels=[labels])
        prompts = inputs["input_points"], inputs["input_labels"]
        if self.model.padding == "masked":  # else padding would change the result
            objects, count = prompts[1].shape[1:]
            prompts = pad_prompts(*prompts, objects, max(bucket(count, 4), _POINTS))
        outputs = self.model(
            input_points=prompts[0],
            input_labels=prompts[1],
            input_masks=None if masks is None else masks[None],
            image_embeddings=self.embeddings,
            multimask_output=multimask_output,
        )
        logits, scores, object_scores = (
            np.asarray(x)[0] for x in (outputs.pred_masks, outputs.iou_scores, outputs.object_score_logits)
        )
        return [
            Prediction(
                logits[i],
                scores[i],
                float(object_scores[i, 0]),
                self.size,
                self.processor,
                self._post_processing,
            )
            for i in range(len(points))
        ]


def _refuse_several(points: Any, box: Any) -> None:
    """Say where prompts for several objects go, which Meta's predict takes as well."""
    for name, value, most, several in (("points", points, 2, "points"), ("box", box, 1, "boxes")):
        found = getattr(value, "ndim", None) or _depth(value)
        if found > most:
            raise ValueError(
                f"{name} must be of one object; got an array of {found} dimensions: predict_objects takes "
                f"{several} of several, and sam2_jax.meta.SAM2ImagePredictor takes all of Meta's array forms"
            )


def _depth(value: Any) -> int:
    """How deep lists lie in one another, along their first items."""
    depth = 0
    while isinstance(value, (list, tuple)) and depth < 4:
        value, depth = value[0] if value else None, depth + 1
    return depth
