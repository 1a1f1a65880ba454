"""Small video networks with the reference outputs that were made with them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax import Sam2VideoConfig
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.checkpoint.reading import read_checkpoint

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@lru_cache
def load(folder: Path, name: str, image_size: int = 128) -> tuple[Sam2VideoConfig, Any]:
    """Configuration and parameters of the network called pub20 or pub21."""
    found = read_checkpoint(HubFolder(folder / "models" / name), kind=Sam2VideoConfig, dtype=np.float32)
    return found.config.with_image_size(image_size), names.unflatten(found.tensors)


def pixels(folder: Path, clip: str) -> np.ndarray:
    """A clip as the network takes it, [T, S, S, 3]."""
    frames = np.load(folder / "clips" / f"{clip}.npz")["frames"]
    return (frames.astype(np.float32) / 255 - MEAN) / STD
