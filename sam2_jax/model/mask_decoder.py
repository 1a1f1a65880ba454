"""The mask decoder: a two-way transformer between prompt tokens and image, then masks, scores, presence.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; Ravi et al. 2024 (arXiv:2408.00714), appendix
on the mask decoder; transformers Sam2MaskDecoder.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2MaskDecoderConfig
from sam2_jax.model.layers import (
    MLP,
    Dense,
    LayerNorm,
    Linear,
    one_by_one,
    reaches,
    recording,
)
from sam2_jax.model.platforms import for_each_platform, on_cpu, on_tpu
from sam2_jax.model.two_way_transformer import TwoWayTransformer
from sam2_jax.model.upscaling import (
    EPSILON,
    SubPixelUpsample,
    Upscaled,
    Upscaling,
    masks_by_sub_pixel,
    masks_in_lanes,
    to_sub_pixels,
)


class MaskPrediction(NamedTuple):
    """What the decoder predicts for P objects in each of B images, M masks each; float32 but for tokens.

    masks: logits [B, P, M, H, W] at a quarter of the input's resolution; iou_scores: predicted IoU
    [B, P, M] in [0, 1]; tokens: the masks' output tokens [B, P, M, C]; object_score_logits: [B, P, 1],
    positive where the object is there.
    """

    masks: jax.Array
    iou_scores: jax.Array
    tokens: jax.Array
    object_score_logits: jax.Array


# So that a function which returns them can be exported and kept.
export.register_namedtuple_serialization(MaskPrediction, serialized_name="sam2_jax.MaskPrediction")


class Objects(NamedTuple):
    """What the decoder runs on: B images with P objects each, P = 1 where all objects of an image share it.

    tokens [B, P, T, C]; image [B, P, K, C]; bias, similarity and target as `TwoWayTransformer` has them;
    shared: what its `share_image` gives, [B, 1, K, ...]; fine and middle: the skips as sub-pixels,
    [B, 1, K, 16, C / 8] and [B, 1, K, 4, C / 4].
    """

    tokens: jax.Array
    image: jax.Array
    bias: jax.Array | None
    similarity: jax.Array | None
    target: jax.Array | None
    shared: tuple[jax.Array, ...] | None
    fine: jax.Array
    middle: jax.Array


# Logits of a mask that is not computed, the value by which SAM 2 says: no object.
NO_MASK = -1024.0
# Maps of fewer positions fit the cache for several objects at once.
_LARGE_MAP = 32 * 32
# From this many objects on, projecting their image once costs less than absorbing projections for each.
_SHARING_PAYS = 4


class MaskDecoder(nn.Module):
    """Prompt tokens and image embedding to mask logits and scores."""

    config: Sam2MaskDecoderConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normal = nn.initializers.normal(0.02)
        width = config.hidden_size
        self.num_mask_tokens = config.num_multimask_outputs + 1

        def token(count: int) -> nn.Embed:
            return nn.Embed(count, width, embedding_init=normal, **types)

        self.obj_score_token, self.iou_token, self.mask_tokens = (
            token(1),
            token(1),
            token(self.num_mask_tokens),
        )
        self.transformer = TwoWayTransformer(config, **types)
        self.conv_s0 = Dense(width, width // 8, convolution=True, **types)
        self.conv_s1 = Dense(width, width // 4, convolution=True, **types)
        self.upscale_conv1 = SubPixelUpsample(width, width // 4, **types)
        self.upscale_layer_norm = LayerNorm(EPSILON, **types)
        self.upscale_conv2 = SubPixelUpsample(width // 4, width // 8, **types)
        self.output_hypernetworks_mlps = [
            MLP((width, width, width // 8), **types) for _ in range(self.num_mask_tokens)
        ]
        iou_hidden = (config.iou_head_hidden_dim,) * (config.iou_head_depth - 1)
        self.iou_prediction_head = MLP((*iou_hidden, self.num_mask_tokens), **types)
        self.pred_obj_score_head = MLP((width, width, 1), **types)

    def feature_projections(self) -> tuple[Linear, Linear]:
        """Layers that narrow pyramid levels at strides 4 and 8 to C / 8 and C / 4 channels."""
        return self.conv_s0.weights(), self.conv_s1.weights()

    @for_each_platform
    def __call__(
        self,
        features: tuple[jax.Array, jax.Array, jax.Array],
        image_positions: jax.Array,
        sparse: jax.Array,
        dense: jax.Array,
        token_mask: jax.Array | None = None,
        attention_similarity: jax.Array | None = None,
        target_embedding: jax.Array | None = None,
        min_score: jax.Array | None = None,
        *,
        multimask_output: bool = True,
    ) -> MaskPrediction:
        """Predict all masks: index 0 is the single-mask output, the rest are the multimask outputs.

        features: image embeddings [B, 4h, 4w, C / 8], [B, 2h, 2w, C / 4] and [B, h, w, C].
        image_positions: [1, h, w, C]. sparse: prompt tokens [B, P, N, C]. dense: [B or 1, P or 1, h, w, C].
        token_mask: [B, P, N], False for padding tokens, which nothing may attend to.
        attention_similarity: float32, broadcasts to [B, P, heads, T, h * w]; target_embedding broadcasts to
        [B, P, T, C], where T counts the object-score, IoU and mask tokens, then the prompts.
        min_score: an object whose predicted IoU nowhere exceeds it, among the outputs that multimask_output
        chooses from, is not upscaled: its masks are NO_MASK. It saves time where objects go one by one.
        """
        fine, middle, coarse = features
        batch, objects = sparse.shape[:2]
        height, width, channels = coarse.shape[1:]
        tables = (self.obj_score_token, self.iou_token, self.mask_tokens)
        outputs = jnp.concatenate([table.embedding.astype(self.dtype) for table in tables])
        count = outputs.shape[0]
        outputs = jnp.broadcast_to(outputs[None, None], (batch, objects, count, channels))
        tokens = jnp.concatenate([outputs, sparse.astype(self.dtype)], axis=2)
        token_bias = None
        if token_mask is not None:
            visible = jnp.pad(token_mask, ((0, 0), (0, 0), (count, 0)), constant_values=True)
            token_bias = jnp.where(visible, 0.0, -jnp.inf)[:, :, None, None, :]
        # One image for all of its objects ([B, 1, K, C]) until the tokens have written into it.
        image = (coarse[:, None] + dense).reshape(batch, -1, height * width, channels).astype(self.dtype)
        # Computed once: XLA would add the two again wherever they are read.
        image = jax.lax.optimization_barrier(image)
        positions = image_positions.reshape(1, 1, height * width, channels).astype(self.dtype)
        if target_embedding is not None:
            target_embedding = target_embedding.astype(self.dtype)
        fine, middle = (to_sub_pixels(skip, height, width)[:, None] for skip in (fine, middle))
        shared = None
        if image.shape[1] == 1 and reaches(objects, _SHARING_PAYS):
            shared = self.transformer.share_image(image, positions)
        inputs = Objects(
            tokens, image, token_bias, attention_similarity, target_embedding, shared, fine, middle
        )
        decode = partial(
            MaskDecoder._decode,
            positions=positions,
            grid_size=(height, width),
            min_score=min_score,
            first=1 if multimask_output else 0,
        )
        several = reaches(batch, 2) or reaches(objects, 2)
        if not several or self._records() or height * width < _LARGE_MAP or not on_cpu():
            return decode(self, inputs)

        def decode_image(module: MaskDecoder, inputs: Objects) -> MaskPrediction:
            return decode(module, inputs) if objects == 1 else one_by_one(module, decode, inputs, 1, objects)

        return decode_image(self, inputs) if batch == 1 else one_by_one(self, decode_image, inputs, 0, batch)

    def _records(self) -> bool:
        """Whether intermediate results are wanted, or parameters are made: then all goes in one piece."""
        collections = ("attentions", "intermediates")
        return self.is_initializing() or any(recording(self, name) for name in collections)

    def _decode(
        self,
        inputs: Objects,
        positions: jax.Array,
        grid_size: tuple[int, int],
        min_score: jax.Array | None,
        first: int,
    ) -> MaskPrediction:
        """Predict masks of objects on images whose K = h * w positions are [1, 1, K, C].

        Without a score above min_score, from output `first` on, an object has none.
        """
        tokens, image = self.transformer(
            inputs.tokens,
            inputs.image,
            positions,
            inputs.bias,
            inputs.similarity,
            inputs.target,
            inputs.shared,
        )
        last = 2 + self.num_mask_tokens
        mask_tokens = tokens[:, :, 2:last]
        hyper = jnp.stack(
            [mlp(mask_tokens[:, :, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 2
        )
        scores = nn.sigmoid(self.iou_prediction_head(tokens[:, :, 1]).astype(jnp.float32))
        masks_of = partial(MaskDecoder._masks, grid_size=grid_size)
        if min_score is None:
            masks = masks_of(self, image, inputs.fine, inputs.middle, hyper)
        else:
            is_promising = (scores[:, :, first:] > min_score).any(axis=-1)
            height, width = (side * round(inputs.fine.shape[3] ** 0.5) for side in grid_size)
            none = jnp.full((*hyper.shape[:3], height, width), NO_MASK, jnp.float32)
            operands = image, inputs.fine, inputs.middle, hyper
            masks = nn.cond(is_promising.any(), masks_of, lambda *_: none, self, *operands)
            masks = jnp.where(is_promising[..., None, None, None], masks, NO_MASK)
        return MaskPrediction(
            masks=masks,
            iou_scores=scores,
            tokens=mask_tokens,
            object_score_logits=self.pred_obj_score_head(tokens[:, :, 0]).astype(jnp.float32),
        )

    def _masks(
        self,
        image: jax.Array,
        fine: jax.Array,
        middle: jax.Array,
        hyper: jax.Array,
        grid_size: tuple[int, int],
    ) -> jax.Array:
        """Upscale image [B, P, K, C] and weigh its channels by hyper [B, P, M, C / 8]: [B, P, M, H, W]."""
        if self.is_initializing():
            self.upscale_layer_norm(jnp.zeros(image.shape[-1] // 4))
        norm: Any = self.upscale_layer_norm.variables["params"]
        weights = Upscaling(
            self.upscale_conv1.weights(), norm["scale"], norm["bias"], self.upscale_conv2.weights()
        )
        forms = (partial(form, grid_size=grid_size) for form in (masks_by_sub_pixel, masks_in_lanes))
        return on_tpu(*forms, Upscaled(image, fine, middle, hyper), weights)

    def select(self, prediction: MaskPrediction, multimask_output: bool) -> MaskPrediction:
        """Keep the multimask outputs, or one mask per object.

        The one mask is output 0 where it is stable, else the multimask output of highest predicted IoU
        (SAM 2, appendix: dynamic multimask via stability); always output 0 if the configuration says so.
        """
        masks, scores, tokens, _ = prediction
        if multimask_output:
            return prediction._replace(
                masks=masks[:, :, 1:], iou_scores=scores[:, :, 1:], tokens=tokens[:, :, 1:]
            )
        single = prediction._replace(
            masks=masks[:, :, :1], iou_scores=scores[:, :, :1], tokens=tokens[:, :, :1]
        )
        config = self.config
        if not config.dynamic_multimask_via_stability:
            return single
        delta = config.dynamic_multimask_stability_delta
        inner = (masks[:, :, 0] > delta).sum(axis=(-2, -1)).astype(jnp.float32)
        outer = (masks[:, :, 0] > -delta).sum(axis=(-2, -1)).astype(jnp.float32)
        stability = jnp.where(outer > 0, inner / jnp.maximum(outer, 1), 1.0)
        best = scores[:, :, 1:].argmax(axis=-1) + 1
        chosen = jnp.where(stability >= config.dynamic_multimask_stability_thresh, 0, best)[..., None]
        # As in the reference, the output token stays that of mask 0, whichever mask is chosen.
        return single._replace(
            # Without a mode, what is taken is filled with NaN where the index is out of bounds.
            masks=jnp.take_along_axis(masks, chosen[..., None, None], axis=2, mode="clip"),
            iou_scores=jnp.take_along_axis(scores, chosen, axis=2, mode="clip"),
        )
