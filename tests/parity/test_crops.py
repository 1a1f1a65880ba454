"""Crops and the choice of masks are transformers', but for the grid of points, which is right here."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("torchvision", reason="transformers' image processor needs torchvision and the shim")
pytest.importorskip("transformers", reason="parity needs transformers")

import numpy as np
import torch
import transformers
from scipy import ndimage
from torchvision.ops import nms

from sam2_jax.processing.boxes import mask_to_boxes, non_maximum_suppression
from sam2_jax.processing.crops import filter_masks, generate_crop_boxes, post_process_for_mask_generation

theirs = transformers.Sam2ImageProcessor()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def smooth_masks(seed: int, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Logits of smooth bumps anywhere, large and small, steep and shallow; one mask is empty, one full."""
    rng = np.random.default_rng(seed)
    count, (height, width) = (*shape[:2], 1, 1), shape[2:]
    y, x = np.indices((height, width), np.float32)
    distance = np.hypot(y - rng.uniform(0, height, count), x - rng.uniform(0, width, count))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 0, 4, 4))
    masks = rng.choice([0.1, 1, 20], count) * (rng.uniform(3, height / 2, count) - distance + 20 * noise)
    masks[0, 0], masks[-1, -1] = -9, 9
    return masks.astype(np.float32)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("size", [(96, 96), (120, 181), (257, 64)], ids=str)
def test_crop_boxes_and_crops_are_transformers(size: tuple[int, int], layers: int) -> None:
    photo = picture(*size)
    boxes, points, crops, labels = generate_crop_boxes(photo, 1024, layers, points_per_crop=5)
    expected_boxes, expected_points, expected_crops, expected_labels = theirs.generate_crop_boxes(
        photo, 1024, layers, points_per_crop=5
    )
    np.testing.assert_array_equal(boxes, expected_boxes.numpy())
    np.testing.assert_array_equal(labels, expected_labels.numpy())
    assert points.shape == expected_points.shape
    assert len(crops) == len(expected_crops)
    for crop, expected in zip(crops, expected_crops, strict=True):
        np.testing.assert_array_equal(crop, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_crop_boxes_of_other_overlaps_are_transformers(overlap: float) -> None:
    photo = picture(75, 133)
    ours = generate_crop_boxes(photo, 64, 2, overlap)[0]
    np.testing.assert_array_equal(ours, theirs.generate_crop_boxes(photo, 64, 2, overlap)[0].numpy())


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("side", [32, 7])
def test_points_of_square_pictures_are_transformers(layers: int, side: int) -> None:
    ours = generate_crop_boxes(picture(96, 96), 1024, layers, points_per_crop=side)[1]
    expected = theirs.generate_crop_boxes(picture(96, 96), 1024, layers, points_per_crop=side)[1].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(120, 180), (180, 120)], ids=str)
def test_defect_9a1_points_cover_pictures_that_are_not_square(size: tuple[int, int]) -> None:
    """The reference scales points to the longest side, but stretches the picture to both."""
    short = size.index(120)  # of (y, x)
    axis = 1 - short  # of (x, y)
    ours = generate_crop_boxes(picture(*size), 1024, 1)[1]
    expected = theirs.generate_crop_boxes(picture(*size), 1024, 1)[1].numpy()
    assert ours.min() == 16
    assert (ours.max(axis=(0, 1)) == 1008).all()
    assert expected[..., axis].max() < 750  # a quarter of the picture is never asked about
    np.testing.assert_allclose(ours[..., 1 - axis], expected[..., 1 - axis], rtol=1e-6)


@pytest.mark.parametrize(
    ("crop", "thresholds"),
    [
        ((0, 0, 150, 100), (0.5, 0.8)),
        ((0, 0, 150, 100), (0.88, 0.95)),
        ((0, 0, 150, 100), (-1.0, 0.3)),
        ((50, 30, 150, 100), (0.3, 0.5)),
        ((20, 0, 110, 80), (0.0, 0.6)),
        ((20, 10, 110, 80), (0.2, 0.0)),
    ],
)
@pytest.mark.parametrize(("threshold", "offset"), [(0, 1), (-0.5, 2.5)])
def test_chosen_masks_are_transformers(
    crop: tuple[int, int, int, int], thresholds: tuple[float, float], threshold: float, offset: float
) -> None:
    x0, y0, x1, y1 = crop
    masks = smooth_masks(x0, (40, 3, y1 - y0, x1 - x0))
    scores = np.random.default_rng(1).random((40, 3), np.float32)
    rles, kept, boxes = filter_masks(masks, scores, (100, 150), crop, *thresholds, threshold, offset)
    expected = theirs.filter_masks(
        torch.from_numpy(masks), torch.from_numpy(scores), (100, 150), crop, *thresholds, threshold, offset
    )
    assert 0 < len(rles) < 120
    assert rles == expected[0]
    np.testing.assert_array_equal(kept, expected[1].numpy())
    np.testing.assert_array_equal(boxes, expected[2].numpy())


@pytest.mark.parametrize("nms_threshold", [0.3, 0.7])
def test_masks_left_after_suppression_are_transformers(nms_threshold: float) -> None:
    masks = smooth_masks(0, (30, 3, 100, 150))
    scores = np.random.default_rng(1).random((30, 3), np.float32)
    found = filter_masks(masks, scores, (100, 150), (0, 0, 150, 100), 0.1, 0.3)
    ours = post_process_for_mask_generation(*found, nms_threshold)
    expected = theirs.post_process_for_mask_generation(
        found[0], torch.from_numpy(found[1]), torch.from_numpy(found[2]), nms_threshold
    )
    assert 5 < len(ours[0]) < len(found[0])
    np.testing.assert_array_equal(ours[0], torch.stack(expected[0]).numpy())
    np.testing.assert_array_equal(ours[1], expected[1].numpy())
    assert ours[2] == expected[2]
    np.testing.assert_array_equal(ours[3], expected[3].numpy())


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.5, 0.7])
def test_suppression_is_torchvisions(threshold: float) -> None:
    """Among boxes of small whole numbers many overlaps are equal, some to the threshold, and scores tie."""
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 20, (300, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 11, (300, 2))], axis=1).astype(np.float32)
    scores = (rng.integers(0, 50, 300) / 50).astype(np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).numpy()
    np.testing.assert_array_equal(non_maximum_suppression(boxes, scores, threshold), expected)


def test_boxes_of_masks_are_transformers() -> None:
    from transformers.models.sam2.image_processing_sam2 import _batched_mask_to_box

    masks = smooth_masks(5, (6, 3, 40, 50)) > 0
    np.testing.assert_array_equal(mask_to_boxes(masks), _batched_mask_to_box(torch.from_numpy(masks)).numpy())
