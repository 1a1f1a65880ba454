"""The feature pyramid over Hiera's stages. Source: Lin et al. 2017 (arXiv:1612.03144); Sam2VisionNeck."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2VisionConfig
from sam2_jax.model.layers import Dense, Linear


def upsample_nearest(x: jax.Array) -> jax.Array:
    """Double height and width of x [B, H, W, C] by repetition."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class FeaturePyramid(nn.Module):
    """1x1 lateral convolutions; the deep levels named in `fpn_top_down_levels` are added from above."""

    config: Sam2VisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.convs = [
            Dense(
                channels,
                config.fpn_hidden_size,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=nn.initializers.normal(config.initializer_range),
                convolution=True,
            )
            for channels in config.backbone_channel_list
        ]

    def __call__(
        self, stages: tuple[jax.Array, ...], narrow: tuple[Linear, ...] = ()
    ) -> tuple[jax.Array, ...]:
        """Map stage outputs (strides 4 ... 32) to pyramid levels of equal width, in the same order.

        The deepest level only feeds the one above it and is not returned. narrow holds layers that the
        finest levels go through last. Such a level is not formed at full width where no other one needs it.
        """
        last = len(stages) - 1
        top_down = self.config.fpn_top_down_levels
        levels: list[jax.Array] = []
        above: jax.Array | None = None
        for i in range(last, -1, -1):
            lateral = self.convs[last - i]  # parameters are listed from deep to shallow
            if i < len(narrow) and i not in top_down and i - 1 not in top_down:
                levels.insert(0, lateral.weights().then(narrow[i])(stages[i], self.dtype))
                continue
            level = lateral(stages[i])
            if above is not None and i in top_down:
                level = level + upsample_nearest(above)
            above = level
            levels.insert(0, narrow[i](level, self.dtype) if i < len(narrow) else level)
        return tuple(levels[: self.config.num_feature_levels])
