"""Automatic masks beside transformers' pipeline, on a square photo, where its grid is right."""

from pathlib import Path

import numpy as np
import pytest

from parity.oracle import transformers  # skips without torch
from sam2_jax import pipeline
from sam2_jax.processing.images import open_image

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision", reason="transformers' image processor needs torchvision")


@pytest.mark.slow
def test_the_pipeline_equals_transformers(reference_dir: Path) -> None:
    folder = reference_dir / "weights" / "sam2-hiera-tiny-image"
    square = open_image(reference_dir / "images" / "truck.jpg").crop((500, 100, 1500, 1100))
    options = {"points_per_crop": 8, "points_per_batch": 64, "pred_iou_thresh": 0.8}
    theirs = transformers.pipeline("mask-generation", model=str(folder), device="cpu")
    expected = theirs(square, output_bboxes_mask=True, output_rle_mask=True, **options)
    found = pipeline("mask-generation", folder, **options)(
        square, output_bboxes_mask=True, output_rle_mask=True
    )
    assert len(found["masks"]) == len(expected["masks"]) > 5
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["bounding_boxes"], expected["bounding_boxes"], atol=1)
    assert found["rle_mask"][0].keys() == expected["rle_mask"][0].keys()
    for ours, mask in zip(found["masks"], expected["masks"], strict=True):
        mask = np.asarray(mask)
        assert np.count_nonzero(ours & mask) >= 0.999 * np.count_nonzero(ours | mask)
