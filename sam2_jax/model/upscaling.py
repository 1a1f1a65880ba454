"""From the image at its coarsest to masks: two upscalings with skips, then a product with masks' weights.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; transformers Sam2MaskDecoder. What is upscaled
stays at its coarse position, as sub-pixels side by side, and only masks are rearranged. On a CPU and a GPU
sub-pixels are an axis before the channels. A TPU has 128 lanes for its last axis and pays for all of them:
there sub-pixels and channels are one axis, each layer is one product with a kernel of blocks, and masks come
into place by a product with ones and zeros.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.model.layers import Linear, gelu, layer_norm
from sam2_jax.model.platforms import on_tpu


def to_sub_pixels(x: jax.Array, height: int, width: int) -> jax.Array:
    """Lay out x [B, f height, f width, C] as upsampling does: [B, height * width, f * f, C].

    Each doubling adds its own two rows and columns, so those of f = 4 are in the order y1 x1 y2 x2.
    """
    forms = (partial(form, height=height, width=width) for form in (_moved, _convolved))
    return on_tpu(*forms, x)


def _moved(x: jax.Array, height: int, width: int) -> jax.Array:
    batch, channels = x.shape[0], x.shape[-1]
    if x.shape[1] == height:
        return x.reshape(batch, height * width, 1, channels)
    # The last doubling is the innermost: split it off and lay out the map of what is left.
    x = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, x.shape[1], x.shape[3], 4 * channels)
    return _moved(x, height, width).reshape(batch, height * width, -1, channels)


def _convolved(x: jax.Array, height: int, width: int) -> jax.Array:
    """Do as `_moved` by a convolution with ones and zeros, which is exact, and one pass on a TPU."""
    batch, factor, channels = x.shape[0], x.shape[1] // height, x.shape[-1]
    count = factor**2 * channels
    ones = jnp.eye(count, dtype=x.dtype).reshape(count, 1, factor**2, channels)
    kernel = from_sub_pixels(ones, 1, 1).transpose(1, 2, 3, 0)
    x = jax.lax.conv_general_dilated(
        x,
        kernel,
        (factor, factor),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=x.dtype,
    )
    return x.reshape(batch, height * width, factor**2, channels)


def from_sub_pixels(x: jax.Array, height: int, width: int) -> jax.Array:
    """Undo `to_sub_pixels`: [N, height * width, f * f, C] to [N, f height, f width, C]."""
    count, factor, channels = x.shape[0], x.shape[2], x.shape[-1]
    x = x.reshape(count, height, width, factor, channels)
    while factor > 1:
        factor //= 4
        height, width = 2 * height, 2 * width
        x = x.reshape(count, height // 2, width // 2, 2, 2, factor * channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(count, height, width, factor, channels)
    return x.reshape(count, height, width, channels)


def sub_pixels(x: jax.Array, layer: Linear, dtype: Any) -> jax.Array:
    """Upscale x [N, K, S, C] by a layer [C, 4 F] to [N, K, 4 S, F]."""
    return layer(x.reshape(-1, x.shape[-1]), dtype).reshape(*x.shape[:2], 4 * x.shape[2], -1)


class SubPixelUpsample(nn.Module):
    """Transposed convolution, kernel 2, stride 2: every position becomes 2x2, with no overlap.

    The four are kept side by side at their coarse position, where what follows position by position, and
    another such convolution, take them as they are; only the last result is rearranged.
    """

    in_features: int
    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        shape = (2, 2, self.in_features, self.features)
        self.kernel = self.param("kernel", nn.initializers.normal(0.02), shape, self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)

    def weights(self) -> Linear:
        """The convolution as a layer [in_features, 4 * features], the four of each position in order y, x."""
        return Linear(self.kernel.transpose(2, 0, 1, 3).reshape(self.in_features, -1), jnp.tile(self.bias, 4))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [N, K, S, in_features] to [N, K, 4 S, features]."""
        return sub_pixels(x, self.weights(), self.dtype)


class Upscaling(NamedTuple):
    """The weights between an image and its masks.

    first [C, 4 * C / 4] and second [C / 4, 4 * C / 8] are the layers of `SubPixelUpsample`; scale and bias
    [C / 4] those of the LayerNorm between them.
    """

    first: Linear
    scale: jax.Array
    bias: jax.Array
    second: Linear


EPSILON = 1e-6  # of the LayerNorm


class Upscaled(NamedTuple):
    """What masks are made of: image [B, P, K, C] at h x w = K positions, skips and weights of masks.

    fine [B, 1, K, 16, C / 8] and middle [B, 1, K, 4, C / 4] are the finer features as sub-pixels; hyper
    [B, P, M, C / 8] weighs the channels of what is upscaled.
    """

    image: jax.Array
    fine: jax.Array
    middle: jax.Array
    hyper: jax.Array


def masks_by_sub_pixel(inputs: Upscaled, weights: Upscaling, grid_size: tuple[int, int]) -> jax.Array:
    """Mask logits float32 [B, P, M, 4 h, 4 w], with sub-pixels as an axis."""
    image, fine, middle, hyper = inputs
    dtype = image.dtype
    lead = image.shape[:3]

    def add(x: jax.Array, skip: jax.Array) -> jax.Array:
        return x.reshape(*lead, *x.shape[2:]) + skip.astype(dtype)

    x = add(sub_pixels(image.reshape(-1, lead[2], 1, image.shape[3]), weights.first, dtype), middle)
    x = gelu(layer_norm(x, weights.scale, weights.bias, EPSILON, dtype))
    x = gelu(add(sub_pixels(x.reshape(-1, *x.shape[2:]), weights.second, dtype), fine))
    # Logits are compared with thresholds: no TF32 or bfloat16 passes here, where they cost little.
    masks = jnp.einsum(
        "bpksc,bpmc->bpksm",
        x,
        hyper,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    masks = from_sub_pixels(masks.reshape(lead[0] * lead[1], *masks.shape[2:]), *grid_size)
    masks = jnp.moveaxis(masks, -1, 1)
    return masks.reshape(*lead[:2], *masks.shape[1:])


def masks_in_lanes(inputs: Upscaled, weights: Upscaling, grid_size: tuple[int, int]) -> jax.Array:
    """Mask logits float32 [B, P, M, 4 h, 4 w], with sub-pixels and channels as one axis.

    LayerNorm's mean is taken out of the layer before it, which is linear; its variance is a product with a
    kernel of blocks.
    """
    image, fine, middle, hyper = inputs
    dtype = image.dtype
    (batch, objects, positions, _), (height, width) = image.shape, grid_size
    highest = jax.lax.Precision.HIGHEST
    features = weights.scale.shape[0]
    mean = jnp.kron(jnp.eye(4, dtype=jnp.float32), jnp.full((features, features), 1 / features, jnp.float32))

    def centred(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        return (x - jnp.matmul(x, mean, precision=highest)).astype(dtype)

    first = Linear(*map(centred, weights.first))
    x = first(image, dtype) + centred(middle.reshape(batch, 1, positions, -1))
    # Exact where x has 8 bits: its square has 16, which two of the three passes hold.
    passes = jax.lax.Precision.HIGH if dtype == jnp.bfloat16 else highest
    variance = jnp.matmul(jnp.square(x.astype(jnp.float32)), mean, precision=passes)
    scale, bias = (
        jnp.tile(p.astype(jnp.float32), 4).reshape(1, 1, 1, -1) for p in (weights.scale, weights.bias)
    )
    x = gelu((x.astype(jnp.float32) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias).astype(dtype))
    blocks_of_kernel = jnp.kron(jnp.eye(4, dtype=dtype), weights.second.kernel.astype(dtype))
    second = Linear(blocks_of_kernel, jnp.tile(weights.second.bias, 4))
    x = gelu(second(x, dtype) + fine.reshape(batch, 1, positions, -1).astype(dtype))
    # n: a mask and a sub-pixel, s: a sub-pixel
    count, channels = hyper.shape[2:]
    blocks = hyper[:, :, :, None, None] * jnp.eye(16, dtype=hyper.dtype).reshape(1, 1, 1, 16, 16, 1)
    blocks = blocks.reshape(batch, objects, count * 16, 16 * channels)
    masks = jnp.einsum("bpnc,bpkc->bpnk", blocks, x, precision=highest, preferred_element_type=jnp.float32)
    masks = masks.reshape(batch, objects, count, 2, 2, 2, 2, height, width)
    # Sub-pixel (v, u) of (y, x) of column w goes to column 4 w + 2 x + u: v and y stay rows.
    where = jnp.eye(4 * width, dtype=jnp.float32).reshape(width, 2, 2, -1).transpose(1, 2, 0, 3)
    masks = jnp.einsum("bpmyxvuhw,xuwW->bpmhyvW", masks, where, precision=highest)
    return masks.reshape(batch, objects, count, 4 * height, 4 * width)
