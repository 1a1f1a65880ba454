"""Resizing is torch's, bit for bit; upscaling is torch's to rounding."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")

import numpy as np
import torch

from sam2_jax.processing.masks import upscale
from sam2_jax.processing.resampling import resize

SHAPES = [
    ((1200, 1800), (1024, 1024)),
    ((534, 800), (1024, 1024)),
    ((1800, 1200), (512, 512)),
    ((30, 400), (64, 96)),
    ((1, 7), (64, 64)),
    ((2000, 1), (128, 128)),
    ((333, 777), (100, 1000)),
    ((1024, 512), (1024, 1024)),
    ((5000, 40), (64, 64)),
    ((64, 64), (64, 64)),
]


@pytest.mark.parametrize(("size", "target"), SHAPES, ids=str)
def test_resize_equals_torch_bit_for_bit(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image[: size[0] // 4] = np.where(image[: size[0] // 4] > 127, 255, 0)  # saturated edges clip
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, target, mode="bilinear", antialias=True)
    np.testing.assert_array_equal(resize(image, *target), expected[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(1200, 1800), (100, 30), (32, 32), (7, 500)], ids=str)
def test_upscale_equals_torch(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits), size, mode="bilinear")
    np.testing.assert_allclose(upscale(logits, *size), expected.numpy(), atol=2e-5)
