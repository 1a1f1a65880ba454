"""Masks judged in windows of the photo equal those judged whole; suppression; small regions."""

import numpy as np
import pytest
from scipy import ndimage

from sam2_jax.processing.boxes import mask_to_boxes
from sam2_jax.processing.candidates import (
    Candidate,
    best_of_crop,
    best_of_crops,
    clean,
    judge,
    remove_small_regions,
)
from sam2_jax.processing.masks import stability_score, upscale, window_above
from sam2_jax.processing.rle import decode_rle, encode_rle

SIZES = [(120, 180), (33, 200), (64, 64), (7, 5), (1, 1), (300, 20)]


def blobs(seed: int, side: int = 32) -> np.ndarray:
    """Logits of a few soft blobs, low in between."""
    noise = np.random.default_rng(seed).standard_normal((side, side))
    smooth = ndimage.gaussian_filter(noise, 2)
    return (40 * smooth - 4).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threshold", [0.0, 2.0, -1.5])
def test_a_window_holds_all_that_is_above_a_level(size: tuple[int, int], threshold: float) -> None:
    for seed in range(6):
        logits = blobs(seed)
        full = upscale(logits, *size)
        window = window_above(logits, threshold, *size)
        outside = np.ones(size, bool)
        if window is not None:
            outside[window] = False
            np.testing.assert_array_equal(upscale(logits, *size, window), full[window])
        assert not (full[outside] > threshold).any()


@pytest.mark.parametrize("size", SIZES)
def test_stability_and_box_are_those_of_the_whole(size: tuple[int, int]) -> None:
    for seed in range(8):
        logits = blobs(seed)
        full = upscale(logits, *size)
        stability, box = judge(logits, size, 0.5, 1.0)
        assert stability == stability_score(full, 0.5, 1.0)
        np.testing.assert_array_equal(box, mask_to_boxes(full > 0.5))


def test_a_window_is_small_where_the_mask_is() -> None:
    logits = np.full((64, 64), -9, np.float32)
    logits[10:14, 40:44] = 9
    rows, columns = window_above(logits, 0, 640, 640)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (50, 50)


def test_nothing_above_has_no_window_and_no_stability() -> None:
    assert window_above(np.full((8, 8), -3, np.float32), 0, 20, 20) is None
    stability, box = judge(np.full((8, 8), -3, np.float32), (20, 20), 0, 1)
    assert stability == 0
    assert box.tolist() == [0, 0, 0, 0]


def candidate(box: list[int], score: float, crop: tuple[int, int, int, int] = (0, 0, 40, 30)) -> Candidate:
    return Candidate(blobs(0), score, (1.0, 1.0), 1.0, np.array(box), crop)


def test_a_mask_is_drawn_where_its_crop_lies() -> None:
    crop = (10, 5, 30, 25)
    mask = Candidate(blobs(3), 0.9, (0, 0), 1.0, np.zeros(4), crop).mask((30, 40), 0.0)
    expected = np.zeros((30, 40), bool)
    expected[5:25, 10:30] = upscale(blobs(3), 20, 20) > 0
    np.testing.assert_array_equal(mask, expected)


def test_within_a_crop_the_higher_score_stays() -> None:
    masks = [candidate([0, 0, 10, 10], 0.8), candidate([0, 0, 10, 9], 0.9), candidate([20, 20, 30, 30], 0.7)]
    assert best_of_crop(masks, 0.7) == [masks[1], masks[2]]


def test_between_crops_the_smaller_crop_s_mask_stays() -> None:
    """Defect 9.A 3: the reference prefers the higher score, so that masks of crops hardly come through."""
    whole, part = candidate([0, 0, 10, 10], 0.95), candidate([0, 0, 10, 9], 0.9, (0, 0, 20, 20))
    assert best_of_crops([whole, part], 0.7) == [part]


def test_small_holes_are_filled_and_small_islands_removed() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[4:6, 4:6] = False  # a hole of 4
    mask[8, 8] = False  # of 1, which touches the next by a corner: together 2
    mask[9, 9] = False
    mask[16, 16] = True  # an island of 1
    mask[15:18, 2:5] = True  # of 9
    cleaned = remove_small_regions(mask, 4)
    expected = mask.copy()
    expected[8, 8] = expected[9, 9] = True
    expected[16, 16] = False
    np.testing.assert_array_equal(cleaned, expected)
    assert remove_small_regions(mask, 5)[4:6, 4:6].all()


def test_the_largest_island_stays_even_if_it_is_small() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1, 1] = mask[5, 5:7] = True
    cleaned = remove_small_regions(mask, 20)
    assert np.argwhere(cleaned).tolist() == [[5, 5], [5, 6]]
    assert not remove_small_regions(np.zeros((9, 9), bool), 20).any()


def test_a_clean_mask_is_left_as_it_is() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    assert remove_small_regions(mask, 50) is mask


def test_of_masks_that_cleaning_made_alike_the_untouched_one_stays() -> None:
    large, dotted, other = np.zeros((3, 30, 30), bool)
    large[2:12, 2:12] = dotted[2:12, 2:12] = True
    dotted[28, 28] = True
    other[20:29, 3:9] = True
    kept = clean([encode_rle(mask) for mask in (dotted, large, other)], 4, 0.7)
    assert [i for i, _, _ in kept] == [1, 2]
    assert [box.tolist() for _, _, box in kept] == [[2, 2, 11, 11], [3, 20, 8, 28]]
    np.testing.assert_array_equal(decode_rle(kept[0][1]), large)


def test_a_cleaned_mask_has_new_run_lengths_and_a_new_box() -> None:
    mask = np.zeros((30, 30), bool)
    mask[2:12, 2:12] = True
    expected = encode_rle(mask, compressed=True)
    mask[28, 28] = True
    ((_, rle, box),) = clean([encode_rle(mask)], 4, 0.7)
    assert rle == expected
    assert box.tolist() == [2, 2, 11, 11]


def test_thresholds_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1; got None"):
        best_of_crop([candidate([0, 0, 9, 9], 0.5)], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1; got None"):
        best_of_crops([], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="area must be a number of at least 0; got None"):
        remove_small_regions(np.zeros((3, 3), bool), None)  # type: ignore[arg-type]
