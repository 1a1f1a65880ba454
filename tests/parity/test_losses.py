"""Training: losses and their gradients, against Meta's formulas in torch."""

from functools import partial
from typing import Any

import pytest

pytest.importorskip("torch", reason="parity needs torch")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tolerances import assert_close

from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.training.losses import Losses, LossWeights, segmentation_losses

WEIGHTS = LossWeights(focal=20, dice=1, iou=1, presence=1)


def their_focal(logits: Any, targets: Any, alpha: float, gamma: float) -> Any:
    """Focal loss [N, ...] of each element; a negative alpha weighs both classes alike."""
    prob = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = prob * targets + (1 - prob) * (1 - targets)
    loss = loss * (1 - p_t) ** gamma
    return loss if alpha < 0 else (alpha * targets + (1 - alpha) * (1 - targets)) * loss


def their_losses(masks: Any, scores: Any, presence: Any, targets: Any) -> dict[str, Any]:
    """Sums over N objects: masks [N, M, H, W], scores [N, M], presence [N, 1], targets [N, H, W].

    Source: `MultiStepMultiMasksAndIous` in sam2's training/loss_fns.py, as its training configurations set
    it: IoU by L1 and for all masks, presence without focus. Its targets are 0 or 1.
    """
    targets = targets[:, None].expand_as(masks)
    is_present = (targets[:, 0] > 0).flatten(1).any(-1)[:, None].float()
    focal = their_focal(masks, targets, 0.25, 2).flatten(2).mean(-1)
    prob = masks.sigmoid().flatten(2)
    numerator = 2 * (prob * targets.flatten(2)).sum(-1)
    dice = 1 - (numerator + 1) / (prob.sum(-1) + targets.flatten(2).sum(-1) + 1)
    ours, truth = masks.flatten(2) > 0, targets.flatten(2) > 0.5
    actual = (ours & truth).sum(-1) / (ours | truth).sum(-1).clamp(min=1)
    iou = F.l1_loss(scores, actual, reduction="none")
    best = (WEIGHTS.focal * focal + WEIGHTS.dice * dice).argmin(-1)
    row = torch.arange(len(masks))
    return {
        "focal": (focal[row, best][:, None] * is_present).sum(),
        "dice": (dice[row, best][:, None] * is_present).sum(),
        "iou": (iou.mean(-1)[:, None] * is_present).sum(),
        "presence": their_focal(presence, is_present, -1, 0).sum(),
    }


@jax.jit
@partial(jax.value_and_grad, has_aux=True)
def our_losses(outputs: tuple[jax.Array, jax.Array, jax.Array], *rest: Any) -> tuple[jax.Array, Losses]:
    """The total and its parts of outputs (masks, scores, presence), and the gradients of the former."""
    masks, scores, presence = outputs
    tokens = jnp.zeros((*scores.shape, 1))
    losses = segmentation_losses(MaskPrediction(masks, scores, tokens, presence), *rest, WEIGHTS)
    return losses.total, losses


@pytest.mark.parametrize("soft", [False, True], ids=["whole cells", "shares of cells"])
@pytest.mark.parametrize("spread", [0.3, 3, 12], ids=["undecided", "usual", "decided"])
def test_losses_and_gradients_equal_metas(spread: float, soft: bool) -> None:
    """Ambiguous clicks, other prompts, objects that are not there, and padding, all in one batch."""
    rng = np.random.default_rng(3)
    batch, objects, size = 2, 4, (16, 24)
    masks = (spread * rng.standard_normal((batch, objects, 4, *size))).astype(np.float32)
    scores = rng.uniform(0.05, 0.95, (batch, objects, 4)).astype(np.float32)
    presence = rng.standard_normal((batch, objects, 1)).astype(np.float32)
    targets = rng.uniform(-0.5, 1, (batch, objects, *size)).clip(0).astype(np.float32)
    targets = targets if soft else np.float32(targets > 0.5)
    targets[0, 2] = targets[1, 0] = 0
    is_object = np.array([[True, True, True, False], [True, True, True, True]])
    is_ambiguous = np.array([[True, False, True, True], [False, True, False, True]])
    candidates = is_ambiguous[..., None] != (np.arange(4) == 0)

    (_, losses), gradients = our_losses((masks, scores, presence), targets, candidates, is_object)

    leaves = [torch.from_numpy(x).requires_grad_() for x in (masks, scores, presence)]
    parts: dict[str, Any] = {}
    for which, outputs in ((is_ambiguous & is_object, slice(1, 4)), (~is_ambiguous & is_object, slice(0, 1))):
        chosen = torch.from_numpy(which)
        group = leaves[0][chosen][:, outputs], leaves[1][chosen][:, outputs], leaves[2][chosen]
        for name, value in their_losses(*group, torch.from_numpy(targets)[chosen]).items():
            parts[name] = parts.get(name, 0) + value / int(is_object.sum())
    total = sum(getattr(WEIGHTS, name) * part for name, part in parts.items())
    total.backward()

    for name, part in {**parts, "total": total}.items():
        assert_close("losses", f"loss: {name}", getattr(losses, name), part.detach().numpy())
    for name, gradient, leaf in zip(("masks", "scores", "presence"), gradients, leaves, strict=True):
        assert_close("losses", f"loss: gradient of {name}", gradient, leaf.grad.numpy())
