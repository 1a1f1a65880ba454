"""A small video network with random weights, and clips for it."""

from functools import lru_cache
from typing import Any

import numpy as np
from small_models import random_tensors, smallest_video_config

from sam2_jax import Sam2VideoConfig, Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.video.results import FrameMasks

SIDE = 64


def video_model_of(config: Sam2VideoConfig) -> Sam2VideoModel:
    """A model with random weights; objects are mostly there."""
    flat = names.to_flax(random_tensors(config))
    bias = "mask_decoder.pred_obj_score_head.proj_out.bias"
    flat[bias] = np.full_like(flat[bias], 1.5)
    return Sam2VideoModel(config, names.unflatten(flat))


@lru_cache
def small_video_model() -> Sam2VideoModel:
    """The one that tests share."""
    return video_model_of(smallest_video_config())


def small_clip(frames: int = 12, seed: int = 0) -> np.ndarray:
    """Pictures of a square that moves over noise, uint8 [frames, 64, 64, 3]."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 120, (SIDE, SIDE, 3))
    clip = np.repeat(ground[None], frames, axis=0) + rng.integers(0, 20, (frames, SIDE, SIDE, 3))
    for t in range(frames):
        x = 6 + (3 * t) % 40
        clip[t, 20:40, x : x + 16] = (230, 180, 60)
    return clip.astype(np.uint8)


def stacked(yields: Any) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Frames, logits [F, P, h, w], presence and IoU [F, P] of a run."""
    found: list[FrameMasks] = list(yields)
    return (
        [each.frame for each in found],
        np.array([each.logits for each in found]),
        np.array([each.object_scores for each in found]),
        np.array([each.scores for each in found]),
    )


def assert_same(one: Any, other: Any, limit: float = 0.0) -> None:
    """Runs of the same frames, equal to the bit or within an absolute limit."""
    assert one[0] == other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        assert a.shape == b.shape
        assert float(np.abs(a - b).max(initial=0)) <= limit
