"""Mask logits of the network to masks of the pictures' own size."""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_flag, read_float32
from sam2_jax.processing.components import fill_holes_and_remove_sprinkles, read_area
from sam2_jax.processing.inputs import Size, read_sizes
from sam2_jax.processing.masks import apply_non_overlapping_constraints as keep_apart
from sam2_jax.processing.masks import read_level, upscale


def post_process_masks(
    masks: Any,
    original_sizes: Any,
    mask_threshold: float | None = 0.0,
    binarize: bool | None = True,
    max_hole_area: float | None = 0.0,
    max_sprinkle_area: float | None = 0.0,
    apply_non_overlapping_constraints: bool | None = False,
    *,
    reshaped_input_sizes: Any = None,
) -> list[np.ndarray]:
    """Bring mask logits to each picture's size: a list of [P, M, H, W], bool or, not binarized, float32.

    masks: logits [B, P, M, h, w], or a list of [P, M, h, w], numpy's or JAX's; they are not altered.
    original_sizes: (height, width) of each picture. mask_threshold: logits above it are inside.
    max_hole_area, max_sprinkle_area: background enclosed or loose patches up to so many pixels of the
    logits (not of the picture), 8-connected, change sides, as with Meta's SAM2ImagePredictor.
    apply_non_overlapping_constraints: each pixel belongs to the object with the highest logit alone.
    reshaped_input_sizes is accepted and unused, as in transformers: there is no padding to remove.
    None is as if it were not given. Raises ValueError for wrong shapes, types or numbers.
    """
    sizes = read_sizes(original_sizes)
    threshold = read_level("mask_threshold", mask_threshold)
    hole = read_area("max_hole_area", max_hole_area)
    sprinkle = read_area("max_sprinkle_area", max_sprinkle_area)
    is_binary = binarize is None or read_flag("binarize", binarize)
    is_apart = apply_non_overlapping_constraints is not None and read_flag(
        "apply_non_overlapping_constraints", apply_non_overlapping_constraints
    )
    if not isinstance(masks, (list, tuple)) and getattr(masks, "ndim", 0) == 0:
        raise ValueError(f"masks must be the model's logits; got {type(masks).__name__}")
    if len(masks) != len(sizes):
        raise ValueError(f"original_sizes must be for {len(masks)} images, as masks are; got {len(sizes)}")

    def to_picture(logits: np.ndarray, size: Size) -> np.ndarray:
        """Logits [P, M, h, w] at the picture's size."""
        full = upscale(logits, *size)
        if is_apart:
            full = keep_apart(full, threshold)
        return full > threshold if is_binary else full

    out = []
    for i, (mask, size) in enumerate(zip(masks, sizes, strict=True)):
        logits = fill_holes_and_remove_sprinkles(_read_logits(mask, i), threshold, hole, sprinkle)
        # Objects that do not depend on each other are upscaled one by one: their logits at the picture's
        # size are far larger than anything else here.
        step = max(len(logits), 1) if is_apart else 1
        full = np.empty((*logits.shape[:2], *size), bool if is_binary else np.float32)
        for p in range(0, len(logits), step):
            full[p : p + step] = to_picture(logits[p : p + step], size)
        out.append(full)
    return out


def _read_logits(mask: Any, image: int) -> np.ndarray:
    """Logits of one image as float32 [P, M, h, w]; raises ValueError for other shapes and for masks."""
    expected = "the model's logits, [objects, masks, height, width] of floating point for each image"
    logits = read_array("masks", mask, expected)
    is_float = logits.dtype.kind == "f" or logits.dtype.name == "bfloat16"
    if logits.ndim != 4 or 0 in logits.shape[2:] or not is_float:
        raise ValueError(
            f"masks must be {expected}; image {image} has shape {logits.shape} and type {logits.dtype}"
        )
    return read_float32("masks", logits, expected)
