"""Masks: upscaling, boxes, run lengths, pictures."""

import numpy as np
import pytest

from sam2_jax import Sam2Processor
from sam2_jax.processing.drawing import COLOURS, Drawn, overlay, side_by_side
from sam2_jax.processing.masks import bounding_box, decode_rle, encode_rle, upscale


def test_upscale_is_bilinear_between_pixel_centres() -> None:
    out = upscale(np.array([[0.0, 4.0]]), 1, 8)
    np.testing.assert_allclose(out[0], [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    assert out.dtype == np.float32


def test_post_process_masks_serves_each_photo_its_size() -> None:
    masks = np.random.default_rng(0).standard_normal((2, 3, 1, 8, 8)).astype(np.float32)
    out = Sam2Processor().post_process_masks(masks, [(30, 20), (16, 8)])
    assert [m.shape for m in out] == [(3, 1, 30, 20), (3, 1, 16, 8)]
    assert out[0].dtype == bool
    logits = Sam2Processor().post_process_masks(masks, [(30, 20), (16, 8)], binarize=False)
    np.testing.assert_array_equal(logits[1] > 0, out[1])
    with pytest.raises(ValueError, match="for 2 images, as masks are; got 1"):
        Sam2Processor().post_process_masks(masks, [(30, 20)])


@pytest.mark.parametrize("density", [0.0, 0.3, 0.7, 1.0])
def test_run_lengths_round_trip(density: float) -> None:
    mask = np.random.default_rng(1).random((7, 5)) < density
    rle = encode_rle(mask)
    assert sum(rle["counts"]) == 35
    np.testing.assert_array_equal(decode_rle(rle), mask)


def test_run_lengths_go_down_columns_and_begin_with_zeros() -> None:
    assert encode_rle(np.array([[1, 0], [1, 1]], bool)) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


def test_run_lengths_that_do_not_fill_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="must sum to 2 x 2 = 4; got 5"):
        decode_rle({"size": [2, 2], "counts": [2, 3]})


def test_bounding_box() -> None:
    mask = np.zeros((6, 9), bool)
    assert bounding_box(mask) == (0, 0, 0, 0)
    mask[2:4, 3:8] = True
    assert bounding_box(mask) == (3, 2, 5, 2)


def test_overlay_tints_inside_outlines_the_edge_and_leaves_the_rest() -> None:
    photo = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[20:35, 10:50] = True
    image = np.asarray(overlay(photo, [Drawn(mask, points=[(55, 5)], labels=[0])]))
    np.testing.assert_array_equal(image[20, 30], COLOURS[0])
    np.testing.assert_allclose(image[28, 30], 0.55 * 200 + 0.45 * np.array(COLOURS[0]), atol=1)
    np.testing.assert_array_equal(image[10, 10], photo[10, 10])
    assert (image[5, 50:60] != 200).any()  # the click is marked


def test_overlay_draws_small_objects_above_large_ones() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    large, small = np.ones((40, 60), bool), np.zeros((40, 60), bool)
    small[10:20, 10:20] = True
    first = np.asarray(overlay(photo, [Drawn(small), Drawn(large)]))
    np.testing.assert_array_equal(first[10, 10], COLOURS[0])


def test_overlay_of_an_empty_mask_changes_nothing() -> None:
    photo = np.full((40, 60, 3), 7, np.uint8)
    np.testing.assert_array_equal(overlay(photo, [Drawn(np.zeros((40, 60), bool), "empty")]), photo)


def test_side_by_side() -> None:
    image = overlay(np.zeros((4, 6, 3), np.uint8), [])
    assert side_by_side([image, image], gap=2).size == (14, 4)
