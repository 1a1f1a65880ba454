"""One step of training: encode, rounds of prompts and corrections, losses, gradients, update."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.model.sam2 import ImageEmbeddings, Sam2
from sam2_jax.training.losses import Losses, LossWeights, mask_iou, segmentation_losses
from sam2_jax.training.optimizer import Layout, Vectors, is_skipped
from sam2_jax.training.parameters import Flat, merge_parameters
from sam2_jax.training.prompts import PromptOptions, Prompts, correct, first_prompts

# Logits handed back as a mask prompt are kept within this, as at inference.
MOST_LOGIT = 32.0


class Batch(NamedTuple):
    """B images with P objects each.

    pixel_values: float32 [B, H, W, 3], normalised. masks: float32 [B, P, H / 4, W / 4], the share of each
    cell that the object covers. is_object: bool [B, P], False for padding.
    """

    pixel_values: Any
    masks: Any
    is_object: Any


class TrainState(NamedTuple):
    """All that changes in training, of numbers only: saved and read back, it goes on to the same numbers.

    step: how many were done. trained: parameters, laid out as the optimiser has them. optimizer: its state.
    """

    step: jax.Array
    trained: Vectors
    optimizer: Any


class Metrics(NamedTuple):
    """What a step reports, scalars: losses summed over rounds, mean IoU of the first and the last round.

    skipped: whether the gradient was not finite. objects: how many there were to learn from. In either case,
    not finite or none, parameters stayed.
    """

    losses: Losses
    first_iou: jax.Array
    last_iou: jax.Array
    gradient_norm: jax.Array
    skipped: jax.Array
    objects: jax.Array


def decode(
    module: Sam2, embeddings: ImageEmbeddings, positions: jax.Array, prompts: Prompts
) -> MaskPrediction:
    """All outputs of the decoder, the single mask first, for prompts with and without masks.

    positions: what `Sam2.image_positions` gives, the same in every round.
    """
    height, width = embeddings[2].shape[1:3]
    sparse, token_mask, dense = module.encode_prompts(
        prompts.points, prompts.labels, prompts.masks, (height, width)
    )
    no_mask = module.prompt_encoder.embed_masks(None, height, width)
    dense = jnp.where(prompts.has_mask[..., None, None, None], dense, no_mask)
    return module.mask_decoder(embeddings, positions, sparse, dense, token_mask)


def rounds_of_prompts(
    module: Sam2, params: Any, batch: Batch, key: jax.Array, options: PromptOptions, weights: LossWeights
) -> tuple[Losses, jax.Array]:
    """Prompt a batch's objects and correct them round by round.

    Returns losses and mean IoU of each round, [1 + options.correction_rounds]. The IoU is that of the mask
    the network stands by.
    """
    embeddings = module.apply({"params": params}, batch.pixel_values, method="encode_image")
    positions = module.apply({"params": params}, method="image_positions")
    image_size = batch.pixel_values.shape[1:3]
    targets = batch.masks > 0.5
    first_key, round_key = jax.random.split(key)

    def one_round(prompts: Prompts, number: jax.Array) -> tuple[Prompts, tuple[Losses, jax.Array]]:
        applied = module.apply({"params": params}, embeddings, positions, prompts, method=decode)
        prediction = cast(MaskPrediction, applied)
        is_single = jnp.arange(prediction.iou_scores.shape[-1]) == 0
        candidates = prompts.is_ambiguous[..., None] != is_single.reshape(1, 1, -1)
        losses = segmentation_losses(prediction, batch.masks, candidates, batch.is_object, weights)
        best = jnp.where(candidates, prediction.iou_scores, -1).argmax(axis=-1)
        logits = jnp.take_along_axis(prediction.masks, best[..., None, None, None], axis=2)[:, :, 0]
        logits = jax.lax.stop_gradient(jnp.clip(logits, -MOST_LOGIT, MOST_LOGIT))
        ious = jnp.where(batch.is_object, mask_iou(logits > 0, targets), 0)
        iou = ious.sum() / jnp.maximum(batch.is_object.sum(), 1)
        click_key = jax.random.fold_in(round_key, number)
        prompts = correct(click_key, prompts, number, logits, targets, image_size, options)
        return prompts, (losses, iou)

    if options.correction_rounds:  # what many rounds make does not fit memory together
        one_round = jax.checkpoint(one_round)
    prompts = first_prompts(first_key, targets, image_size, options)
    return jax.lax.scan(one_round, prompts, jnp.arange(1 + options.correction_rounds))[1]


def train_step(
    state: TrainState,
    frozen: Flat,
    batch: Batch,
    key: jax.Array,
    *,
    module: Sam2,
    layout: Layout,
    optimizer: optax.MultiSteps,
    prompts: PromptOptions,
    weights: LossWeights,
) -> tuple[TrainState, Metrics]:
    """Do one step; key is that of the whole training, and the step's own is made of it."""

    def losses(params: Any, key: jax.Array) -> tuple[Losses, jax.Array, jax.Array]:
        losses, ious = rounds_of_prompts(module, params, batch, key, prompts, weights)
        return jax.tree.map(jnp.sum, losses), ious[0], ious[-1]

    return update(state, frozen, key, losses, batch.is_object.sum(), layout, optimizer)


def update(
    state: TrainState,
    frozen: Flat,
    key: jax.Array,
    losses: Callable[[Any, jax.Array], tuple[Losses, jax.Array, jax.Array]],
    objects: jax.Array,
    layout: Layout,
    optimizer: optax.MultiSteps,
) -> tuple[TrainState, Metrics]:
    """Move parameters against the gradient of losses(params, key of the step).

    losses returns the losses, of which the total counts, and the IoU before and in the end. objects: how many
    there are to learn from.
    """
    step_key = jax.random.fold_in(key, state.step)

    def loss(trained: Vectors) -> tuple[jax.Array, tuple[Losses, jax.Array, jax.Array]]:
        found = losses(merge_parameters(layout.unpack(trained), frozen), step_key)
        return found[0].total, found

    (_, (parts, first_iou, last_iou)), gradients = jax.value_and_grad(loss, has_aux=True)(state.trained)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trained)
    metrics = Metrics(
        losses=parts,
        first_iou=first_iou,
        last_iou=last_iou,
        gradient_norm=optax.tree.norm(gradients),
        skipped=is_skipped(optimizer_state),
        objects=objects,
    )
    # Without an object the gradient is zero, and yet momentum and weight decay would move parameters.
    moved = optax.apply_updates(state.trained, updates), optimizer_state
    kept = partial(jnp.where, metrics.objects > 0)
    trained, optimizer_state = jax.tree.map(kept, moved, (state.trained, state.optimizer))
    return TrainState(state.step + 1, trained, optimizer_state), metrics


def compiled_step(
    module: Sam2, layout: Layout, optimizer: optax.MultiSteps, prompts: PromptOptions, weights: LossWeights
) -> Any:
    """`train_step` compiled; the state it is given is used up."""
    options = {"module": module, "layout": layout, "optimizer": optimizer}
    return jax.jit(partial(train_step, **options, prompts=prompts, weights=weights), donate_argnums=0)
