"""The feature pyramid over Hiera's stages. Source: Lin et al. 2017 (arXiv:1612.03144); Sam2VisionNeck."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2VisionConfig


def upsample_nearest(x: jax.Array) -> jax.Array:
    """Double height and width of x [B, H, W, C] by repetition."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class FeaturePyramid(nn.Module):
    """1x1 lateral convolutions; the deep levels named in `fpn_top_down_levels` are added from above."""

    config: Sam2VisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        self.convs = [
            nn.Conv(
                self.config.fpn_hidden_size,
                (1, 1),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=nn.initializers.normal(self.config.initializer_range),
            )
            for _ in self.config.backbone_channel_list
        ]

    def __call__(self, stages: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Map stage outputs (strides 4 ... 32) to pyramid levels of equal width, in the same order.

        The deepest level only feeds the one above it and is not returned.
        """
        last = len(stages) - 1
        levels: list[jax.Array] = []
        above: jax.Array | None = None
        for i in range(last, -1, -1):
            lateral = self.convs[last - i](stages[i])  # parameters are listed from deep to shallow
            if above is not None and i in self.config.fpn_top_down_levels:
                lateral = lateral + upsample_nearest(above)
            above = lateral
            levels.insert(0, above)
        return tuple(levels[: self.config.num_feature_levels])
