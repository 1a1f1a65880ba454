"""Small video networks with the reference outputs that were made with them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax import Sam2VideoConfig
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.checkpoint.reading import read_checkpoint
from sam2_jax.model.memory_bank import Plan

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


def forward_plan(config: Sam2VideoConfig, t: int, objects: int, num_frames: int) -> Plan:
    """What frame t > 0 sees of objects that were prompted on frame 0, when frames come in order."""
    ring, pointers = config.num_maskmem - 1, config.max_object_pointers_in_encoder - 1
    largest = min(num_frames, config.max_object_pointers_in_encoder) - 1
    row, valid = np.full(1 + ring, ring), np.zeros(1 + ring, bool)
    offset, pointer_valid = np.zeros(1 + pointers), np.zeros(1 + pointers, bool)
    valid[0] = pointer_valid[0] = True
    offset[0] = t
    for frame in range(max(1, t - ring), t):
        row[1 + frame % ring], valid[1 + frame % ring] = t - frame - 1, True
    for frame in range(max(1, t - largest), t):
        offset[1 + frame % pointers], pointer_valid[1 + frame % pointers] = t - frame, True

    def of_all(x: np.ndarray, dtype: Any) -> np.ndarray:
        return np.broadcast_to(x.astype(dtype), (objects, *x.shape))

    return Plan(
        of_all(row, np.int32),
        of_all(valid, bool),
        of_all(offset / np.float32(largest), np.float32),
        of_all(pointer_valid, bool),
        tracked=np.ones(objects, bool),
        slot=np.full(objects, 1 + t % ring, np.int32),
        pointer_slot=np.full(objects, 1 + t % pointers, np.int32),
    )
