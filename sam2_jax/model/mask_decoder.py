"""The mask decoder: a two-way transformer between prompt tokens and image, then masks, scores, presence.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; Ravi et al. 2024 (arXiv:2408.00714), appendix
on the mask decoder; transformers Sam2MaskDecoder.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2MaskDecoderConfig
from sam2_jax.model.layers import MLP, Linear, PointwiseConv, attend, gelu, layer_norm, recording

# torch's LayerNorm default, which the two-way transformer keeps where the rest of the network has 1e-6.
_TRANSFORMER_EPSILON = 1e-5


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the tokens'. Source: Sam2Attention."""

    num_heads: int
    inner_dim: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
    ) -> jax.Array:
        """Attend query [B, P, Q, C] to key and value [B, P, K, C]; returns [B, P, Q, C].

        bias, float32, is added to the scores [B, P, heads, Q, K]. Sows the weights into "attentions".
        """
        dense = {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "kernel_init": nn.initializers.normal(0.02),
        }

        def project(x: jax.Array, name: str) -> jax.Array:
            x = nn.Dense(self.inner_dim, name=name, **dense)(x)
            return x.reshape(*x.shape[:3], self.num_heads, self.inner_dim // self.num_heads)

        wanted = recording(self, "attentions")
        out, weights = attend(
            project(query, "q_proj"),
            project(key, "k_proj"),
            project(value, "v_proj"),
            bias,
            return_weights=wanted,
        )
        if wanted:
            self.sow("attentions", "weights", weights)
        out = out.reshape(*out.shape[:3], self.inner_dim)
        return nn.Dense(query.shape[-1], name="o_proj", **dense)(out)


class TwoWayAttentionBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP; then the image attends to the tokens.

    Source: Sam2TwoWayAttentionBlock. In the first layer self-attention has neither positions nor residual.
    """

    config: Sam2MaskDecoderConfig
    is_first: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        heads, width = config.num_attention_heads, config.hidden_size
        inner = width // config.attention_downsample_rate
        self.self_attn = Attention(heads, width, **types)
        self.cross_attn_token_to_image = Attention(heads, inner, **types)
        self.cross_attn_image_to_token = Attention(heads, inner, **types)
        self.layer_norm1 = layer_norm(_TRANSFORMER_EPSILON, **types)
        self.layer_norm2 = layer_norm(_TRANSFORMER_EPSILON, **types)
        self.layer_norm3 = layer_norm(_TRANSFORMER_EPSILON, **types)
        self.layer_norm4 = layer_norm(_TRANSFORMER_EPSILON, **types)
        # The reference ties the depth of this MLP to the number of transformer layers.
        hidden = (config.mlp_dim,) * (config.num_hidden_layers - 1)
        self.mlp = MLP((*hidden, width), nn.relu, **types)

    def __call__(
        self,
        tokens: jax.Array,
        image: jax.Array,
        token_positions: jax.Array,
        image_positions: jax.Array,
        token_bias: jax.Array | None,
        similarity: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Update tokens [B, P, T, C] and image [B, P or 1, K, C], returned as [B, P, K, C].

        token_bias hides padding tokens as keys; similarity is added to the scores over the image.
        """
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens, token_bias)
        else:
            placed = tokens + token_positions
            tokens = tokens + self.self_attn(placed, placed, tokens, token_bias)
        tokens = self.layer_norm1(tokens)
        placed_image = image + image_positions
        tokens = tokens + self.cross_attn_token_to_image(
            tokens + token_positions, placed_image, image, similarity
        )
        tokens = self.layer_norm2(tokens)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(
            placed_image, tokens + token_positions, tokens, token_bias
        )
        return tokens, self.layer_norm4(image)


class TwoWayTransformer(nn.Module):
    """The blocks, and a last attention from tokens to image. Source: Sam2TwoWayTransformer."""

    config: Sam2MaskDecoderConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.layers = [
            TwoWayAttentionBlock(config, is_first=i == 0, **types) for i in range(config.num_hidden_layers)
        ]
        inner = config.hidden_size // config.attention_downsample_rate
        self.final_attn_token_to_image = Attention(config.num_attention_heads, inner, **types)
        self.layer_norm_final_attn = layer_norm(_TRANSFORMER_EPSILON, **types)

    def __call__(
        self,
        tokens: jax.Array,
        image: jax.Array,
        image_positions: jax.Array,
        token_bias: jax.Array | None = None,
        similarity: jax.Array | None = None,
        target: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Run tokens [B, P, T, C] against image [B, P or 1, K, C]; returns both, updated.

        similarity and target are PerSAM's attention_similarity and target_embedding (arXiv:2305.03048).
        """
        positions = tokens
        for layer in self.layers:
            if target is not None:
                tokens = tokens + target
                if layer.is_first:
                    # PerSAM adds in place to a tensor that is also the positions; results rest on it.
                    positions = tokens
            tokens, image = layer(tokens, image, positions, image_positions, token_bias, similarity)
        attended = self.final_attn_token_to_image(tokens + positions, image + image_positions, image)
        return self.layer_norm_final_attn(tokens + attended), image


class SubPixelUpsample(nn.Module):
    """Transposed convolution, kernel 2, stride 2: every position becomes 2x2, with no overlap."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [N, H, W, C] to [N, 2H, 2W, features]."""
        kernel_shape = (2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.02), kernel_shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        batch, height, width, _ = x.shape
        out = jnp.einsum("nhwc,yxcf->nhywxf", x.astype(self.dtype), kernel.astype(self.dtype))
        out = out.reshape(batch, 2 * height, 2 * width, self.features)
        return out + bias.astype(self.dtype).reshape(1, 1, 1, -1)


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
        self.conv_s0 = PointwiseConv(width, width // 8, **types)
        self.conv_s1 = PointwiseConv(width, width // 4, **types)
        self.upscale_conv1 = SubPixelUpsample(width // 4, **types)
        self.upscale_layer_norm = layer_norm(1e-6, **types)
        self.upscale_conv2 = SubPixelUpsample(width // 8, **types)
        self.output_hypernetworks_mlps = [
            MLP((width, width, width // 8), **types) for _ in range(self.num_mask_tokens)
        ]
        iou_hidden = (config.iou_head_hidden_dim,) * (config.iou_head_depth - 1)
        self.iou_prediction_head = MLP((*iou_hidden, self.num_mask_tokens), **types)
        self.pred_obj_score_head = MLP((width, width, 1), **types)

    def feature_projections(self) -> tuple[Linear, Linear]:
        """Layers that narrow pyramid levels at strides 4 and 8 to C / 8 and C / 4 channels."""
        return self.conv_s0.weights(), self.conv_s1.weights()

    def __call__(
        self,
        features: tuple[jax.Array, jax.Array, jax.Array],
        image_positions: jax.Array,
        sparse: jax.Array,
        dense: jax.Array,
        token_mask: jax.Array | None = None,
        attention_similarity: jax.Array | None = None,
        target_embedding: jax.Array | None = None,
    ) -> MaskPrediction:
        """Predict all masks: index 0 is the single-mask output, the rest are the multimask outputs.

        features: image embeddings [B, 4h, 4w, C / 8], [B, 2h, 2w, C / 4] and [B, h, w, C].
        image_positions: [1, h, w, C]. sparse: prompt tokens [B, P, N, C]. dense: [B or 1, P or 1, h, w, C].
        token_mask: [B, P, N], False for padding tokens, which nothing may attend to.
        attention_similarity: float32, broadcasts to [B, P, heads, T, h * w]; target_embedding broadcasts to
        [B, P, T, C], where T counts the object-score, IoU and mask tokens, then the prompts.
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
        positions = image_positions.reshape(1, 1, height * width, channels).astype(self.dtype)
        if target_embedding is not None:
            target_embedding = target_embedding.astype(self.dtype)
        tokens, image = self.transformer(
            tokens, image, positions, token_bias, attention_similarity, target_embedding
        )

        mask_tokens = tokens[:, :, 2:count]
        pixels = self._upscale(image.reshape(batch, objects, height, width, channels), fine, middle)
        hyper = jnp.stack(
            [mlp(mask_tokens[:, :, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 2
        )
        # Logits are compared with thresholds: no TF32 or bfloat16 passes here, where they cost little.
        masks = jnp.einsum(
            "bpmc,bphwc->bpmhw",
            hyper,
            pixels,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        return MaskPrediction(
            masks=masks,
            iou_scores=nn.sigmoid(self.iou_prediction_head(tokens[:, :, 1]).astype(jnp.float32)),
            tokens=mask_tokens,
            object_score_logits=self.pred_obj_score_head(tokens[:, :, 0]).astype(jnp.float32),
        )

    def _upscale(self, image: jax.Array, fine: jax.Array, middle: jax.Array) -> jax.Array:
        """Upscale image [B, P, h, w, C] fourfold to [B, P, 4h, 4w, C / 8], adding the finer features."""
        batch, objects = image.shape[:2]

        def add(x: jax.Array, skip: jax.Array) -> jax.Array:
            x = x.reshape(batch, objects, *x.shape[1:]) + skip[:, None].astype(self.dtype)
            return x.reshape(batch * objects, *x.shape[2:])

        x = add(self.upscale_conv1(image.reshape(batch * objects, *image.shape[2:])), middle)
        x = add(self.upscale_conv2(gelu(self.upscale_layer_norm(x))), fine)
        return gelu(x).reshape(batch, objects, *x.shape[1:])

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
            masks=jnp.take_along_axis(masks, chosen[..., None, None], axis=2),
            iou_scores=jnp.take_along_axis(scores, chosen, axis=2),
        )
