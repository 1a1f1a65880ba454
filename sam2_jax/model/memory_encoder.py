"""The memory encoder: a frame's features and an object's mask become that object's memory of the frame.

Source: Ravi et al. 2024 (arXiv:2408.00714), section 4; transformers Sam2VideoMemoryEncoder. The fuser's
blocks are ConvNeXt's, Liu et al. 2022 (arXiv:2201.03545).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.layers import Dense, LayerNorm, gelu
from sam2_jax.model.platforms import on_cpu

# Maps of fewer positions are not worth a program of a CPU's own.
_LARGE_MAP = 32 * 32
# Rows of a map that a step of a depthwise convolution takes on a CPU: they fit its cache.
_ROWS_PER_STEP = 8


class MaskDownsampler(nn.Module):
    """Masks at the network's input size to the size of its coarsest features, by strided convolutions."""

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        count, stride = config.mask_downsampler_layers, config.mask_downsampler_stride
        widths = [stride ** (2 * i) for i in range(count + 1)]
        self.layers = [ConvolutionAndNorm(config, width, **types) for width in widths[1:]]
        self.final_conv = Dense(widths[-1], config.mask_downsampler_embed_dim, convolution=True, **types)

    def __call__(self, masks: jax.Array) -> jax.Array:
        """Map masks [P, H, W, 1] to [P, h, w, C]."""
        for layer in self.layers:
            masks = layer(masks)
        return self.final_conv(masks)


class ConvolutionAndNorm(nn.Module):
    """One layer of the downsampler."""

    config: Sam2VideoConfig
    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        side, stride = config.mask_downsampler_kernel_size, config.mask_downsampler_stride
        padding = ((config.mask_downsampler_padding,) * 2,) * 2
        self.conv = nn.Conv(
            self.features, (side, side), (stride, stride), padding, kernel_init=_normal(config), **types
        )
        self.layer_norm = LayerNorm(1e-6, **types)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [P, H, W, C] to [P, H / stride, W / stride, features]."""
        return gelu(self.layer_norm(self.conv(x)))


class MemoryFuser(nn.Module):
    """ConvNeXt blocks over features and mask."""

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        blocks = range(self.config.memory_fuser_num_layers)
        self.layers = [FuserBlock(self.config, self.dtype, self.param_dtype) for _ in blocks]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [P, h, w, C] to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class DepthwiseConvolution(nn.Module):
    """A convolution of each channel by itself; of large maps on a CPU as a sum of shifted maps.

    XLA makes one loop of that, and takes a twelfth of the time of its convolutions in so many groups. A few
    rows at a time: of whole maps it would write down each shifted one for the norm that follows.
    """

    features: int
    side: int
    padding: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [P, h, w, features] to the same shape."""
        shape = self.side, self.side, 1, self.features
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        if x.shape[1] * x.shape[2] >= _LARGE_MAP and on_cpu():
            out = self._shifted(x, kernel)
        else:
            around = ((self.padding,) * 2,) * 2
            out = jax.lax.conv_general_dilated(
                x.astype(self.dtype),
                kernel.astype(self.dtype),
                (1, 1),
                around,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=self.features,
            )
        return out + bias.astype(self.dtype).reshape(1, 1, 1, -1)

    def _shifted(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        around = (self.padding, self.padding)
        padded = jnp.pad(x.astype(jnp.float32), ((0, 0), around, around, (0, 0)))
        rows = max(count for count in range(1, _ROWS_PER_STEP + 1) if height % count == 0)

        def some_rows(first: jax.Array) -> jax.Array:
            near = jax.lax.dynamic_slice_in_dim(padded, first, rows + self.side - 1, axis=1)
            shifts = np.ndindex(self.side, self.side)
            total = sum(
                near[:, i : i + rows, j : j + width] * kernel[i, j].astype(jnp.float32)[None, None]
                for i, j in shifts
            )
            return jnp.asarray(total, self.dtype)

        return jax.lax.map(some_rows, jnp.arange(0, height, rows)).swapaxes(0, 1).reshape(x.shape)


class FuserBlock(nn.Module):
    """Depthwise convolution, then two linear layers, scaled channel by channel and added."""

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width, hidden = config.memory_fuser_embed_dim, config.memory_fuser_intermediate_dim
        init, side, padding = _normal(config), config.memory_fuser_kernel_size, config.memory_fuser_padding
        self.depthwise_conv = DepthwiseConvolution(width, side, padding, **types, kernel_init=init)
        self.layer_norm = LayerNorm(1e-6, **types)
        self.pointwise_conv1 = Dense(width, hidden, kernel_init=init, **types)
        self.pointwise_conv2 = Dense(hidden, width, kernel_init=init, **types)
        initial = nn.initializers.constant(config.memory_fuser_layer_scale_init_value)
        self.layer_scale = self.param("layer_scale", initial, (width,), self.param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [P, h, w, C] to the same shape."""
        y = self.layer_norm(self.depthwise_conv(x))
        y = self.pointwise_conv2(gelu(self.pointwise_conv1(y)))
        return x + y * self.layer_scale.astype(self.dtype).reshape(1, 1, 1, -1)


class MemoryEncoder(nn.Module):
    """Features of a frame and masks of its objects to memories; the features' share is its own method."""

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width, channels = config.memory_encoder_hidden_size, config.memory_encoder_output_channels
        self.mask_downsampler = MaskDownsampler(config, **types)
        self.feature_projection = Dense(width, width, convolution=True, **types)
        self.memory_fuser = MemoryFuser(config, **types)
        self.projection = Dense(width, channels, convolution=True, **types)

    def project(self, features: jax.Array) -> jax.Array:
        """Features [B, h, w, C], without memory or the embedding that says so, as __call__ takes them."""
        return self.feature_projection(features)

    def __call__(self, projected: jax.Array, masks: jax.Array) -> jax.Array:
        """Memories [P, h, w, D] of P objects.

        projected: what `project` gives, [P or 1, h, w, C]. masks: [P, H, W], float32, from
        sigmoid_bias_for_mem_enc outside to sigmoid_scale_for_mem_enc more inside.
        """
        down = self.mask_downsampler(masks[..., None].astype(self.dtype))
        return self.projection(self.memory_fuser(projected + down))


def _normal(config: Sam2VideoConfig) -> Any:
    return nn.initializers.normal(config.initializer_range)
