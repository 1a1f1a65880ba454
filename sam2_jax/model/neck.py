"""The feature pyramid over Hiera's stages. Source: Lin et al. 2017 (arXiv:1612.03144); Sam2VisionNeck."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2VisionConfig
from sam2_jax.model.layers import Dense, Linear
from sam2_jax.model.platforms import on_tpu
from sam2_jax.model.windows import move


def upsample_nearest(x: jax.Array) -> jax.Array:
    """Double height and width of x [B, H, W, C] by repetition."""

    def product(x: jax.Array) -> jax.Array:
        return move("byxc,xX->byXc", x, jnp.eye(x.shape[2], dtype=x.dtype).repeat(2, axis=1))

    return on_tpu(lambda x: x.repeat(2, axis=2), product, x).repeat(2, axis=1)


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

    def laterals(self, narrow: tuple[Linear, ...] = ()) -> tuple[Linear, ...]:
        """The layer that each stage's map (strides 4 ... 32) goes through, for `join`.

        narrow holds layers that the finest levels go through last. Where no other level needs one of these at
        full width, both layers are one.
        """
        laterals = [conv.weights() for conv in reversed(self.convs)]  # they are listed from deep to shallow
        for i in self._narrowed_at_once(len(narrow)):
            laterals[i] = laterals[i].then(narrow[i])
        return tuple(laterals)

    def _narrowed_at_once(self, count: int) -> list[int]:
        top_down = self.config.fpn_top_down_levels
        return [i for i in range(min(count, len(self.convs) - 1)) if not {i, i - 1} & set(top_down)]

    def __call__(
        self, stages: tuple[jax.Array, ...], narrow: tuple[Linear, ...] = ()
    ) -> tuple[jax.Array, ...]:
        """Map stage outputs (strides 4 ... 32) to pyramid levels of equal width, in the same order."""
        laterals = zip(self.laterals(narrow), stages, strict=True)
        return self.join(tuple(layer(stage, self.dtype) for layer, stage in laterals), narrow)

    def join(self, laterals: tuple[jax.Array, ...], narrow: tuple[Linear, ...] = ()) -> tuple[jax.Array, ...]:
        """Add to the maps that came through `laterals` what comes from above, and narrow what is not yet.

        The deepest level only feeds the one above it and is not returned.
        """
        at_once = self._narrowed_at_once(len(narrow))
        levels: list[jax.Array] = []
        above: jax.Array | None = None
        for i in reversed(range(len(laterals))):
            level = laterals[i]
            if i in at_once:
                levels.insert(0, level)
                continue
            if above is not None and i in self.config.fpn_top_down_levels:
                level = level + upsample_nearest(above)
            above = level
            levels.insert(0, narrow[i](level, self.dtype) if i < len(narrow) else level)
        return tuple(levels[: self.config.num_feature_levels])
