"""Meta's SAM2AutomaticMaskGenerator: every cell of its notebook, its arguments in its order."""

import inspect
from typing import Any

import numpy as np
import pytest
from discs import Discs
from scipy import ndimage
from small_models import random_tensors, smallest_config

from sam2_jax import AutomaticMaskGenerator, Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.image.generation_options import MaskGenerationOptions
from sam2_jax.meta import SAM2AutomaticMaskGenerator
from sam2_jax.processing.rle import decode_rle

RECORD = ("segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box")


@pytest.fixture(scope="module")
def sam2() -> Sam2Model:
    config = smallest_config(128)
    return Discs(config, names.unflatten(names.to_flax(random_tensors(config))))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((180, 280, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return (128 + 90 * smooth / np.abs(smooth).max()).astype(np.uint8)


# --- the notebook: notebooks/automatic_mask_generator_example.ipynb


@pytest.mark.slow
def test_records_of_all_masks(sam2: Sam2Model, image: np.ndarray) -> None:
    mask_generator = SAM2AutomaticMaskGenerator(sam2, pred_iou_thresh=0.5, stability_score_thresh=0.6)
    masks = mask_generator.generate(image)
    assert len(masks) > 0
    assert tuple(masks[0].keys()) == RECORD
    sorted_anns = sorted(masks, key=(lambda x: x["area"]), reverse=True)
    assert sorted_anns[0]["segmentation"].shape == (180, 280)
    img = np.ones((*sorted_anns[0]["segmentation"].shape, 4))
    for ann in sorted_anns:
        img[ann["segmentation"]] = [0, 0, 1, 0.5]  # a mask chooses pixels, so it is boolean
    assert (img == 1).all(axis=-1).any() != (img[..., 3] == 0.5).all()


def test_many_options(sam2: Sam2Model, image: np.ndarray) -> None:
    mask_generator_2 = SAM2AutomaticMaskGenerator(
        model=sam2,
        points_per_side=8,
        points_per_batch=128,
        pred_iou_thresh=0.7,
        stability_score_thresh=0.5,
        stability_score_offset=0.7,
        crop_n_layers=1,
        box_nms_thresh=0.7,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=25.0,
        use_m2m=True,
    )
    masks2 = mask_generator_2.generate(image)
    assert len(masks2) > 0
    assert tuple(masks2[0]) == RECORD


# --- arguments


def test_arguments_stand_in_meta_s_order_with_meta_s_defaults() -> None:
    parameters = inspect.signature(SAM2AutomaticMaskGenerator.__init__).parameters
    assert list(parameters) == [
        *(
            "self",
            "model",
            "points_per_side",
            "points_per_batch",
            "pred_iou_thresh",
            "stability_score_thresh",
        ),
        *("stability_score_offset", "mask_threshold", "box_nms_thresh", "crop_n_layers", "crop_nms_thresh"),
        *("crop_overlap_ratio", "crop_n_points_downscale_factor", "point_grids", "min_mask_region_area"),
        *("output_mode", "use_m2m", "multimask_output"),
    ]
    defaults = MaskGenerationOptions()
    for name, parameter in parameters.items():
        if name not in ("self", "model", "output_mode"):
            assert parameter.default == getattr(defaults, name)


def test_it_is_the_automatic_mask_generator(sam2: Sam2Model, image: np.ndarray) -> None:
    """All arguments by position; small regions are those of the network's masks, as in Meta's code."""
    grids = [[(0.25, 0.5), (0.75, 0.5)]]
    arguments = (None, 8, 0.4, 0.3, 0.9, 0.1, 0.8, 0, 0.6, 0.2, 2, grids, 3, "coco_rle", True, False)
    found = SAM2AutomaticMaskGenerator(sam2, *arguments).generate(image)
    options: dict[str, Any] = {
        "points_per_batch": 8,
        "pred_iou_thresh": 0.4,
        "stability_score_thresh": 0.3,
        "stability_score_offset": 0.9,
        "mask_threshold": 0.1,
        "box_nms_thresh": 0.8,
        "crop_nms_thresh": 0.6,
        "crop_overlap_ratio": 0.2,
        "crop_n_points_downscale_factor": 2,
        "point_grids": grids,
        "max_hole_area": 3,
        "max_sprinkle_area": 3,
        "use_m2m": True,
        "multimask_output": False,
    }
    assert found == AutomaticMaskGenerator(sam2, output_mode="coco_rle", **options).generate(image)
    assert decode_rle(found[0]["segmentation"]).sum() == found[0]["area"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids"),
        ({"point_grids": [[(0.5, 0.5)]]}, "exactly one of points_per_side and point_grids"),
        ({"min_mask_region_area": None}, "min_mask_region_area must be a number of at least 0; got None"),
        ({"pred_iou_thresh": None}, "pred_iou_thresh must not be None"),
        ({"output_mode": "rle"}, "output_mode must be one of binary_mask"),
    ],
)
def test_what_cannot_be_meant_is_refused(sam2: Sam2Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAM2AutomaticMaskGenerator(sam2, **options)
