"""Every public function of processing, called with what nobody means: a ValueError, short and at once.

Where a value happens to be one that can be meant, what comes back is fine too; what must never come is
another error, a warning, or a long wait.
"""

import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2_jax import Sam2ImageProcessor, Sam2Processor
from sam2_jax.processing.boxes import (
    mask_to_boxes,
    non_maximum_suppression,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from sam2_jax.processing.components import fill_holes_and_remove_sprinkles, label_components
from sam2_jax.processing.crops import filter_masks, generate_crop_boxes, post_process_for_mask_generation
from sam2_jax.processing.drawing import contact_sheet, label_map, palette_image
from sam2_jax.processing.images import image_size, open_image, to_pixels, to_rgb
from sam2_jax.processing.masks import apply_non_overlapping_constraints, stability_score, upscale
from sam2_jax.processing.photo_prompts import read_box, read_labels, read_objects, read_points
from sam2_jax.processing.polygons import mask_to_polygons, polygons_to_mask
from sam2_jax.processing.post_processing import post_process_masks
from sam2_jax.processing.rle import decode_rle, encode_rle, rle_area, rle_bounding_box


class Unhelpful:
    """Fails at whatever it is asked."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]

NASTY: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "text": lambda: "7",
    "no text": lambda: "",
    "long text": lambda: "x" * 10_000,
    "null text": lambda: "a\0b",
    "bytes": lambda: b"7",
    "minus one": lambda: -1,
    "a half": lambda: 0.5,
    "ten to the 40": lambda: 10**40,
    "minus ten to the 40": lambda: -(10**40),
    "ten to the 5000": lambda: 10**5000,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "tiny": lambda: 1e-320,
    "huge": lambda: 1e300,
    "complex": lambda: 1j,
    "decimal": lambda: Decimal("sNaN"),
    "fraction": lambda: Fraction(10**400, 3),
    "no dimensions": lambda: np.array(5),
    "object array": lambda: np.array([None, 1], object),
    "text array": lambda: np.array(["a", "1"]),
    "complex array": lambda: np.ones((2, 2), complex),
    "times": lambda: np.ones((2, 2), "M8[s]"),
    "records": lambda: np.zeros(2, "i4,f4"),
    "empty array": lambda: np.zeros((0, 4)),
    "five dimensions": lambda: np.ones((1, 1, 1, 1, 1)),
    "nan array": lambda: np.full((3, 4), np.nan),
    "huge array": lambda: np.full((3, 4), 1e300),
    "negative array": lambda: np.full((3, 4), -5),
    "empty list": list,
    "ragged": lambda: [[1], [1, 2]],
    "mixed": lambda: [1, "a", None, [2]],
    "a huge whole number in lists": lambda: [[[[10**40, 3]]]],
    "huge sizes": lambda: [(10**40, 3)],
    "large sizes": lambda: [(10**6, 10**6)],
    "nested deep": lambda: DEEP,
    "set": lambda: {1, 2},
    "dictionary": lambda: {"size": [10**9, 10**9], "counts": [10**18]},
    "dictionary of nonsense": lambda: {"size": "a", "counts": {1}, "height": None, "width": []},
    "generator": lambda: (x for x in (1, 2)),
    "iterator": lambda: iter([1, 2]),
    "range": lambda: range(3),
    "type": lambda: int,
    "object": object,
    "unhelpful": Unhelpful,
    "function": lambda: len,
    "path": lambda: Path("/dev/zero"),
    "picture without pixels": lambda: Image.new("RGB", (0, 4)),
}

processor = Sam2Processor(Sam2ImageProcessor(size=8, mask_size=2))
photo = np.zeros((4, 6, 3), np.uint8)
mask = np.ones((4, 6), bool)
rle = encode_rle(mask)
logits = np.zeros((1, 1, 1, 4, 4), np.float32)
one = {"original_sizes": [(40, 60)]}
click, box = [[[[1, 1]]]], [[[0, 0, 9, 9]]]

CALLS: dict[str, Callable[[Any], Any]] = {
    "to_rgb": to_rgb,
    "to_pixels": to_pixels,
    "to_pixels(input_data_format)": lambda x: to_pixels(photo, x),
    "open_image": open_image,
    "image_size": image_size,
    "image processor": processor.image_processor,
    "image processor([x])": lambda x: processor.image_processor([x]),
    "image processor([photo, x])": lambda x: processor.image_processor([photo, x]),
    "segmentation_maps": lambda x: processor.image_processor(photo, x),
    "return_tensors": lambda x: processor.image_processor(photo, return_tensors=x),
    **{
        f"Sam2ImageProcessor({name})": lambda x, name=name: Sam2ImageProcessor(**{name: x})
        for name in Sam2ImageProcessor.__dataclass_fields__
    },
    **{
        f"call({name})": lambda x, name=name: processor(photo, **{name: x})
        for name in (*Sam2ImageProcessor.__dataclass_fields__, "data_format", "do_pad", "pad_size")
        if name not in ("size", "crop_size", "mask_size")
    },
    "from_dict": Sam2ImageProcessor.from_dict,
    "Sam2Processor": Sam2Processor,
    "target_size": lambda x: Sam2Processor(target_size=x),
    "point_pad_value": lambda x: Sam2Processor(point_pad_value=x),
    "from_pretrained(options)": lambda x: Sam2Processor.from_pretrained(
        "embedded", target_size=x, point_pad_value=x, image_processor=x
    ),
    "original_sizes": lambda x: processor(original_sizes=x, input_points=click),
    "original_sizes of an image": lambda x: processor(photo, original_sizes=x),
    "input_points": lambda x: processor(input_points=x, **one),
    "input_points[0]": lambda x: processor(input_points=[x], **one),
    "input_points[0][0]": lambda x: processor(input_points=[[x]], **one),
    "input_points[0][0][0]": lambda x: processor(input_points=[[[x]]], **one),
    "a coordinate": lambda x: processor(input_points=[[[[x, 1]]]], **one),
    "input_labels": lambda x: processor(input_points=click, input_labels=x, **one),
    "a label": lambda x: processor(input_points=click, input_labels=[[[x]]], **one),
    "input_boxes": lambda x: processor(input_boxes=x, **one),
    "a box": lambda x: processor(input_boxes=[[x]], **one),
    "a corner": lambda x: processor(input_boxes=[[[x, 0, 5, 5]]], **one),
    "input_masks": lambda x: processor(input_masks=x, **one),
    "input_masks[0]": lambda x: processor(input_masks=[x], **one),
    "a mask": lambda x: processor(input_masks=[[x]], **one),
    "post_process_masks": lambda x: post_process_masks(x, [(4, 6)]),
    "post_process_masks([x])": lambda x: post_process_masks([x], [(4, 6)]),
    "post_process_masks(sizes)": lambda x: post_process_masks(logits, x),
    **{
        f"post_process_masks({name})": lambda x, name=name: post_process_masks(logits, [(4, 6)], **{name: x})
        for name in (
            *("mask_threshold", "binarize", "max_hole_area", "max_sprinkle_area"),
            "apply_non_overlapping_constraints",
        )
    },
    "read_points": lambda x: read_points(x, (40, 60)),
    "read_points([x])": lambda x: read_points([x], (40, 60)),
    "read_labels": lambda x: read_labels(x, 2),
    "read_box": lambda x: read_box(x, (40, 60)),
    "read_objects(points)": lambda x: read_objects(x, None, None, (40, 60)),
    "read_objects(labels)": lambda x: read_objects([[(1, 1)]], x, None, (40, 60)),
    "read_objects(boxes)": lambda x: read_objects(None, None, x, (40, 60)),
    "xyxy_to_xywh": xyxy_to_xywh,
    "xywh_to_xyxy": xywh_to_xyxy,
    "mask_to_boxes": mask_to_boxes,
    "non_maximum_suppression(boxes)": lambda x: non_maximum_suppression(x, [1.0], 0.5),
    "non_maximum_suppression(scores)": lambda x: non_maximum_suppression([[0, 0, 1, 1]], x, 0.5),
    "non_maximum_suppression(threshold)": lambda x: non_maximum_suppression([[0, 0, 1, 1]], [1.0], x),
    "label_components": label_components,
    "fill_holes": fill_holes_and_remove_sprinkles,
    "fill_holes(area)": lambda x: fill_holes_and_remove_sprinkles(logits, 0.0, x),
    "upscale": lambda x: upscale(x, 4, 6),
    "stability_score": stability_score,
    "stability_score(threshold)": lambda x: stability_score(logits, x),
    "apply_non_overlapping_constraints": apply_non_overlapping_constraints,
    "encode_rle": encode_rle,
    "decode_rle": decode_rle,
    "decode_rle(size)": lambda x: decode_rle({"size": x, "counts": [24]}),
    "decode_rle(counts)": lambda x: decode_rle({"size": [4, 6], "counts": x}),
    "rle_area": rle_area,
    "rle_bounding_box": rle_bounding_box,
    "mask_to_polygons": mask_to_polygons,
    "mask_to_polygons(tolerance)": lambda x: mask_to_polygons(mask, x),
    "polygons_to_mask": lambda x: polygons_to_mask(x, 4, 6),
    "polygons_to_mask([x])": lambda x: polygons_to_mask([x], 4, 6),
    "polygons_to_mask(height)": lambda x: polygons_to_mask([], x, 6),
    "contact_sheet": contact_sheet,
    "contact_sheet(columns)": lambda x: contact_sheet([photo], x),
    "contact_sheet(size)": lambda x: contact_sheet([photo], size=x),
    "contact_sheet(gap)": lambda x: contact_sheet([photo], gap=x),
    "contact_sheet(captions)": lambda x: contact_sheet([photo], captions=x),
    "label_map": label_map,
    "palette_image": palette_image,
    "generate_crop_boxes": lambda x: generate_crop_boxes(x, 8),
    "generate_crop_boxes(target_size)": lambda x: generate_crop_boxes(photo, x),
    "generate_crop_boxes(points)": lambda x: generate_crop_boxes(photo, 8, points_per_crop=x),
    "filter_masks": lambda x: filter_masks(x, [[0.9]], (4, 6), (0, 0, 6, 4)),
    "filter_masks(scores)": lambda x: filter_masks(mask[None, None], x, (4, 6), (0, 0, 6, 4)),
    "filter_masks(size)": lambda x: filter_masks(mask[None, None], [[0.9]], x, (0, 0, 6, 4)),
    "post_process_for_mask_generation": lambda x: post_process_for_mask_generation(
        x, [0.9], [[0, 0, 1, 1]], 1
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_nasty_value_is_a_value_error_or_fine(name: str) -> None:
    for what, make in NASTY.items():
        begin = time.thread_time()
        message = ""
        try:
            CALLS[name](make())
        except ValueError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        assert len(message) < 700, (what, message)
        assert time.thread_time() - begin < 5, what
