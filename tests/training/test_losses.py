"""Losses of training: their formulas in numpy, and who learns what from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.training.losses import (
    Losses,
    LossWeights,
    dice_loss,
    focal_loss,
    mask_iou,
    segmentation_losses,
)

RNG = np.random.default_rng(0)
# Two pictures with three objects each, four masks of each: the single one and the three of a click.
LOGITS = (3 * RNG.standard_normal((2, 3, 4, 6, 8))).astype(np.float32)
SCORES = RNG.uniform(0.05, 0.95, (2, 3, 4)).astype(np.float32)
PRESENCE = RNG.standard_normal((2, 3, 1)).astype(np.float32)
SHARES = (RNG.uniform(0, 1, (2, 3, 6, 8)) * (RNG.uniform(0, 1, (2, 3, 6, 8)) < 0.6)).astype(np.float32)
LOGITS[:, 0, 0] = np.where(SHARES[:, 0] > 0.5, 4, -4)  # some masks are good
SINGLES = np.broadcast_to([True, False, False, False], (2, 3, 4))
ALL_THERE = np.ones((2, 3), bool)


def prediction_of(masks: Any = LOGITS, scores: Any = SCORES, presence: Any = PRESENCE) -> MaskPrediction:
    """Outputs of the decoder; the losses do not look at tokens."""
    return MaskPrediction(*map(jnp.asarray, (masks, scores, np.zeros((2, 3, 4, 1), np.float32), presence)))


def losses_of(*of: Any, weights: LossWeights = LossWeights()) -> Losses:  # noqa: B008
    return _losses_and_gradients(*of, _floats(weights))[0]


def gradients_of(*of: Any, weights: LossWeights = LossWeights()) -> MaskPrediction:  # noqa: B008
    """The total's gradient by the prediction, in its form."""
    return _losses_and_gradients(*of, _floats(weights))[1]


def _floats(weights: LossWeights) -> LossWeights:
    """The same weights, of one type, for which one program is enough."""
    return LossWeights(*map(np.float32, weights))


@jax.jit
def _losses_and_gradients(prediction: MaskPrediction, *rest: Any) -> tuple[Losses, MaskPrediction]:
    def total(prediction: MaskPrediction) -> tuple[jax.Array, Losses]:
        losses = segmentation_losses(prediction, *rest)
        return losses.total, losses

    gradient, losses = jax.grad(total, has_aux=True)(prediction)
    return losses, gradient


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def numpy_focal(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Focal loss of alpha 0.25 and gamma 2, in float64."""
    p, t = sigmoid(logits), targets.astype(np.float64)
    cross_entropy = -t * np.log(p) - (1 - t) * np.log(1 - p)
    wrong = p * (1 - t) + (1 - p) * t
    return (cross_entropy * wrong**2 * (0.25 * t + 0.75 * (1 - t))).mean(axis=(-2, -1))


def numpy_dice(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Smoothed dice loss, in float64."""
    p, t = sigmoid(logits), targets.astype(np.float64)
    both, sums = (p * t).sum(axis=(-2, -1)), p.sum(axis=(-2, -1)) + t.sum(axis=(-2, -1))
    return 1 - (2 * both + 1) / (sums + 1)


@pytest.mark.parametrize("targets", [SHARES, (SHARES > 0.5).astype(np.float32)], ids=["shares", "whole"])
def test_focal_and_dice_are_the_formulas(targets: np.ndarray) -> None:
    every = np.broadcast_to(targets[:, :, None], LOGITS.shape)
    np.testing.assert_allclose(jax.jit(focal_loss)(LOGITS, every), numpy_focal(LOGITS, every), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(dice_loss)(LOGITS, every), numpy_dice(LOGITS, every), rtol=1e-5)


def test_focal_loss_of_an_undecided_logit_is_a_quarter_of_its_weighted_cross_entropy() -> None:
    targets = jnp.array([[[1.0]], [[0.0]]])
    expected = 0.25 * np.log(2) * np.array([0.25, 0.75])
    np.testing.assert_allclose(jax.jit(focal_loss)(jnp.zeros((2, 1, 1)), targets), expected, rtol=1e-6)


def test_dice_loss_is_smoothed_by_one() -> None:
    """Of two cells one is taken for sure: where the object is, where it is not, and where there is none."""
    logits = jnp.array([[[100.0, -100.0]]] * 3)
    targets = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    np.testing.assert_allclose(jax.jit(dice_loss)(logits, targets), [0, 1 - 1 / 3, 1 - 1 / 2], atol=1e-6)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_losses_and_gradients_stay_finite_at_logits_beyond_all_doubt(loss: Any) -> None:
    logits = jnp.array([[[-1e4, 1e4, -200.0, 200.0]]])
    value_and_gradient = jax.jit(jax.value_and_grad(lambda logits, targets: loss(logits, targets).sum()))
    for targets in (jnp.array([[[0.0, 1.0, 0.0, 1.0]]]), jnp.array([[[1.0, 0.0, 1.0, 0.0]]])):
        value, gradient = value_and_gradient(logits, targets)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_iou_of_masks() -> None:
    masks = jnp.array([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]], bool)
    others = jnp.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]], [[0, 0, 0, 0]]], bool)
    np.testing.assert_allclose(mask_iou(masks, others), [1, 1 / 3, 0, 0])


def test_parts_are_means_over_objects() -> None:
    losses = losses_of(prediction_of(), SHARES, SINGLES, ALL_THERE)
    single, every = LOGITS[:, :, 0], SHARES
    np.testing.assert_allclose(losses.focal, numpy_focal(single, every).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.dice, numpy_dice(single, every).mean(), rtol=1e-5)
    overlap = ((single > 0) & (every > 0.5)).sum(axis=(2, 3)) / ((single > 0) | (every > 0.5)).sum(
        axis=(2, 3)
    )
    np.testing.assert_allclose(losses.iou, np.abs(SCORES[..., 0] - overlap).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.presence, -np.log(sigmoid(PRESENCE)).mean(), rtol=1e-5)


@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(2, 3, 5, 7)])
def test_the_total_is_the_weighted_sum_of_the_parts(weights: LossWeights) -> None:
    losses = losses_of(prediction_of(), SHARES, SINGLES, ALL_THERE, weights=weights)
    parts = losses.focal, losses.dice, losses.iou, losses.presence
    np.testing.assert_allclose(losses.total, np.dot(weights, parts), rtol=1e-6)


def test_default_weights_are_those_of_sam_2() -> None:
    assert LossWeights() == (20, 1, 1, 1)


@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(focal=0), LossWeights(dice=0)])
def test_of_an_ambiguous_click_the_candidate_of_the_least_weighted_error_counts(weights: LossWeights) -> None:
    every = np.broadcast_to(SHARES[:, :, None], LOGITS.shape)
    focal, dice = numpy_focal(LOGITS, every), numpy_dice(LOGITS, every)
    error = weights.focal * focal + weights.dice * dice
    assert (error[..., 0] < error[..., 1:].min(axis=-1)).any(), "the single mask must tempt"
    best = 1 + error[..., 1:].argmin(axis=-1)
    losses = losses_of(prediction_of(), SHARES, ~SINGLES, ALL_THERE, weights=weights)
    for actual, loss in ((losses.focal, focal), (losses.dice, dice)):
        expected = np.take_along_axis(loss, best[..., None], axis=-1).mean()
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    gradient = gradients_of(prediction_of(), SHARES, ~SINGLES, ALL_THERE, weights=weights).masks
    learning = np.asarray(gradient != 0).any(axis=(-2, -1))
    np.testing.assert_array_equal(learning, np.arange(4) == best[..., None])


def test_focal_and_dice_differ_on_which_candidate_is_best() -> None:
    """Else the test above could not tell weights apart."""
    every = np.broadcast_to(SHARES[:, :, None], LOGITS.shape)[:, :, 1:]
    focal, dice = numpy_focal(LOGITS[:, :, 1:], every), numpy_dice(LOGITS[:, :, 1:], every)
    assert (focal.argmin(axis=-1) != dice.argmin(axis=-1)).any()


@pytest.mark.parametrize("candidates", [SINGLES, ~SINGLES], ids=["single", "three"])
def test_predicted_iou_of_all_candidates_learns_and_of_no_other(candidates: np.ndarray) -> None:
    gradient = gradients_of(prediction_of(), SHARES, candidates, ALL_THERE).iou_scores
    share = 1 / candidates.sum(axis=-1, keepdims=True) / ALL_THERE.sum()
    np.testing.assert_allclose(np.abs(gradient), candidates * share, rtol=1e-6)


def test_masks_learn_nothing_from_their_predicted_iou() -> None:
    weights = LossWeights(focal=0, dice=0, iou=1, presence=0)
    assert not gradients_of(prediction_of(), SHARES, SINGLES, ALL_THERE, weights=weights).masks.any()


def test_actual_iou_counts_cells_that_are_more_than_half_covered() -> None:
    logits = np.where(np.arange(8) < 4, 1.0, -1.0) * np.ones(LOGITS.shape, np.float32)
    shares = np.where(np.arange(8) < 2, 0.51, np.where(np.arange(8) < 6, 0.5, 0)) * np.ones(SHARES.shape)
    scores = np.full_like(SCORES, 0.5)  # two of four
    losses = losses_of(prediction_of(logits, scores), shares.astype(np.float32), SINGLES, ALL_THERE)
    assert losses.iou == 0


def test_an_object_that_is_not_there_learns_its_absence_only() -> None:
    targets = SHARES.copy()
    targets[1, 2] = 0
    gradient = gradients_of(prediction_of(), targets, ~SINGLES, ALL_THERE)
    assert not gradient.masks[1, 2].any()
    assert not gradient.iou_scores[1, 2].any()
    np.testing.assert_allclose(gradient.object_score_logits[1, 2], sigmoid(PRESENCE[1, 2]) / 6, rtol=1e-5)
    np.testing.assert_allclose(
        gradient.object_score_logits[1, 1], (sigmoid(PRESENCE[1, 1]) - 1) / 6, rtol=1e-5
    )


def test_objects_that_are_not_there_count_as_objects() -> None:
    targets = SHARES.copy()
    targets[:, 1:] = 0
    losses = losses_of(prediction_of(), targets, SINGLES, ALL_THERE)
    expected = numpy_focal(LOGITS[:, 0, 0], SHARES[:, 0]).sum() / 6
    np.testing.assert_allclose(losses.focal, expected, rtol=1e-5)


def test_padding_neither_learns_nor_counts() -> None:
    is_object = np.array([[True, False, False], [True, True, False]])
    gradient = gradients_of(prediction_of(), SHARES, SINGLES, is_object)
    for part in (gradient.masks, gradient.iou_scores, gradient.object_score_logits):
        learning = np.asarray(part != 0).reshape(2, 3, -1).any(axis=-1)
        np.testing.assert_array_equal(learning, is_object)
    losses = losses_of(prediction_of(), SHARES, SINGLES, is_object)
    np.testing.assert_allclose(losses.dice, numpy_dice(LOGITS[:, :, 0], SHARES)[is_object].mean(), rtol=1e-5)


def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient() -> None:
    nobody = np.zeros((2, 3), bool)
    empty = np.zeros_like(SHARES)
    assert losses_of(prediction_of(), empty, SINGLES, nobody) == (0, 0, 0, 0, 0)
    for part in jax.tree.leaves(gradients_of(prediction_of(), empty, SINGLES, nobody)):
        assert not part.any()
