"""Mask logits and boxes of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam2_jax.processing.boxes import (
    bounding_box,
    mask_to_boxes,
    non_maximum_suppression,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from sam2_jax.processing.masks import apply_non_overlapping_constraints, stability_score, upscale


def test_upscale_is_bilinear_between_pixel_centres() -> None:
    out = upscale(np.array([[0.0, 4.0]]), 1, 8)
    np.testing.assert_allclose(out[0], [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    np.testing.assert_array_equal(upscale(np.array([[0.0], [4.0]]), 8, 1).T, out)
    assert out.dtype == np.float32


def test_upscale_of_many_masks_equals_each_alone() -> None:
    """They are worked on in bands of rows, one row at the least."""
    logits = np.random.default_rng(0).standard_normal((3, 70, 8, 8)).astype(np.float32)
    out = upscale(logits, 40, 1300)
    np.testing.assert_array_equal(out[1, 5], upscale(logits[1, 5], 40, 1300))
    assert upscale(logits[:0], 4, 4).shape == (0, 70, 4, 4)


def test_stability_is_the_share_of_the_area_that_a_shift_of_the_threshold_leaves() -> None:
    logits = np.array([[[-2, -0.5, 0.5, 1.5]], [[2, 2, 2, 2]], [[-5, -5, -5, -5]]], np.float32)
    np.testing.assert_array_equal(stability_score(logits), np.float32([1 / 3, 1, 0]))  # 0, not NaN
    np.testing.assert_array_equal(stability_score(logits, 0.75, 0.5), np.float32([1 / 2, 1, 0]))
    assert stability_score(logits).dtype == np.float32
    assert stability_score(logits[0]).shape == ()


def test_each_pixel_belongs_to_the_object_of_the_highest_logit() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3, 9, 7)).astype(np.float32)
    before = logits.copy()
    apart = apply_non_overlapping_constraints(logits)
    assert ((apart > 0).sum(axis=0) <= 1).all()
    np.testing.assert_array_equal(apart.max(axis=0), logits.max(axis=0))
    np.testing.assert_array_equal(np.sort(apart, axis=0)[:-1], -10)
    np.testing.assert_array_equal(logits, before)
    assert apart.dtype == np.float32


def test_of_equal_logits_the_first_object_wins() -> None:
    apart = apply_non_overlapping_constraints(np.zeros((3, 1, 1, 1), np.float32))
    assert apart.ravel().tolist() == [0, -10, -10]


def test_one_object_is_left_as_it_is() -> None:
    logits = np.ones((1, 3, 4, 4), np.float32)
    apart = apply_non_overlapping_constraints(logits)
    np.testing.assert_array_equal(apart, logits)
    assert not np.shares_memory(apart, logits)
    with pytest.raises(ValueError, match=r"\[objects, masks, height, width\] .* got shape \(3, 4, 4\)"):
        apply_non_overlapping_constraints(logits[0])


def test_objects_stay_apart_below_a_threshold_of_minus_ten() -> None:
    """The reference lowers the losers to -10, which is inside the mask at such a threshold."""
    logits = np.full((2, 1, 2, 2), 5, np.float32)
    apart = apply_non_overlapping_constraints(logits, mask_threshold=-12.0)
    assert ((apart > -12).sum(axis=0) == 1).all()
    assert apart.min() == -22


def test_bounding_box() -> None:
    mask = np.zeros((6, 9), bool)
    assert bounding_box(mask) == (0, 0, 0, 0)
    mask[2:4, 3:8] = True
    assert bounding_box(mask) == (3, 2, 5, 2)


@settings(max_examples=60)
@given(
    arrays.arrays(
        bool, st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(0, 7)), elements=st.booleans()
    )
)
def test_boxes_of_masks_hold_the_first_and_the_last_pixel(masks: np.ndarray) -> None:
    boxes = mask_to_boxes(masks)
    assert boxes.shape == (len(masks), 4)
    assert boxes.dtype == np.int64
    for mask, box in zip(masks, boxes, strict=True):
        y, x = np.nonzero(mask)
        expected = [x.min(), y.min(), x.max(), y.max()] if x.size else [0, 0, 0, 0]
        assert box.tolist() == expected
        np.testing.assert_array_equal(mask_to_boxes(mask), box)


def test_boxes_change_their_form_and_back() -> None:
    boxes = np.array([[[1, 2, 4, 8]], [[0, 0, 0, 0]]])
    before = boxes.copy()
    assert xyxy_to_xywh(boxes).tolist() == [[[1, 2, 3, 6]], [[0, 0, 0, 0]]]
    np.testing.assert_array_equal(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)
    np.testing.assert_array_equal(boxes, before)
    assert xyxy_to_xywh([1.5, 2, 4, 8]).tolist() == [1.5, 2, 2.5, 6]
    with pytest.raises(ValueError, match=r"boxes must be \[..., 4\]; got shape \(3,\)"):
        xywh_to_xyxy([1, 2, 3])
    with pytest.raises(ValueError, match=r"masks must be \[..., height, width\]; got shape \(3,\)"):
        mask_to_boxes([True, False, True])


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10], [2, 0, 12, 10]]
    assert non_maximum_suppression(boxes, [0.5, 0.6, 0.9, 0.8], 0.7).tolist() == [2, 1]
    assert non_maximum_suppression(boxes, [0.5, 0.6, 0.9, 0.8], 0.9).tolist() == [2, 3, 1, 0]
    assert non_maximum_suppression(boxes, [1, 1, 1, 1], 0.9).tolist() == [0, 1, 2, 3]  # ties stay in order


def test_suppression_at_its_edges() -> None:
    assert non_maximum_suppression(np.zeros((0, 4)), [], 0.5).tolist() == []
    half = [[0, 0, 10, 10], [0, 0, 10, 5]]
    assert non_maximum_suppression(half, [2, 1], 0.5).tolist() == [0, 1]  # exceeding is more than reaching
    assert non_maximum_suppression([[3, 3, 3, 3]] * 2, [2, 1], 0.5).tolist() == [0, 1]  # without area
    with pytest.raises(
        ValueError, match=r"boxes must be \[N, 4\] and scores \[N\]; got .*\(2, 4\) and \(1,\)"
    ):
        non_maximum_suppression(half, [1], 0.5)
    with pytest.raises(ValueError, match="must be numbers; got NaN"):
        non_maximum_suppression(half, [1, np.nan], 0.5)
