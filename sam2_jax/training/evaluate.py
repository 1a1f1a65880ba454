"""How well a model segments examples: IoU after one click, with a box, and click after click.

The prompts are those of a user who sees the true mask: clicks go to the point deepest inside what is still
wrong, the first to the point deepest inside the object. Source: Kirillov et al. 2023 (arXiv:2304.02643),
section 7.1; Ravi et al. 2024 (arXiv:2408.00714), section 6.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from sam2_jax.checks import read_whole
from sam2_jax.image.model import Sam2Model
from sam2_jax.image.prompt_masks import clamp
from sam2_jax.model.prompt_encoder import NEGATIVE, POSITIVE
from sam2_jax.processing.boxes import mask_to_boxes
from sam2_jax.processing.masks import depth_inside
from sam2_jax.progress import progress_bar
from sam2_jax.training.examples import Example
from sam2_jax.training.losses import mask_iou


class Evaluation(NamedTuple):
    """Mean IoU over objects. box: with a box; clicks: after 1, 2, ... clicks; objects: how many there were.

    best_of_three: after one click, of the three masks the one that fits best, whichever the model prefers.
    """

    box: float
    clicks: tuple[float, ...]
    best_of_three: float
    objects: int

    def __str__(self) -> str:
        clicks = f", {len(self.clicks)} clicks {self.clicks[-1]:.3f}" if len(self.clicks) > 1 else ""
        return (
            f"mean IoU of {self.objects} objects: one click {self.clicks[0]:.3f} "
            f"(best of three {self.best_of_three:.3f}), box {self.box:.3f}{clicks}"
        )


def evaluate(
    model: Sam2Model, examples: Iterable[Example], *, clicks: int = 5, progress: bool = False
) -> Evaluation:
    """Segment every object of the examples as a user would, by the model's own answers.

    One click asks for three masks, of which the one of highest predicted IoU counts; a box and each further
    click, which come with the mask so far, clamped as in a session, ask for one. Masks are compared at the
    picture's size. Raises ValueError if there are no examples or clicks is below 1.
    """
    clicks = read_whole("clicks", clicks, 1)
    rows = [
        _evaluate_example(model, example, clicks)
        for example in progress_bar(examples, desc="evaluating", unit="picture", show=progress)
    ]
    if not rows:
        raise ValueError("examples must not be empty: there is no picture to judge by that can be used")
    box, by_click, best = (np.concatenate(parts, axis=-1) for parts in zip(*rows, strict=True))
    return Evaluation(
        box=float(box.mean()),
        clicks=tuple(by_click.mean(axis=-1).tolist()),
        best_of_three=float(best.mean()),
        objects=len(box),
    )


def _evaluate_example(
    model: Sam2Model, example: Example, clicks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU of N objects: with a box [N], after each click [clicks, N], best of the first click's three [N]."""
    size = example.image.shape[:2]
    inputs = model.processor(images=example.image)
    embeddings = model.get_image_embeddings(inputs["pixel_values"])
    truth = example.masks

    def predict(multimask: bool, masks: Any = None, **prompts: Any) -> tuple[np.ndarray, ...]:
        """Scores [N, M], logits [N, M, h, w] and masks [N, M, H, W]."""
        inputs = model.processor(original_sizes=[size], **prompts)
        outputs = model(**inputs, input_masks=masks, image_embeddings=embeddings, multimask_output=multimask)
        full = model.processor.post_process_masks(outputs.pred_masks, [size])[0]
        return np.asarray(outputs.iou_scores)[0], np.asarray(outputs.pred_masks)[0], full

    box = mask_iou(predict(False, input_boxes=[mask_to_boxes(truth).tolist()])[2][:, 0], truth)
    points = [[_deepest(mask)] for mask in truth]
    labels = [[POSITIVE] for _ in truth]
    scores, logits, masks = predict(True, input_points=[points], input_labels=[labels])
    best = np.max([mask_iou(masks[:, i], truth) for i in range(masks.shape[1])], axis=0)
    chosen = np.arange(len(truth)), scores.argmax(axis=1)
    by_click = [mask_iou(masks[chosen], truth)]
    found, prompt = masks[chosen], logits[chosen]
    for _ in range(clicks - 1):
        for i, (mask, true) in enumerate(zip(found, truth, strict=True)):
            point, label = _correction(mask, true)
            points[i].append(point)
            labels[i].append(label)
        _, logits, masks = predict(False, clamp(prompt)[None], input_points=[points], input_labels=[labels])
        found, prompt = masks[:, 0], logits[:, 0]
        by_click.append(mask_iou(found, truth))
    return box, np.stack(by_click), best


def _correction(mask: np.ndarray, truth: np.ndarray) -> tuple[list[float], int]:
    """The click that corrects a mask: deepest inside its larger error, on the object if nothing is wrong."""
    missed, excess = (depth_inside(region) for region in (truth & ~mask, mask & ~truth))
    if max(missed.max(), excess.max()) == 0:
        return _deepest(truth), POSITIVE
    is_positive = missed.max() >= excess.max()
    return _largest(missed if is_positive else excess), POSITIVE if is_positive else NEGATIVE


def _deepest(region: np.ndarray) -> list[float]:
    return _largest(depth_inside(region))


def _largest(values: np.ndarray) -> list[float]:
    y, x = np.unravel_index(values.argmax(), values.shape)
    return [float(x), float(y)]
