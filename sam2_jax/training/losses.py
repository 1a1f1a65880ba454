"""SAM 2's losses: focal and dice on the masks, L1 on their predicted IoU, cross entropy on presence.

Source: Ravi et al. 2024 (arXiv:2408.00714), appendix on training; Kirillov et al. 2023 (arXiv:2304.02643),
appendix A, for the best of several masks; Meta's `MultiStepMultiMasksAndIous`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam2_jax.checks import read_number
from sam2_jax.model.mask_decoder import MaskPrediction


class LossWeights(NamedTuple):
    """What each loss counts in the total. Defaults are SAM 2's."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0

    def checked(self) -> "LossWeights":
        """The same as plain numbers. Raises ValueError for what cannot be meant."""
        return LossWeights(*(read_number(name, value, 0) for name, value in self._asdict().items()))


class Losses(NamedTuple):
    """Losses averaged over objects, and their weighted total: scalars."""

    total: jax.Array
    focal: jax.Array
    dice: jax.Array
    iou: jax.Array
    presence: jax.Array


def focal_loss(logits: jax.Array, targets: jax.Array, alpha: float = 0.25, gamma: float = 2.0) -> jax.Array:
    """Focal loss of logits [..., H, W], averaged over each mask: [...]. Targets are in [0, 1].

    Source: Lin et al. 2017 (arXiv:1708.02002).
    """
    return optax.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma).mean(axis=(-2, -1))


def dice_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of each mask, logits and targets [..., H, W]: [...].

    Source: Milletari et al. 2016 (arXiv:1606.04797), smoothed as in Meta's training code.
    """
    size = logits.shape[-2:]
    # optax halves numerator and denominator, and with them the smoothing.
    loss = optax.losses.binary_dice_loss(logits.reshape(-1, *size), targets.reshape(-1, *size), smooth=0.5)
    return loss.reshape(logits.shape[:-2])


def mask_iou(masks: Any, targets: Any) -> Any:
    """IoU of bool masks [..., H, W], arrays of JAX or numpy; 0 if both are empty."""
    intersection = (masks & targets).sum(axis=(-2, -1))
    union = (masks | targets).sum(axis=(-2, -1))
    return intersection / union.clip(1)


def segmentation_losses(
    prediction: MaskPrediction,
    targets: jax.Array,
    candidates: jax.Array,
    is_object: jax.Array,
    weights: LossWeights = LossWeights(),  # noqa: B008
) -> Losses:
    """Losses of one round of prompts.

    prediction: all the decoder's outputs, masks [B, P, M, H, W]. targets: [B, P, H, W] in [0, 1], of the
    logits' size, the share of each cell that is covered; all zero for an object that is not there.
    candidates: bool [B, P, M], the outputs to learn: one, or the several of an ambiguous click, of which
    only the best mask learns, and the predicted IoU of all. is_object: bool [B, P], False for padding.
    An object that is not there learns its absence only.
    """
    is_present = targets.max(axis=(-2, -1)) > 0
    every = jnp.broadcast_to(targets[:, :, None], prediction.masks.shape)
    focal, dice = focal_loss(prediction.masks, every), dice_loss(prediction.masks, every)
    error = jnp.where(candidates, weights.focal * focal + weights.dice * dice, jnp.inf)
    best = jax.nn.one_hot(error.argmin(axis=-1), error.shape[-1])
    actual = mask_iou(prediction.masks > 0, every > 0.5)
    iou = (jnp.abs(prediction.iou_scores - actual) * candidates).sum(axis=-1) / candidates.sum(axis=-1)
    presence = optax.sigmoid_binary_cross_entropy(
        prediction.object_score_logits[..., 0], is_present.astype(jnp.float32)
    )
    count = jnp.maximum(is_object.sum(), 1)

    def mean(loss: jax.Array, of: jax.Array) -> jax.Array:
        return jnp.where(of, loss, 0).sum() / count

    there = is_object & is_present
    parts = {
        "focal": mean((focal * best).sum(axis=-1), there),
        "dice": mean((dice * best).sum(axis=-1), there),
        "iou": mean(iou, there),
        "presence": mean(presence, is_object),
    }
    total = sum((getattr(weights, name) * part for name, part in parts.items()), start=jnp.float32(0))
    return Losses(total=total, **parts)
