"""Rung 3: prompts as tokens and as dense maps."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tolerances import assert_close

from parity.oracle import Pair, channels_last, their_steps, to_torch

POINTS = np.random.default_rng(4).uniform(0, 128, (2, 3, 4, 2)).astype(np.float32)
CORNERS = np.sort(np.random.default_rng(5).uniform(0, 128, (2, 3, 2, 2)), axis=2).astype(np.float32)
CORNER_LABELS = np.broadcast_to(np.array([2, 3]), (2, 3, 2))


def our_tokens(pair: Pair, points: np.ndarray, labels: np.ndarray) -> jax.Array:
    variables = {"params": pair.ours.params}
    return pair.ours.module.apply(variables, points, labels, None, (8, 8), method="encode_prompts")[0]


def their_tokens(pair: Pair, **prompts: np.ndarray) -> torch.Tensor:
    given = {"input_points": None, "input_labels": None, "input_boxes": None, "input_masks": None, **prompts}
    with torch.no_grad():
        return pair.theirs.prompt_encoder(**{name: to_torch(x) for name, x in given.items()})[0]


@pytest.mark.parametrize("label", [-10, -1, 0, 1, 2, 3])
def test_points_of_one_label(pair: Pair, label: int) -> None:
    labels = np.full((2, 3, 4), label)
    expected = their_tokens(pair, input_points=POINTS, input_labels=labels)
    assert_close("tokens", f"label {label}", our_tokens(pair, POINTS, labels), expected)


def test_points_of_mixed_labels(pair: Pair) -> None:
    labels = np.array(
        [[[1, 0, -1, -10], [2, 3, 1, 1], [-1, -1, 0, 1]], [[0, 0, 1, 1], [1, -10, -10, -10], [-10] * 4]]
    )
    expected = their_tokens(pair, input_points=POINTS, input_labels=labels)
    assert_close("tokens", "mixed labels", our_tokens(pair, POINTS, labels), expected)


def test_boxes_are_their_corners_with_labels_2_and_3(pair: Pair) -> None:
    expected = their_tokens(pair, input_boxes=CORNERS.reshape(2, 3, 4))
    assert_close("tokens", "boxes", our_tokens(pair, CORNERS, CORNER_LABELS), expected)


def test_points_and_boxes(pair: Pair) -> None:
    labels = np.array([[[1, 0, 1, 1]] * 3] * 2)
    expected = their_tokens(
        pair, input_points=POINTS, input_labels=labels, input_boxes=CORNERS.reshape(2, 3, 4)
    )
    points, labels = np.concatenate([POINTS, CORNERS], 2), np.concatenate([labels, CORNER_LABELS], 2)
    assert_close("tokens", "points and boxes", our_tokens(pair, points, labels), expected)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (128, 128), (50, 70), (20, 24), (16, 90)])
def test_mask_embedding_of_any_size(pair: Pair, pixels: np.ndarray, size: tuple[int, int]) -> None:
    masks = 5 * np.random.default_rng(6).standard_normal((2, 1, *size)).astype(np.float32)
    theirs = their_steps(pair.theirs, pixel_values=pixels, input_masks=masks)
    ours = pair.ours.module.apply(
        {"params": pair.ours.params}, POINTS, np.ones((2, 3, 4), int), masks, (8, 8), method="encode_prompts"
    )[2]
    _, expected = theirs.outputs["prompt_encoder"]
    assert_close("features", "mask embedding", ours[:, 0], channels_last(expected))


def test_no_mask_is_the_learnt_embedding_everywhere(pair: Pair) -> None:
    with torch.no_grad():
        _, expected = pair.theirs.prompt_encoder(to_torch(POINTS), torch.ones(2, 3, 4).int(), None, None)
    ours = pair.ours.module.apply(
        {"params": pair.ours.params}, POINTS, np.ones((2, 3, 4), int), None, (8, 8), method="encode_prompts"
    )[2]
    np.testing.assert_array_equal(np.broadcast_to(ours[:, 0], (2, 8, 8, 32)), channels_last(expected))


def test_masks_are_resized_as_torch_resizes_them() -> None:
    masks = np.random.default_rng(7).standard_normal((1, 1, 50, 20)).astype(np.float32)
    ours = jax.image.resize(masks, (1, 1, 32, 32), "bilinear", antialias=True)
    theirs = F.interpolate(to_torch(masks), (32, 32), mode="bilinear", align_corners=False, antialias=True)
    assert_close("features", "mask resize", ours, theirs)
