"""J and F: by hand, and as the package vos-benchmark 0.1.0 has counted them on these sequences."""

import math

import numpy as np
import pytest

from sam2_jax.processing.measures import (
    ClipMeasures,
    Measures,
    contour_accuracy,
    mean,
    region_similarity,
)


def square(size: int, y: int, x: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_regions_by_hand() -> None:
    mask, truth = square(10, 0, 0, 4), square(10, 2, 0, 4)
    assert region_similarity(mask, truth) == 8 / 24
    assert region_similarity(mask, ~mask) == 0
    nothing = np.zeros((10, 10), bool)
    assert region_similarity(nothing, nothing) == 1
    assert region_similarity(nothing, truth) == region_similarity(truth, nothing) == 0


def test_contours_by_hand() -> None:
    # The diagonal is 42.4 pixels: contours may be one pixel apart. A square of 4 has a contour of 16 pixels.
    mask = square(30, 10, 10, 4)
    assert contour_accuracy(mask, square(30, 10, 11, 4)) == 1
    # Two to the right: of each contour's ring of 5 x 5, the outer column and the middle of the inner one are
    # too far from the other.
    assert contour_accuracy(mask, square(30, 10, 12, 4)) == 10 / 16
    assert contour_accuracy(mask, square(30, 20, 20, 4)) == 0
    nothing = np.zeros((30, 30), bool)
    assert contour_accuracy(nothing, nothing) == 1
    assert contour_accuracy(nothing, mask) == contour_accuracy(mask, nothing) == 0
    # A mask of the whole picture has no contour.
    assert contour_accuracy(~nothing, nothing) == 1
    assert contour_accuracy(~nothing, mask) == 0


def sequence(height: int, width: int, frames: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Label maps [T, H, W], a prediction and the truth: discs that move, vanish, overlap and leave."""
    y, x = np.mgrid[:height, :width]
    maps = np.zeros((2, frames, height, width), np.uint8)
    side = min(height, width)
    for which in (0, 1):
        for t in range(frames):
            for k in range(1, 5):
                absent = (k == 2 and t < 2) or (k == 3 and (t + which) % 3 == 0) or (k == 4 and which == 1)
                wobble = (which == 0) * side * 0.03 * ((t * k) % 4 - 1.5)
                centre_y = height * (0.15 * k + 0.06 * t) + wobble
                centre_x = width * (0.9 - 0.2 * k + 0.05 * t) - wobble
                radius = side * (0.12 + 0.03 * k) + wobble / 2
                if not absent:
                    maps[which, t][(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = k
    return maps[0], maps[1]


RECORDED = {
    (48, 64): {
        1: (0.6877623983797004, 0.6741844653779716),
        2: (0.731352552301245, 0.6894420569965409),
        3: (0.21506166495375129, 0.20159590355938062),
    },
    (120, 90): {
        1: (0.6942997370394193, 0.6307544449012119),
        2: (0.7169296659149117, 0.6124109434474315),
        3: (0.1932693377078352, 0.17861788854787078),
    },
    (37, 37): {
        1: (0.6696067570901059, 0.785566054172089),
        2: (0.6838878095252867, 0.7269934068125066),
        3: (0.16910031227182468, 0.22954537967535293),
    },
}


def counted(prediction: np.ndarray, truth: np.ndarray) -> dict[object, Measures]:
    measures = ClipMeasures()
    for found, true in zip(prediction, truth, strict=True):
        measures.add(*({k: labels == k for k in range(1, 5)} for labels in (found, true)))
    return measures.objects()


@pytest.mark.parametrize("size", RECORDED, ids=str)
def test_sequences_as_recorded(size: tuple[int, int]) -> None:
    found = counted(*sequence(*size))
    assert found.keys() == RECORDED[size].keys()
    for key, recorded in RECORDED[size].items():
        assert found[key] == pytest.approx(recorded, abs=1e-12)


@pytest.mark.parametrize("size", [(40, 61), (128, 31)], ids=str)
def test_sequences_beside_vos_benchmark(size: tuple[int, int]) -> None:
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator()
    prediction, truth = sequence(*size)
    for found, true in zip(prediction, truth, strict=True):
        evaluator.feed_frame(found, true)
    regions, contours = evaluator.conclude()
    for key, (j, f) in counted(prediction, truth).items():
        assert (100 * j, 100 * f) == pytest.approx((regions[key], contours[key]), abs=1e-9)


def test_frames_count_from_where_an_object_is_first_seen() -> None:
    measures, mask, nothing = ClipMeasures(), square(20, 5, 5, 6), np.zeros((20, 20), bool)
    measures.add({}, {"a": nothing})
    measures.add({"only predicted": mask}, {})
    measures.add({"a": mask}, {"a": mask, "b": mask})
    measures.add({}, {"a": mask})
    assert measures.objects() == {"a": (0.5, 0.5), "b": (0.5, 0.5)}
    assert mean(measures.objects().values()).jf == 0.5


def test_the_mean_of_nothing_is_no_number() -> None:
    assert all(math.isnan(number) for number in mean([]))


def test_bad_masks_are_refused() -> None:
    mask = square(8, 1, 1, 3)
    with pytest.raises(ValueError, match=r"of one shape; got \(8, 8\) and \(4, 4\)"):
        region_similarity(mask, mask[:4, :4])
    with pytest.raises(ValueError, match=r"mask must be bool \[height, width\]; got shape \(1, 8, 8\)"):
        contour_accuracy(mask[None], mask)
    with pytest.raises(ValueError, match="truth must be bool"):
        region_similarity(mask, "mask")
    with pytest.raises(ValueError, match=r"of one shape; got \[\(4, 4\), \(8, 8\)\]"):
        ClipMeasures().add({1: mask}, {1: mask[:4, :4]})
