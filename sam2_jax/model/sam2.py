"""The assembled image network: encode an image once, then decode masks for any prompts on it.

Source: Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos (arXiv:2408.00714); Sam2Model.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2Config, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.model.hiera import Hiera
from sam2_jax.model.layers import Linear, one_by_one, recording
from sam2_jax.model.mask_decoder import MaskDecoder, MaskPrediction
from sam2_jax.model.neck import FeaturePyramid
from sam2_jax.model.platforms import for_each_platform, on_cpu
from sam2_jax.model.positions import RandomFourierEmbedding, sine_positions
from sam2_jax.model.prompt_encoder import PADDING, PromptEncoder

# Smaller images fit a CPU's cache several at once.
_LARGE_IMAGE = 512 * 512

ImageEmbeddings = tuple[jax.Array, jax.Array, jax.Array]


class VisionFeatures(NamedTuple):
    """What the vision encoder makes of B images, finest level first.

    last_hidden_state: the backbone's last map [B, H / 32, W / 32, C]. levels: pyramid levels
    [B, H / s, W / s, C] at strides s of 4, 8 and 16. positions: their sinusoidal positions, of as many
    channels before any projection, [B, H / s, W / s, C], float32.
    """

    last_hidden_state: jax.Array
    levels: tuple[jax.Array, ...]
    positions: tuple[jax.Array, ...]


export.register_namedtuple_serialization(VisionFeatures, serialized_name="sam2_jax.VisionFeatures")


class VisionEncoder(nn.Module):
    """Hiera and its feature pyramid. Source: Sam2VisionModel."""

    config: Sam2VisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.backbone = Hiera(self.config.backbone_config, **types, remat=self.remat)
        self.neck = FeaturePyramid(self.config, **types)

    @for_each_platform
    def __call__(self, pixel_values: jax.Array, narrow: tuple[Linear, ...] = ()) -> VisionFeatures:
        """Map pixels [B, H, W, 3] to features; narrow holds layers that the finest levels go through last."""
        last, levels = self._encode_batch(pixel_values, narrow)
        return VisionFeatures(
            last_hidden_state=last,
            levels=levels,
            positions=tuple(self._positions(*level.shape[:3]) for level in levels),
        )

    def _positions(self, batch: int, height: int, width: int) -> jax.Array:
        features = self.config.fpn_hidden_size
        return jnp.broadcast_to(sine_positions(height, width, features), (batch, height, width, features))

    def _encode(self, pixel_values: jax.Array, narrow: tuple[Linear, ...]) -> tuple[jax.Array, Any]:
        """Return the backbone's last map and the pyramid levels."""
        laterals, last = self.backbone.project(pixel_values, self.neck.laterals(narrow))
        return last, self.neck.join(laterals, narrow)

    def _encode_batch(self, pixel_values: jax.Array, narrow: tuple[Linear, ...]) -> tuple[jax.Array, Any]:
        """Encode images, on a CPU one after the other: its cache holds the maps of one at best."""
        batch, height, width, _ = pixel_values.shape
        records = any(recording(self, name) for name in ("hidden_states", "attentions"))
        if batch == 1 or records or height * width < _LARGE_IMAGE or not on_cpu():
            return self._encode(pixel_values, narrow)
        encode = partial(VisionEncoder._encode, narrow=narrow)
        return one_by_one(self, encode, pixel_values, 0, batch)


class Sam2(nn.Module):
    """SAM 2's image network as a pure function of its parameters.

    Parameters are named as in transformers' checkpoints. `dtype` is the computing type, float32 or bfloat16.
    Height and width may be any multiples of the network's stride (32 for every released model). `remat`
    trades time for memory in gradients: the backbone's blocks are computed again.
    """

    config: Sam2Config | Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = config.prompt_encoder_config.hidden_size
        self.vision_encoder = VisionEncoder(config.vision_config, **types, remat=self.remat)
        self.shared_image_embedding = RandomFourierEmbedding(width, config.prompt_encoder_config.scale)
        self.prompt_encoder = PromptEncoder(config.prompt_encoder_config, **types)
        self.mask_decoder = MaskDecoder(config.mask_decoder_config, **types)
        self.no_memory_embedding = self.param(
            "no_memory_embedding", nn.initializers.zeros, (1, 1, width), self.param_dtype
        )

    @for_each_platform
    def encode_image(self, pixel_values: jax.Array) -> ImageEmbeddings:
        """Embed pixels [B, H, W, 3] as [B, H/4, W/4, C/8], [B, H/8, W/8, C/4] and [B, H/16, W/16, C]."""
        fine, middle, coarse = self.image_features(pixel_values).levels
        return fine, middle, coarse + self.no_memory_embedding[None].astype(self.dtype)

    @for_each_platform
    def image_features(self, pixel_values: jax.Array) -> VisionFeatures:
        """Features of pixels [B, H, W, 3], the two finer levels narrowed to C / 8 and C / 4 for the decoder.

        The coarsest level is as the pyramid gives it, without the embedding that says: no memory.
        """
        return self.vision_encoder(pixel_values, self.mask_decoder.feature_projections())

    def image_positions(self) -> jax.Array:
        """Positions of the coarsest embedding's cells, float32 [1, h, w, C], at the configured image size."""
        patch = self.config.prompt_encoder_config.patch_size
        height, width = self.config.part(Sam2Config)[0].image_size
        return self.shared_image_embedding.grid(height // patch, width // patch)

    def encode_prompts(
        self,
        points: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None,
        grid_size: tuple[int, int],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Embed prompts for an image whose coarsest embedding is grid_size = (h, w).

        points: [B, P, N, 2], (x, y) in pixels of the network's input; labels: [B, P, N] (see PromptEncoder).
        masks: logits [B, P or 1, H, W] or None. Returns sparse [B, P, N + 1, C], its mask [B, P, N + 1] that
        is False for padding, and dense [B or 1, P or 1, h, w, C].
        """
        height, width = grid_size
        patch = self.config.prompt_encoder_config.patch_size
        sparse = self.prompt_encoder.embed_points(
            points, labels, (height * patch, width * patch), self.shared_image_embedding
        )
        token_mask = jnp.pad(labels != PADDING, ((0, 0), (0, 0), (0, 1)), constant_values=True)
        return sparse, token_mask, self.prompt_encoder.embed_masks(masks, height, width)

    @for_each_platform
    def decode_masks(
        self,
        image_embeddings: ImageEmbeddings,
        points: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None = None,
        attention_similarity: jax.Array | None = None,
        target_embedding: jax.Array | None = None,
        image_positions: jax.Array | None = None,
        min_score: jax.Array | None = None,
        *,
        multimask_output: bool = True,
        mask_padding: bool = True,
    ) -> MaskPrediction:
        """Predict masks for prompts on encoded images.

        image_positions are what `image_positions` returns, a constant of the weights; computed if not given.
        mask_padding=False lets padding take part in attention, as transformers does. The other arguments are
        those of `encode_image`, `encode_prompts` and `MaskDecoder`.
        """
        height, width = image_embeddings[2].shape[1:3]
        grid_size = height, width
        if image_positions is None:
            image_positions = self.shared_image_embedding.grid(*grid_size)
        sparse, token_mask, dense = self.encode_prompts(points, labels, masks, grid_size)
        prediction = self.mask_decoder(
            image_embeddings,
            image_positions,
            sparse,
            dense,
            token_mask if mask_padding else None,
            attention_similarity,
            target_embedding,
            min_score,
            multimask_output=multimask_output,
        )
        return self.mask_decoder.select(prediction, multimask_output)

    @for_each_platform
    def __call__(
        self,
        pixel_values: jax.Array,
        points: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None = None,
        *,
        multimask_output: bool = True,
    ) -> MaskPrediction:
        """Encode images and decode masks in one go; arguments as in `encode_image` and `decode_masks`."""
        return self.decode_masks(
            self.encode_image(pixel_values), points, labels, masks, multimask_output=multimask_output
        )
