"""Positions: torch's bicubic resize, sines, random Fourier features; float32 whatever the model's dtype."""

from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@lru_cache
def bicubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Weights [size_out, size_in], float32, of torch's bicubic interpolation along one axis.

    Cubic convolution (Keys 1981) with a = -0.75, pixel centres (align_corners=False), no antialiasing, and
    taps past the border clamped to it. `jax.image.resize` has a = -0.5 and renormalises at the border.
    """
    a = -0.75
    centre = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((size_out, size_in))
    for tap in range(-1, 3):
        d = np.abs(centre - (first + tap))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        index = np.clip(first + tap, 0, size_in - 1)
        np.add.at(matrix, (np.arange(size_out), index), np.where(d <= 1, near, far))
    return matrix.astype(np.float32)


def resize_bicubic(grid: jax.Array, height: int, width: int) -> jax.Array:
    """Resize grid [B, h, w, C] to [B, height, width, C] as torch's `interpolate(mode="bicubic")` does."""
    for axis, size, letters in ((1, height, "Hh,bhwc->bHwc"), (2, width, "Ww,bhwc->bhWc")):
        if grid.shape[axis] != size:
            matrix = bicubic_matrix(grid.shape[axis], size)
            grid = jnp.einsum(letters, matrix, grid, precision=jax.lax.Precision.HIGHEST)
    return grid


@lru_cache
def sine_table(size: int, features: int, temperature: float = 10000.0) -> np.ndarray:
    """Sines and cosines [size, features], float32, of positions 1 ... size spread over one turn.

    Feature k has the wavelength of temperature^(2 floor(k / 2) / features); even k are sines, odd k cosines.
    """
    angles = 2 * np.pi * np.arange(1, size + 1)[:, None] / (size + 1e-6)
    angles = angles / temperature ** (2 * (np.arange(features) // 2) / features)
    return np.where(np.arange(features) % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


def sine_positions(height: int, width: int, features: int) -> jax.Array:
    """Sinusoidal positions of a height x width map, float32 [1, height, width, features]: y's half, then x's.

    Source: Carion et al. 2020 (arXiv:2005.12872), normalised; transformers Sam2SinePositionEmbedding.
    """
    half = features // 2
    y = jnp.asarray(sine_table(height, half))[None, :, None]
    x = jnp.asarray(sine_table(width, half))[None, None]
    shape = (1, height, width, half)
    return jnp.concatenate([jnp.broadcast_to(y, shape), jnp.broadcast_to(x, shape)], axis=-1)


def rotary_table(height: int, width: int, channels: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines, float32 [height * width, channels / 2], by which `rotate` turns a map's tokens.

    Half of the pairs of channels turn with x, the others with y, both counted in tokens; pair k of either
    half turns by theta^(-4 k / channels) a token. Source: Heo et al. 2024 (arXiv:2403.13298), axial;
    transformers Sam2VideoVisionRotaryEmbedding.
    """
    exponents = np.arange(0, channels // 2, 2, dtype=np.float32) / np.float32(channels // 2)
    frequencies = 1 / np.float32(theta) ** exponents
    shape = height, width, channels // 4
    x = np.broadcast_to((np.arange(width, dtype=np.float32)[:, None] * frequencies)[None], shape)
    y = np.broadcast_to((np.arange(height, dtype=np.float32)[:, None] * frequencies)[:, None], shape)
    angles = np.concatenate([x, y], axis=-1).reshape(height * width, -1)
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn tokens x [..., S, H, C], channel k together with k + C / 2, by a `rotary_table`; in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    shape = (1,) * (x.ndim - 3) + (x.shape[-3], 1, x.shape[-1] // 2)
    cos, sin = (part.reshape(shape) for part in table)
    turned = [first * cos - second * sin, first * sin + second * cos]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def sine_offsets(offsets: jax.Array, features: int, temperature: float = 10000.0) -> jax.Array:
    """Sines, then cosines, float32 [..., features], of distances in time [...].

    Source: transformers get_1d_sine_pe, in the video model.
    """
    half = features // 2
    wavelengths = temperature ** (2 * (np.arange(half) // 2) / half)
    angles = offsets[..., None] / wavelengths.astype(np.float32).reshape((1,) * offsets.ndim + (half,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class RandomFourierEmbedding(nn.Module):
    """Random Fourier features of 2-D positions, shared by the prompts and the dense image grid.

    The matrix is a constant of the checkpoint, never trained. Source: transformers Sam2PositionalEmbedding;
    Tancik et al. 2020 (arXiv:2006.10739).
    """

    features: int
    scale: float = 1.0

    def setup(self) -> None:
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(self.scale), (2, self.features // 2), jnp.float32
        )

    def __call__(self, positions: jax.Array) -> jax.Array:
        """Embed positions [..., 2], (x, y) with the image spanning [0, 1], as float32 [..., features]."""
        frequencies = jax.lax.stop_gradient(self.positional_embedding.astype(jnp.float32))
        centred = 2 * positions.astype(jnp.float32) - 1
        # Written out: as a matrix product this would run in TF32 or bfloat16 on accelerators.
        shape = (1,) * (centred.ndim - 1) + (-1,)
        x_part = centred[..., :1] * frequencies[0].reshape(shape)
        y_part = centred[..., 1:] * frequencies[1].reshape(shape)
        angles = 2 * np.pi * (x_part + y_part)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    def grid(self, height: int, width: int) -> jax.Array:
        """Embed the centres of a height x width grid of cells, float32 [1, height, width, features]."""
        y = (np.arange(height, dtype=np.float32) + 0.5) / height
        x = (np.arange(width, dtype=np.float32) + 0.5) / width
        return self(jnp.asarray(np.stack(np.meshgrid(x, y), axis=-1)[None]))
