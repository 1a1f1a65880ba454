"""The inputs of the goldens: a small network, two images of noise, and one prompt of every kind."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from small_models import small_config

FOLDER = Path(__file__).parent
CONFIG = small_config(64)
PIXELS = np.random.default_rng(20).standard_normal((2, 64, 64, 3)).astype(np.float32)

_points = np.float32([[[[10, 20], [50, 40]], [[33.5, 0], [63, 63]]], [[[5, 5], [6, 7]], [[60, 1], [30, 31]]]])
_boxes = np.float32([[[4, 8, 40, 50], [0, 0, 64, 64]], [[30, 30, 31, 60], [12.5, 1, 50, 20]]])
_masks = (5 * np.random.default_rng(21).standard_normal((2, 1, 20, 24))).astype(np.float32)

PROMPTS = {
    "points": {"input_points": _points, "input_labels": np.array([[[1, 0], [1, 1]], [[0, -1], [1, 1]]])},
    "boxes": {"input_boxes": _boxes},
    "masks": {"input_masks": _masks},
}


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: names, shapes and every bit."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def key(output: str, multimask_output: bool) -> str:
    """Name in a golden file of a model's output."""
    return f"{output} {'multimask' if multimask_output else 'single'}"
