"""Pixels to tokens: overlapping patches of a picture, each by one linear layer.

Source: Ryali et al. 2023 (arXiv:2306.00989); transformers Sam2PatchEmbeddings.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.platforms import on_tpu


class PatchProjection(nn.Module):
    """The convolution of `PatchEmbedding`, without padding, in the form that suits the platform."""

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: jax.Array, is_whole: bool = False) -> jax.Array:
        """Map padded pixels [B, (H - 1) stride + kernel, ..., 3] to tokens [B, H, W, C].

        Whole images have the padding, zeros, on all sides.
        """
        config = self.config
        shape = (*config.patch_kernel_size, pixels.shape[-1], config.hidden_size)
        init = nn.initializers.normal(config.initializer_range)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        operands = [x.astype(self.dtype) for x in (pixels, kernel, bias.reshape(1, 1, 1, -1))]
        convolve = partial(_convolve, stride=config.patch_stride)
        if not is_whole:
            return convolve(*operands)
        in_depth = partial(_convolve_in_depth, stride=config.patch_stride, padding=config.patch_padding)
        return on_tpu(convolve, in_depth, *operands)


def _convolve(pixels: jax.Array, kernel: jax.Array, bias: jax.Array, stride: Sequence[int]) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(pixels, kernel, stride, "VALID", dimension_numbers=dimensions)
    return out + bias


def _convolve_in_depth(
    pixels: jax.Array, kernel: jax.Array, bias: jax.Array, stride: Sequence[int], padding: Sequence[int]
) -> jax.Array:
    """Do as `_convolve`, with stride x stride pixels as the channels of one place.

    A strided convolution of 3 channels would leave most of a TPU's lanes empty. A patch is a few whole
    places, side by side for one product; where the outer ones reach beyond the kernel its weights are zero.
    The padding is taken off again, which XLA takes back, and put on in whole places.
    """
    batch, *padded, channels = pixels.shape
    taps = kernel.shape[:2]
    axes = list(zip(padded, taps, stride, padding, strict=True))
    tokens = [(size - tap) // step + 1 for size, tap, step, _ in axes]
    before = [-(-pad // step) for _, _, step, pad in axes]  # places of zeros
    places = [-(-(n * step - pad + tap) // step) for n, (_, tap, step, pad) in zip(before, axes, strict=True)]
    rests = [-(size - 2 * pad) % step for size, _, step, pad in axes]
    x = pixels[:, padding[0] : padded[0] - padding[0], padding[1] : padded[1] - padding[1]]
    x = jnp.pad(x, ((0, 0), (0, rests[0]), (0, rests[1]), (0, 0)))
    rows, columns = (n // step for n, step in zip(x.shape[1:3], stride, strict=True))
    # Columns first, then rows: a TPU takes two cheap steps so, and two dear ones otherwise.
    x = x.transpose(0, 3, 1, 2).reshape(batch, channels, -1, columns, stride[1]).swapaxes(3, 4)
    x = x.reshape(batch, channels, rows, *stride, columns).transpose(0, 1, 3, 4, 2, 5)
    x = x.reshape(batch, -1, rows, columns)
    after = [n + p - 1 - b - size for n, p, b, size in zip(tokens, places, before, x.shape[2:], strict=True)]
    x = jnp.pad(x, ((0, 0), (0, 0), *((b, max(a, 0)) for b, a in zip(before, after, strict=True))))
    corners = [(i, j) for i in range(places[0]) for j in range(places[1])]
    patches = [x[:, :, i : i + tokens[0], j : j + tokens[1]] for i, j in corners]
    beyond = [n * step - pad for n, (_, _, step, pad) in zip(before, axes, strict=True)]
    ends = [p * step - b - tap for p, b, (_, tap, step, _) in zip(places, beyond, axes, strict=True)]
    kernel = jnp.pad(kernel, (*zip(beyond, ends, strict=True), (0, 0), (0, 0)))
    kernel = kernel.reshape(places[0], stride[0], places[1], stride[1], channels, -1)
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(-1, kernel.shape[-1])
    return jnp.einsum("bkyx,kc->byxc", jnp.concatenate(patches, axis=1), kernel) + bias


class PatchEmbedding(nn.Module):
    """Overlapping 7x7 patches at stride 4. Source: Sam2PatchEmbeddings."""

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        self.projection = PatchProjection(self.config, dtype=self.dtype, param_dtype=self.param_dtype)

    def pad(self, pixel_values: jax.Array) -> jax.Array:
        """Surround pixels [B, H, W, 3] with the zeros that the outermost patches reach into."""
        return jnp.pad(pixel_values, ((0, 0), *((p, p) for p in self.config.patch_padding), (0, 0)))

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Map pixels [B, H, W, 3] to tokens [B, H / 4, W / 4, C]."""
        return self.projection(self.pad(pixel_values), is_whole=True)

    def rows(self, padded: jax.Array, first: int | jax.Array, count: int) -> jax.Array:
        """Embed only these rows of tokens, [B, count, W / 4, C], from the padded pixels."""
        stride, kernel = self.config.patch_stride[0], self.config.patch_kernel_size[0]
        size = (count - 1) * stride + kernel
        if padded.shape[1] < size + stride:
            return self.projection(padded, is_whole=True)
        rows = jax.lax.dynamic_slice_in_dim(padded, first * stride, size, axis=1)
        return self.projection(rows)
