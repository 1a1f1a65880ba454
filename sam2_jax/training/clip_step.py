"""One step of training on clips: prompts on the first frame, corrections on some, memory through time.

The network's own steps are called as the tracker calls them. What a frame makes is computed again for
gradients, so that memory does not grow with the clip but by its features and memories.

Source: Ravi et al. 2024 (arXiv:2408.00714), section 4 and appendix on training; Meta's training code.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.model.memory_bank import FrameOutput, Plan, VideoState, store
from sam2_jax.model.prompt_encoder import PADDING
from sam2_jax.model.sam2_video import FrameFeatures, Sam2Video, no_points
from sam2_jax.training.losses import Losses, LossWeights, mask_iou, segmentation_losses
from sam2_jax.training.optimizer import Layout
from sam2_jax.training.prompts import PromptOptions, Prompts, correct, first_prompts
from sam2_jax.training.step import MOST_LOGIT, Metrics, TrainState, update


class ClipBatch(NamedTuple):
    """B clips of T frames with P objects each.

    pixel_values: float32 [B, T, H, W, 3], normalised. masks: float32 [B, T, P, H / 4, W / 4], the share of
    each cell that the object covers, all zero where it is not seen. is_object: bool [B, P], False for
    padding. plans: leaves [B, T, P, ...], see `clip_plan`.
    """

    pixel_values: Any
    masks: Any
    is_object: Any
    plans: Plan


class ClipLosses(NamedTuple):
    """Losses of a clip, a mean over its frames; mean IoU on the first frame, and of what is tracked.

    logits: float32 [T, P, H / 4, W / 4], what each frame gave in the end.
    """

    losses: Losses
    first_iou: jax.Array
    tracked_iou: jax.Array
    logits: jax.Array


class _Network:
    """The network's methods with its parameters, and what does not change within a clip."""

    def __init__(
        self,
        module: Sam2Video,
        params: Any,
        is_object: jax.Array,
        options: PromptOptions,
        weights: LossWeights,
    ) -> None:
        self.module, self.params = module, params
        self.config = module.config
        self.is_object, self.options, self.weights = is_object, options, weights

    def call(self, method: str, *inputs: Any, **options: Any) -> Any:
        return self.module.apply({"params": self.params}, *inputs, method=method, **options)

    def losses(
        self,
        prediction: MaskPrediction,
        targets: jax.Array,
        is_several: jax.Array,
        counts: jax.Array | None = None,
    ) -> Losses:
        """Losses of P objects of which the best of several masks counts, bool [P], or the single one.

        counts: bool [P], objects that count at all; None for all.
        """
        is_single = jnp.arange(prediction.iou_scores.shape[-1]) == 0
        candidates = is_several[None, :, None] != is_single.reshape(1, 1, -1)
        is_object = self.is_object if counts is None else self.is_object & counts
        return segmentation_losses(prediction, targets[None], candidates, is_object[None], self.weights)

    def prompted(
        self, features: FrameFeatures, prompts: Prompts, mask: jax.Array | None, conditioned: jax.Array | None
    ) -> tuple[MaskPrediction, FrameOutput, jax.Array]:
        """What prompts, B = 1, give: all outputs, those chosen, and of which objects there were several."""
        points, labels = prompts.points[0], prompts.labels[0]
        prediction = self.call("predict", features, points, labels, mask, conditioned)
        counts = range(labels.shape[-1] + 1)
        uses_several = jnp.asarray([self.config.uses_multimask(count) for count in counts])
        is_several = uses_several[(labels != PADDING).sum(axis=-1)]
        several, single = (self.call("choose", prediction, multimask)[0] for multimask in (True, False))
        return prediction, _where(is_several, several, single), is_several

    def remember(
        self, features: FrameFeatures, output: FrameOutput, plan: Plan, state: VideoState
    ) -> VideoState:
        """The state with a frame in it."""
        is_prompted = ~jnp.asarray(plan.tracked)
        memory = self.call("remember", features, output.low, output.score, is_prompted)
        every = jnp.ones_like(is_prompted)
        return store(state, plan.slot, plan.pointer_slot, every, memory, output.pointer)

    def correct(
        self,
        features: FrameFeatures,
        prompts: Prompts,
        conditioned: jax.Array | None,
        output: FrameOutput,
        targets: jax.Array,
        key: jax.Array,
    ) -> tuple[Losses, FrameOutput]:
        """Correct what a frame gave by clicks, one after the other: the losses' sum, and the last output."""
        size = self.config.image_config.image_size
        is_target = targets[None] > 0.5

        def one_round(
            so_far: tuple[Prompts, FrameOutput], number: jax.Array
        ) -> tuple[tuple[Prompts, FrameOutput], Losses]:
            prompts, output = so_far
            mask = jax.lax.stop_gradient(jnp.clip(output.low, -MOST_LOGIT, MOST_LOGIT))
            round_key = jax.random.fold_in(key, number)
            prompts = correct(round_key, prompts, number, mask[None], is_target, size, self.options)
            prediction, output, is_several = self.prompted(features, prompts, mask, conditioned)
            return (prompts, output), self.losses(prediction, targets, is_several)

        rounds = jnp.arange(self.options.correction_rounds)
        (_, output), losses = jax.lax.scan(jax.checkpoint(one_round), (prompts, output), rounds)
        return jax.tree.map(lambda x: x.sum(axis=0), losses), output


def clip_losses(
    module: Sam2Video,
    params: Any,
    clip: ClipBatch,
    key: jax.Array,
    options: PromptOptions,
    weights: LossWeights,
) -> ClipLosses:
    """Track one clip, leaves without B, and compare each frame with the truth.

    options: prompts on the first frame, a mask being taken for what the object is; correction_rounds clicks
    follow there, and on the frames that the plans say are corrected.
    """
    network = _Network(module, params, clip.is_object, options, weights)
    frames, objects = clip.masks.shape[:2]
    features = network.call("encode_frame", clip.pixel_values)
    conditioning = clip.plans.row.shape[-1] - max(module.config.num_maskmem - 1, 1)
    state = VideoState.empty(
        module.config.with_image_size(clip.pixel_values.shape[1:3]), objects, conditioning, jnp.float32
    )
    first_features = jax.tree.map(lambda x: x[:1], features)
    first_plan = jax.tree.map(lambda x: x[0], clip.plans)
    losses, first_iou, output, state = _first_frame(
        network, first_features, clip.masks[0], first_plan, state, jax.random.fold_in(key, 0)
    )

    @jax.checkpoint
    def frame(state: VideoState, features: FrameFeatures, targets: Any, plan: Plan, key: Any) -> Any:
        return _tracked_frame(network, features, targets, plan, state, key, may_be_corrected=conditioning > 1)

    ious, logits = [], [output.low]
    # No loop: inside of one XLA computes the gradients of convolutions on a CPU forty times slower.
    for t in range(1, frames):
        given = jax.tree.map(lambda x, t=t: x[t : t + 1], features)
        plan = jax.tree.map(lambda x, t=t: x[t], clip.plans)
        state, (more, iou, low) = frame(state, given, clip.masks[t], plan, jax.random.fold_in(key, t))
        losses = jax.tree.map(jnp.add, losses, more)
        ious.append(iou)
        logits.append(low)
    losses = jax.tree.map(lambda x: x / frames, losses)
    is_seen = clip.is_object[None] & (clip.masks[1:] > 0.5).any(axis=(-2, -1))
    tracked_iou = jnp.where(is_seen, jnp.stack(ious), 0).sum() / jnp.maximum(is_seen.sum(), 1)
    return ClipLosses(losses, first_iou, tracked_iou, jnp.stack(logits))


def _first_frame(
    network: _Network,
    features: FrameFeatures,
    targets: jax.Array,
    plan: Plan,
    state: VideoState,
    key: jax.Array,
) -> tuple[Losses, jax.Array, FrameOutput, VideoState]:
    options, image_size = network.options, network.config.image_config.image_size
    prompt_key, round_key = jax.random.split(key)
    is_target = targets[None] > 0.5
    prompts = first_prompts(prompt_key, is_target, image_size, options)
    prediction, output, is_several = network.prompted(features, prompts, None, None)
    # A mask says all there is: the decoder only gives the pointer then.
    losses = network.losses(prediction, targets, is_several, ~prompts.has_mask[0])
    is_asked = network.is_object & ~prompts.has_mask[0]
    ious = jnp.where(is_asked, mask_iou(output.low > 0, is_target[0]), 0)
    iou = ious.sum() / jnp.maximum(is_asked.sum(), 1)
    if options.mask:
        scale = image_size[0] // targets.shape[-2]
        whole = is_target[0].repeat(scale, axis=-2).repeat(scale, axis=-1)
        output = _where(prompts.has_mask[0], network.call("mask_step", features, whole), output)
    if options.correction_rounds:
        more, output = network.correct(features, prompts, None, output, targets, round_key)
        losses = jax.tree.map(jnp.add, losses, more)
    return losses, iou, output, network.remember(features, output, plan, state)


def _tracked_frame(
    network: _Network,
    features: FrameFeatures,
    targets: jax.Array,
    plan: Plan,
    state: VideoState,
    key: jax.Array,
    *,
    may_be_corrected: bool,
) -> tuple[VideoState, tuple[Losses, jax.Array, jax.Array]]:
    """The state, losses, IoU [P] of what was tracked, and the logits in the end."""
    objects = len(targets)
    conditioned = network.call("condition", features, state, plan)
    prediction = network.call("predict", features, *no_points(objects), None, conditioned)
    multimask = network.config.uses_multimask(0)
    losses = network.losses(prediction, targets, jnp.full(objects, multimask))
    output, _ = network.call("choose", prediction, multimask)
    ious = mask_iou(output.low > 0, targets > 0.5)
    if network.options.correction_rounds and may_be_corrected:
        prompts = _no_prompts(output.low, network.options)

        def corrected(output: FrameOutput) -> tuple[Losses, FrameOutput]:
            return network.correct(features, prompts, conditioned, output, targets, key)

        def as_it_is(output: FrameOutput) -> tuple[Losses, FrameOutput]:
            return jax.tree.map(jnp.zeros_like, losses), output

        more, output = jax.lax.cond(~plan.tracked[0], corrected, as_it_is, output)
        losses = jax.tree.map(jnp.add, losses, more)
    return network.remember(features, output, plan, state), (losses, ious, output.low)


def _no_prompts(logits: jax.Array, options: PromptOptions) -> Prompts:
    """Room for the clicks that correct logits [P, h, w]."""
    objects, room = len(logits), 2 + options.correction_rounds
    return Prompts(
        points=jnp.zeros((1, objects, room, 2), jnp.float32),
        labels=jnp.full((1, objects, room), PADDING, jnp.int32),
        masks=logits[None],
        has_mask=jnp.ones((1, objects), bool),
    )


def _where(condition: jax.Array, one: FrameOutput, other: FrameOutput) -> FrameOutput:
    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    found: FrameOutput = jax.tree.map(choose, one, other)
    return found


def clip_step(
    state: TrainState,
    frozen: Any,
    batch: ClipBatch,
    key: jax.Array,
    *,
    module: Sam2Video,
    layout: Layout,
    optimizer: optax.MultiSteps,
    prompts: PromptOptions,
    weights: LossWeights,
) -> tuple[TrainState, Metrics]:
    """Do one step on a batch of clips; key is that of the whole training."""

    def losses(params: Any, key: jax.Array) -> tuple[Losses, jax.Array, jax.Array]:
        def of_clip(clip: ClipBatch, key: jax.Array) -> ClipLosses:
            return clip_losses(module, params, clip, key, prompts, weights)

        keys = jax.random.split(key, len(batch.masks))
        if len(keys) == 1:  # in a batch, what frames leave out under a condition would be computed for all
            found = of_clip(jax.tree.map(lambda x: x[0], batch), keys[0])
        else:
            found = jax.tree.map(lambda x: x.mean(axis=0), jax.vmap(of_clip)(batch, keys))
        return found.losses, found.first_iou, found.tracked_iou

    return update(state, frozen, key, losses, batch.is_object.sum(), layout, optimizer)


def compiled_clip_step(
    module: Sam2Video,
    layout: Layout,
    optimizer: optax.MultiSteps,
    prompts: PromptOptions,
    weights: LossWeights,
) -> Any:
    """`clip_step` compiled; the state it is given is used up."""
    options = {"module": module, "layout": layout, "optimizer": optimizer}
    return jax.jit(partial(clip_step, **options, prompts=prompts, weights=weights), donate_argnums=0)
