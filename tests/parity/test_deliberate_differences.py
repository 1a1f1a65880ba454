"""The table of all places where our processors differ from transformers' on purpose, each seen on both sides.

A row makes the same call on both and states what each gives. What is not in this table is meant to be equal.
"""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("torchvision", reason="transformers' processors need torchvision and the shim")
pytest.importorskip("transformers", reason="parity needs transformers")

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from sam2_jax import Sam2Processor

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SIZE = [(40, 60)]
OURS, THEIRS = Sam2Processor(), transformers.Sam2Processor(transformers.Sam2ImageProcessor())


@dataclass(frozen=True)
class Difference:
    """One row: what is done, what transformers gives, what we give, and why."""

    what: str
    call: Callable[[Any, dict[str, Any]], Any]  # of a processor and what it needs to return arrays
    theirs: Any
    ours: Any
    why: str


def prompts(*names: str, **given: Any) -> Callable[[Any, dict[str, Any]], Any]:
    """Call with prompts on one photo's size and return the arrays of those names, rounded."""

    def call(processor: Any, tensors: dict[str, Any]) -> Any:
        inputs = processor(**{"original_sizes": SIZE, **given}, **tensors)
        found = [
            np.round(np.asarray(inputs[name], np.float64), 3).tolist() if name in inputs else None
            for name in names
        ]
        return found[0] if len(found) == 1 else found

    return call


def pixels(reduce: Callable[[np.ndarray], Any], picture: Any = PHOTO, **given: Any) -> Any:
    """Call with a picture and return something of the pixels, channels last."""

    def call(processor: Any, tensors: dict[str, Any]) -> Any:
        values = np.asarray(processor(picture, **given, **tensors)["pixel_values"])
        return reduce(np.moveaxis(values, 1, -1) if values.shape[1] == 3 else values)

    return call


def masks(run: Callable[[Any, list[Any]], Any]) -> Callable[[Any, dict[str, Any]], Any]:
    """Call with mask logits of two images, [2, 2, 1, 4, 4]: the first object lies within the second."""
    logits = np.full((2, 2, 1, 4, 4), -3, np.float32)
    logits[:, 1, :, 1:, 1:] = 2
    logits[:, 0, :, 2:, 2:] = 4
    logits[:, 1, 0, 2, 2] = -1  # a hole of one pixel
    return lambda processor, tensors: run(processor, list(logits.copy()))


def chosen(**thresholds: float) -> Callable[[Any, dict[str, Any]], Any]:
    """How many of two equal masks, found by themselves, are left at these thresholds."""

    def call(processor: Any, _: dict[str, Any]) -> int:
        logits = np.full((1, 2, 30, 30), -8, np.float32)
        logits[..., 8:20, 8:20] = 8
        scores = np.array([[0.9, 0.95]], np.float32)
        arrays = (
            (logits, scores) if processor is OURS else (torch.from_numpy(logits), torch.from_numpy(scores))
        )
        given = dict(thresholds)
        suppression = given.pop("crops_nms_thresh", 0.7)
        found = processor.image_processor.filter_masks(*arrays, (30, 30), (0, 0, 30, 30), **given)
        return len(processor.image_processor.post_process_for_mask_generation(*found, suppression)[0])

    return call


def was_replaced(processor: Any, logits: list[np.ndarray]) -> bool:
    before = list(logits)
    processor.post_process_masks(logits, np.array([[4, 4], [4, 4]]))
    return any(a is not b for a, b in zip(before, logits, strict=True))


def overlap(processor: Any, logits: list[np.ndarray]) -> int:
    out = processor.post_process_masks(
        logits, [[4, 4], [4, 4]], -20.0, apply_non_overlapping_constraints=True
    )
    return int(np.asarray(out[0]).sum(axis=0).max())


BOX = [0, 0, 30, 20]
TABLE = [
    Difference(
        "layout of pixel_values",
        lambda p, t: tuple(p(PHOTO, **t)["pixel_values"].shape),
        (1, 3, 1024, 1024),
        (1, 1024, 1024, 3),
        "arrays are channels last throughout, as XLA likes them on every device",
    ),
    Difference(
        "return_tensors left out",
        lambda p, t: type(p([PHOTO, PHOTO])["pixel_values"]).__name__,
        "list",
        "ndarray",
        "what the processor returns is what the model takes",
    ),
    Difference(
        "a grey picture [H, W]", pixels(np.shape, PHOTO[..., 0]), "ValueError", (1, 1024, 1024, 3), "common"
    ),
    Difference(
        "16 bits a channel",
        pixels(lambda x: bool(x.max() < 3), PHOTO.astype(np.uint16) * 257),
        False,
        True,
        "the reference divides them by 255 and normalises what is left",
    ),
    Difference(
        "one row of pixels, [1, W, 3]",
        pixels(lambda x: float(np.ptp(x, axis=-2).max()) == 0, np.full((1, 9, 3), [10, 20, 30], np.uint8)),
        False,
        True,
        "an open layout is channels last, as pictures in numpy are; the reference takes 9 columns of 3",
    ),
    Difference(
        "a size by its shortest edge",
        pixels(np.shape, size={"shortest_edge": 64}),
        (1, 64, 96, 3),
        "ValueError",
        "the model would refuse the oblong later, with shapes for a reason",
    ),
    Difference(
        "a step that is None in a call",
        pixels(lambda x: bool(x.max() > 1), np.full((4, 4, 3), 255, np.uint8), do_normalize=None),
        False,
        True,
        "in a call None is as if it were not given, for every option; the reference takes some as off",
    ),
    Difference(
        "numbers as text, as a picture's mean",
        pixels(np.shape, image_mean="0.5"),
        "StrictDataclassFieldValidationError",
        "ValueError",
        "one kind of error for what cannot be meant",
    ),
    Difference(
        "data_format channels_first",
        pixels(np.shape, data_format="channels_first", size=64),
        (1, 64, 64, 3),
        "ValueError",
        "the reference takes any layout and returns channels first; here it would not fit the model",
    ),
    Difference(
        "pictures that are padded",
        pixels(np.shape, size=64, do_pad=True, pad_size={"height": 80, "width": 80}),
        (1, 80, 80, 3),
        "ValueError",
        "the model would refuse the size, and points would go where the picture is not",
    ),
    Difference(
        "an unknown option",
        pixels(np.shape, sise=64),
        "TypeError",
        "ValueError",
        "one kind of error for what cannot be meant, with the name that was",
    ),
    Difference(
        "a box outside of the photo",
        prompts("input_boxes", input_boxes=[[[60, 0, 90, 20]]]),
        [[[1024.0, 0.0, 1536.0, 512.0]]],
        "ValueError",
        "there is nothing in it",
    ),
    Difference(
        "a box in fractions of the photo",
        prompts("input_boxes", input_boxes=[[[0, 0, 0.5, 0.5]]]),
        [[[0.0, 0.0, 8.533, 12.8]]],
        "ValueError",
        "boxes are in pixels, and no object fits into the first one",
    ),
    Difference(
        "label maps without return_tensors",
        lambda p, t: tuple(np.shape(p(PHOTO, PHOTO[..., 0])["labels"])),
        "AttributeError",
        (1, 256, 256),
        "the reference squeezes a list",
    ),
    Difference(
        "points in tuples (9.A-6)",
        prompts("input_points", input_points=((((30, 20),),),)),
        None,
        [[[[512.0, 512.0]]]],
        "the reference drops them without a word",
    ),
    Difference(
        "a coordinate of -10 (9.A-6)",
        prompts("input_points", input_points=[[[[-10, 20]]]]),
        [[[[-10.0, 20.0]]]],
        [[[[-170.667, 512.0]]]],
        "a point left of a crop is a point; padding is what has label -10",
    ),
    Difference(
        "one original size for two images' points (9.A-6)",
        prompts("input_points", input_points=[[[[30, 20]]], [[[30, 20]]]]),
        [[[[512.0, 512.0]]], [[[30.0, 20.0]]]],
        [[[[512.0, 512.0]]], [[[512.0, 512.0]]]],
        "the reference scales the first alone",
    ),
    Difference(
        "labels on the wrong object (9.A-6)",
        prompts("input_labels", input_points=[[[[1, 1]], [[2, 2], [3, 3]]]], input_labels=[[[1, 1], [1]]]),
        [[[1, 1], [1, -10]]],
        "ValueError",
        "the reference compares the longest lists only",
    ),
    Difference(
        "labels without points",
        prompts("input_labels", input_labels=[[[1]]]),
        [[[1]]],
        "ValueError",
        "the model ignores them",
    ),
    Difference(
        "ragged points without labels",
        prompts("input_labels", input_points=[[[[1, 1]], [[2, 2], [3, 3]]]]),
        None,
        [[[1, -10], [1, 1]]],
        "without labels the model takes padding for clicks",
    ),
    Difference(
        "three coordinates for a point",
        prompts("input_points", input_points=[[[[1, 2, 3]]]]),
        [[[[17.067, 51.2, 3.0]]]],
        "ValueError",
        "the reference passes the third on",
    ),
    Difference(
        "one coordinate for a point",
        prompts("input_points", input_points=[[[[30]]]]),
        [[[[30.0, -10.0]]]],
        "ValueError",
        "the reference pads it",
    ),
    Difference(
        "a size for one call",
        prompts("input_points", original_sizes=None, images=PHOTO, input_points=[[[[30, 20]]]], size=64),
        [[[[512.0, 512.0]]]],
        [[[[32.0, 32.0]]]],
        "the points go where the pixels go",
    ),
    Difference(
        "an oblong size",
        prompts(
            "input_points",
            original_sizes=None,
            images=PHOTO,
            input_points=[[[[30, 20]]]],
            size={"height": 64, "width": 128},
        ),
        [[[[512.0, 512.0]]]],
        [[[[64.0, 32.0]]]],
        "each axis has its own scale",
    ),
    Difference(
        "points on a picture that is not resized",
        prompts(
            "input_points", original_sizes=None, images=PHOTO, input_points=[[[[30, 20]]]], do_resize=False
        ),
        [[[[512.0, 512.0]]]],
        [[[[30.0, 20.0]]]],
        "the points go where the pixels go",
    ),
    Difference(
        "points on a picture that is cropped",
        prompts(
            "input_points",
            original_sizes=None,
            images=PHOTO,
            input_points=[[[[30, 20]]]],
            do_center_crop=True,
            crop_size=512,
        ),
        [[[[512.0, 512.0]]]],
        "ValueError",
        "the crop moves the picture under the points",
    ),
    Difference(
        "a different number of boxes for each image",
        prompts("input_boxes", original_sizes=SIZE * 2, input_boxes=[[BOX, BOX], [BOX]]),
        "ValueError",
        [
            [[0.0, 0.0, 512.0, 512.0]] * 2,
            [[0.0, 0.0, 512.0, 512.0], pytest.approx([np.nan] * 4, nan_ok=True)],
        ],
        "padding boxes are NaN, and masked by the model",
    ),
    Difference(
        "as many points as boxes",
        prompts("input_boxes", input_points=[[[[1, 1]]]], input_boxes=[[BOX, BOX]]),
        [[[0.0, 0.0, 512.0, 512.0]] * 2],
        "ValueError",
        "the reference leaves it to the model",
    ),
    Difference(
        "a box with its corners swapped",
        prompts("input_boxes", input_boxes=[[[30, 20, 0, 0]]]),
        [[[512.0, 512.0, 0.0, 0.0]]],
        "ValueError",
        "it is a box in another convention more often than not",
    ),
    Difference(
        "a point of NaN",
        prompts("input_points", input_points=[[[[float("nan"), 20]]]]),
        [[[[pytest.approx(np.nan, nan_ok=True), 512.0]]]],
        "ValueError",
        "its masks would be NaN",
    ),
    Difference(
        "the caller's list of masks afterwards (9.A-10)",
        masks(was_replaced),
        True,
        False,
        "the reference puts tensors in the place of the caller's arrays",
    ),
    Difference(
        "masks in one array [B, P, M, h, w]",
        masks(lambda p, m: len(p.post_process_masks(np.stack(m), [[4, 4], [4, 4]]))),
        "AttributeError",
        2,
        "the reference cannot put a tensor into an array",
    ),
    Difference(
        "max_hole_area (9.A-4)",
        masks(lambda p, m: int(np.asarray(p.post_process_masks(m, [[4, 4]] * 2, max_hole_area=1)[0]).sum())),
        12,
        13,
        "the reference documents it and does nothing",
    ),
    Difference(
        "fewer sizes than images",
        masks(lambda p, m: len(p.post_process_masks(m, [[4, 4]]))),
        1,
        "ValueError",
        "the reference drops the other images",
    ),
    Difference(
        "a predicted IoU asked for in per cent",
        chosen(pred_iou_thresh=80),
        0,
        "ValueError",
        "no mask can have it: minutes of work for nothing",
    ),
    Difference(
        "boxes that may overlap by more than wholly",
        chosen(crops_nms_thresh=1.5),
        2,
        "ValueError",
        "it turns suppression off; 1 does so in plain words",
    ),
    Difference(
        "non-overlapping objects with a threshold below -10",
        masks(overlap),
        2,
        1,
        "the reference pushes the losers to -10 only, above the threshold",
    ),
]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the name of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__


@pytest.mark.filterwarnings("ignore")  # transformers warns of what it then does
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_each_row_of_the_table(row: Difference) -> None:
    theirs = outcome(lambda: row.call(THEIRS, {"return_tensors": "pt"}))
    assert theirs == row.theirs
    ours = outcome(lambda: row.call(OURS, {}))
    assert ours == row.ours
    assert ours != theirs


def test_the_table_gives_a_reason_for_every_row() -> None:
    assert all(row.why for row in TABLE)
    assert len({row.what for row in TABLE}) == len(TABLE)


def test_the_reference_is_the_version_the_table_was_made_for() -> None:
    assert transformers.__version__ == "5.23.0"
