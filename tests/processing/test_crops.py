"""Crops, point grids and the choice of masks, by themselves; beside transformers in parity/test_crops.py."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sam2_jax.processing.crops import filter_masks, generate_crop_boxes, post_process_for_mask_generation
from sam2_jax.processing.rle import decode_rle, encode_rle


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_whole_picture_alone_is_the_first_layer() -> None:
    photo = picture(30, 60)
    boxes, points, crops, labels = generate_crop_boxes(photo, 64, points_per_crop=2)
    assert boxes.tolist() == [[0, 0, 60, 30]]
    assert points[0, :, 0].tolist() == [[16, 16], [48, 16], [16, 48], [48, 48]]
    np.testing.assert_array_equal(crops[0], photo)
    assert labels.tolist() == [[[1]] * 4]
    assert (boxes.dtype, points.dtype, labels.dtype) == (np.float32, np.float32, np.int64)


def test_points_are_in_pixels_of_an_oblong_input() -> None:
    _, points, _, _ = generate_crop_boxes(picture(30, 60), (32, 64), points_per_crop=4)
    np.testing.assert_array_equal(np.unique(points[..., 0]), [8, 24, 40, 56])
    np.testing.assert_array_equal(np.unique(points[..., 1]), [4, 12, 20, 28])


def test_every_point_lies_in_its_own_cell_of_every_crop() -> None:
    boxes, points, crops, _ = generate_crop_boxes(picture(70, 110), 64, crop_n_layers=2, points_per_crop=8)
    assert len(boxes) == len(crops) == points.shape[2] == 1 + 4 + 16
    for i in range(len(boxes)):
        cells = points[0, :, i] // 8
        assert len({tuple(cell) for cell in cells.tolist()}) == 64
        assert cells.min() == 0
        assert cells.max() == 7


def test_crops_are_cut_where_the_boxes_say_and_cover_the_picture() -> None:
    photo = picture(70, 110)
    boxes, _, crops, _ = generate_crop_boxes(photo, 64, crop_n_layers=2)
    covered = np.zeros((3, 70, 110), bool)
    for i, (box, crop) in enumerate(zip(boxes.astype(int), crops, strict=True)):
        x0, y0, x1, y1 = box
        np.testing.assert_array_equal(crop, photo[y0:y1, x0:x1])
        covered[0 if i == 0 else 1 if i < 5 else 2, y0:y1, x0:x1] = True
    assert covered.all()


def test_defect_9a3_layers_may_have_fewer_points() -> None:
    """The reference crashes; here the missing points are padded, and say so."""
    _, points, _, labels = generate_crop_boxes(
        picture(64, 96), 64, crop_n_layers=2, points_per_crop=8, crop_n_points_downscale_factor=2
    )
    assert points.shape == (1, 64, 21, 2)
    assert (labels == 1).sum(axis=1).tolist() == [[64] + [16] * 4 + [4] * 16]
    np.testing.assert_array_equal(points[labels != 1], -10)
    np.testing.assert_array_equal(labels[labels != 1], -10)
    np.testing.assert_array_equal(np.unique(points[0, :4, -1]), [16, 48])


def test_a_grid_has_at_least_one_point() -> None:
    _, points, _, labels = generate_crop_boxes(
        picture(64, 96), 64, crop_n_layers=1, points_per_crop=2, crop_n_points_downscale_factor=5
    )
    assert points[0, 0, 1].tolist() == [32, 32]
    assert labels[0, :, 1].tolist() == [1, -10, -10, -10]


def test_pictures_of_other_modes_become_rgb() -> None:
    grey = Image.fromarray(picture(20, 30)).convert("L")
    _, _, crops, _ = generate_crop_boxes(grey, 64)
    assert crops[0].shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": [picture(8, 8)]}, "image must be one picture; got a list"),
        ({"crop_n_layers": -1}, "crop_n_layers must be a whole number from 0 to 8; got -1"),
        ({"crop_n_layers": "a"}, "crop_n_layers must be a whole number from 0 to 8; got 'a'"),
        ({"crop_n_layers": None}, "crop_n_layers must be a whole number from 0 to 8; got None"),
        ({"crop_n_layers": 0.5}, "crop_n_layers must be a whole number"),
        ({"crop_n_layers": 10**40}, "crop_n_layers must be a whole number"),
        ({"crop_n_layers": 5}, "less than 4 for a picture of 40 x 30 pixels: .* 16 x 16 crops"),
        ({"overlap_ratio": 1.0}, "overlap_ratio must be a number of at least 0 and less than 1; got 1.0"),
        ({"overlap_ratio": None}, "overlap_ratio must be a number of at least 0 and less than 1; got None"),
        ({"overlap_ratio": float("nan")}, "overlap_ratio must be a number"),
        ({"points_per_crop": 0}, "points_per_crop must be a whole number from 1 to 1024; got 0"),
        ({"points_per_crop": None}, "points_per_crop must be a whole number"),
        ({"points_per_crop": 10**9}, "points_per_crop must be a whole number"),
        ({"points_per_crop": True}, "points_per_crop must be a whole number"),
        ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor must be a number from 1 to"),
        ({"crop_n_points_downscale_factor": 1e300}, "crop_n_points_downscale_factor must be a number"),
        ({"target_size": (64, 64, 64)}, r"target_size must be a side or \(height, width\) in pixels"),
        ({"target_size": None}, r"target_size must be a side or \(height, width\) in pixels; got"),
        ({"target_size": 0}, r"target_size must be a side or \(height, width\) in pixels"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"image": picture(30, 40), "target_size": 64} | options
    with pytest.raises(ValueError, match=message):
        generate_crop_boxes(**arguments)


def test_more_points_than_memory_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 10,000,000 points; got 5,461 crops of 1,048,576"):
        generate_crop_boxes(picture(3000, 4000), 64, crop_n_layers=6, points_per_crop=1024)


def square(height: int, width: int, y: int, x: int, side: int = 10) -> np.ndarray:
    """Logits of a clear-cut square."""
    logits = np.full((height, width), -8, np.float32)
    logits[y : y + side, x : x + side] = 8
    return logits


def test_masks_are_placed_in_the_whole_picture() -> None:
    logits = square(100, 120, 40, 50)[None, None]
    before = logits.copy()
    for masks in (logits, jnp.asarray(logits)):
        rles, scores, boxes = filter_masks(masks, masks[..., 0, 0] * 0 + 0.9, (200, 300), (30, 60, 150, 160))
        expected = np.zeros((200, 300), bool)
        expected[100:110, 80:90] = True
        assert rles == [encode_rle(expected)]
        assert boxes.tolist() == [[80, 100, 89, 109]]
        assert scores.tolist() == [np.float32(0.9)]
        assert (scores.dtype, boxes.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(logits, before)


def test_masks_cut_off_by_the_crop_are_left_out() -> None:
    in_corner, at_picture_edge = square(100, 120, 85, 50), square(100, 120, 40, 0)
    masks = np.stack([in_corner, at_picture_edge])[None]
    _, _, boxes = filter_masks(masks, np.ones((1, 2)), (200, 300), (0, 50, 120, 150))
    assert boxes.tolist() == [[0, 90, 9, 99]]


def test_scores_at_the_threshold_are_left_out() -> None:
    masks = np.stack([square(50, 50, 20, 20)] * 3)[None]
    scores = np.array([[0.5, 0.25, 0.75]], np.float32)
    assert filter_masks(masks, scores, (50, 50), (0, 0, 50, 50), 0.5)[1].tolist() == [0.75]
    assert filter_masks(masks, scores, (50, 50), (0, 0, 50, 50), 0)[1].tolist() == [0.5, 0.25, 0.75]


def test_unstable_and_empty_masks_are_left_out() -> None:
    masks = np.stack([square(50, 50, 20, 20), square(50, 50, 20, 20) / 20, square(50, 50, 0, 0, 0)])[None]
    scores = np.array([[0.9, 0.91, 0.92]])
    assert filter_masks(masks, scores, (50, 50), (0, 0, 50, 50))[1].tolist() == [np.float32(0.9)]
    rles, kept, boxes = filter_masks(masks, scores, (50, 50), (0, 0, 50, 50), stability_score_thresh=0)
    assert len(kept) == 3
    assert boxes[2].tolist() == [0, 0, 0, 0]
    assert not decode_rle(rles[2]).any()


def test_of_no_masks_none_are_kept() -> None:
    rles, scores, boxes = filter_masks(np.zeros((0, 3, 5, 5)), np.zeros((0, 3)), (5, 5), (0, 0, 5, 5))
    assert (rles, scores.shape, boxes.shape) == ([], (0,), (0, 4))
    masks, scores, rles, boxes = post_process_for_mask_generation(rles, scores, boxes, 0.7)
    assert (masks, rles, scores.shape, boxes.shape) == ([], [], (0,), (0, 4))
    assert post_process_for_mask_generation([], [], [], 0.7)[3].shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 2, 5, 5)), np.zeros((1, 3)), (5, 5), (0, 0, 5, 5)), r"iou_scores must be \(1, 2\)"),
        ((np.zeros((2, 5, 5)), np.zeros(2), (5, 5), (0, 0, 5, 5)), r"masks must be .* got \(2, 5, 5\)"),
        ((np.zeros((1, 1, 5, 5)), np.zeros((1, 1)), (9, 9), (0, 0, 9, 9)), "masks must be .* 9, 9"),
        (
            (np.zeros((1, 1, 5, 5)), np.zeros((1, 1)), (5, 5), (2, 2, 7, 7)),
            "must lie in the picture of 5 x 5",
        ),
        (
            (np.zeros((1, 1, 5, 5)), np.zeros((1, 1)), 5, (0, 0, 5, 5)),
            r"original_size must be \(height, width",
        ),
        ((np.zeros((1, 1, 5, 5)), np.zeros((1, 1)), (5, 5), "all"), "cropped_box_image must be"),
    ],
)
def test_shapes_that_disagree_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_masks(*arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pred_iou_thresh", None),
        ("pred_iou_thresh", 80),
        ("pred_iou_thresh", float("nan")),
        ("stability_score_thresh", None),
        ("stability_score_thresh", 2),
        ("mask_threshold", None),
        ("mask_threshold", "0"),
        ("stability_score_offset", None),
        ("stability_score_offset", -1),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number"):
        filter_masks(np.zeros((1, 1, 5, 5)), np.zeros((1, 1)), (5, 5), (0, 0, 5, 5), **{name: value})


@pytest.mark.parametrize("threshold", [None, -0.1, 1.5, float("nan"), "0.7", True])
def test_suppression_is_never_switched_off_by_a_threshold_that_is_none(threshold: Any) -> None:
    with pytest.raises(ValueError, match="crops_nms_thresh must be a number from 0 to 1; got"):
        post_process_for_mask_generation([], [], [], threshold)


def test_the_better_of_overlapping_masks_stay() -> None:
    masks = [square(50, 50, y, 10) > 0 for y in (10, 11, 30)]
    rles = [encode_rle(mask) for mask in masks]
    boxes = np.array([[10, 10, 19, 19], [10, 11, 19, 20], [10, 30, 19, 39]])
    kept, scores, kept_rles, kept_boxes = post_process_for_mask_generation(rles, [0.8, 0.9, 0.7], boxes, 0.7)
    np.testing.assert_array_equal(kept, np.stack([masks[1], masks[2]]))
    assert scores.tolist() == [0.9, 0.7]
    assert kept_rles == [rles[1], rles[2]]
    np.testing.assert_array_equal(kept_boxes, boxes[[1, 2]])
    with pytest.raises(ValueError, match="must be of the same masks; got 3, 2 and 3"):
        post_process_for_mask_generation(rles, [0.8, 0.9], boxes, 0.7)
