"""Prompts as embeddings: points and box corners become tokens, masks become a dense map.

Source: Kirillov et al. 2023 (arXiv:2304.02643), section 3 and appendix A; transformers Sam2PromptEncoder.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2PromptEncoderConfig
from sam2_jax.model.layers import Dense, LayerNorm, gelu
from sam2_jax.model.positions import RandomFourierEmbedding

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = 0, 1, 2, 3
NOT_A_POINT = -1
PADDING = -10


class MaskEmbedding(nn.Module):
    """Mask logits as a dense embedding, by two 2x2 stride-2 convolutions. Source: Sam2MaskEmbedding."""

    config: Sam2PromptEncoderConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masks: jax.Array) -> jax.Array:
        """Map logits [N, 4h, 4w, 1] to [N, h, w, C]."""
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = {"kernel_init": nn.initializers.normal(0.02), "padding": "VALID", **types}
        epsilon, channels = config.layer_norm_eps, config.mask_input_channels
        x = nn.Conv(channels // 4, (2, 2), (2, 2), name="conv1", **conv)(masks)
        x = gelu(LayerNorm(epsilon, **types, name="layer_norm1")(x))
        x = nn.Conv(channels, (2, 2), (2, 2), name="conv2", **conv)(x)
        x = gelu(LayerNorm(epsilon, **types, name="layer_norm2")(x))
        return Dense(channels, config.hidden_size, convolution=True, name="conv3", **types)(x)


class PromptEncoder(nn.Module):
    """Embeds prompts; the Fourier features are passed in, since the image grid shares them."""

    config: Sam2PromptEncoderConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        table = {"features": config.hidden_size, "embedding_init": nn.initializers.normal(0.02), **types}
        self.point_embed = nn.Embed(config.num_point_embeddings, **table)
        self.not_a_point_embed = nn.Embed(1, **table)
        self.no_mask_embed = nn.Embed(1, **table)
        self.mask_embed = MaskEmbedding(config, **types)

    def embed_points(
        self,
        points: jax.Array,
        labels: jax.Array,
        image_size: tuple[int, int],
        fourier: RandomFourierEmbedding,
    ) -> jax.Array:
        """Embed points [B, P, N, 2], (x, y) pixels of the network's input, as tokens [B, P, N + 1, C].

        labels [B, P, N] are 0 negative, 1 positive, 2 and 3 the top-left and bottom-right corner of a box,
        -1 not a point, -10 padding (a zero token). The last token is the reference's not-a-point pad.
        """
        height, width = image_size
        labels = jnp.pad(labels, ((0, 0), (0, 0), (0, 1)), constant_values=NOT_A_POINT)[..., None]
        points = jnp.pad(points.astype(jnp.float32), ((0, 0), (0, 0), (0, 1), (0, 0)))
        size = jnp.asarray([width, height], jnp.float32).reshape(1, 1, 1, 2)
        positions = fourier((points + 0.5) / size)
        kinds = jnp.asarray(self.point_embed.embedding, jnp.float32)[jnp.maximum(labels[..., 0], 0)]
        not_a_point = self.not_a_point_embed.embedding.astype(jnp.float32).reshape(1, 1, 1, -1)
        tokens = jnp.where(labels >= 0, positions + kinds, positions)
        tokens = jnp.where(labels == NOT_A_POINT, not_a_point, tokens)
        return jnp.where(labels == PADDING, 0.0, tokens).astype(self.dtype)

    def embed_masks(self, masks: jax.Array | None, height: int, width: int) -> jax.Array:
        """Embed mask logits [B, M, H, W], one per image (M = 1) or per object, as [B, M, height, width, C].

        masks of any size are resized to 4 height x 4 width; None gives the learnt "no mask", [1, 1, ...].
        """
        if self.is_initializing():  # both branches own parameters
            self.mask_embed(jnp.zeros((1, 4, 4, 1), self.dtype))
        empty = self.no_mask_embed.embedding.astype(self.dtype)
        if masks is None:
            return jnp.broadcast_to(empty.reshape(1, 1, 1, 1, -1), (1, 1, height, width, empty.shape[-1]))
        masks = masks.astype(jnp.float32)
        batch, count = masks.shape[:2]
        size = (batch, count, 4 * height, 4 * width)
        if masks.shape != size:
            masks = jax.image.resize(masks, size, "bilinear", antialias=True)
        dense = self.mask_embed(masks.reshape(batch * count, *size[2:], 1).astype(self.dtype))
        return dense.reshape(batch, count, *dense.shape[1:])
