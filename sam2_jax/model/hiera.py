"""Hiera, the hierarchical vision transformer under SAM 2.

Source: Ryali et al. 2023 (arXiv:2306.00989), with the windowed positional embedding of Bolya et al. 2023
(arXiv:2311.05613); transformers Sam2HieraDetModel.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.layers import MLP, attend, gelu, layer_norm, recording
from sam2_jax.model.positions import resize_bicubic


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max pooling of x [..., H, W, C] to [..., H // 2, W // 2, C]; odd last rows are dropped."""
    *lead, height, width, channels = x.shape
    x = x[..., : height // 2 * 2, : width // 2 * 2, :]
    return x.reshape(*lead, height // 2, 2, width // 2, 2, channels).max(axis=(-4, -2))


def window_partition(x: jax.Array, window: int) -> jax.Array:
    """Cut x [B, H, W, C] into [B, N, window, window, C], zeros filling up the last row and column of windows.

    window 0 means the whole map as one window.
    """
    batch, height, width, channels = x.shape
    if window == 0:
        return x[:, None]
    x = jnp.pad(x, ((0, 0), (0, -height % window), (0, -width % window), (0, 0)))
    rows, columns = x.shape[1] // window, x.shape[2] // window
    x = x.reshape(batch, rows, window, columns, window, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, window, window, channels)


def window_unpartition(windows: jax.Array, height: int, width: int) -> jax.Array:
    """Put windows [B, N, h, w, C] back together as [B, height, width, C], dropping the filling."""
    batch, count, window_h, window_w, channels = windows.shape
    columns = -(-width // window_w)
    x = windows.reshape(batch, count // columns, columns, window_h, window_w, channels).swapaxes(2, 3)
    return x.reshape(batch, -1, columns * window_w, channels)[:, :height, :width]


class MultiScaleAttention(nn.Module):
    """Self-attention inside windows; the first block of a stage pools its queries 2x2.

    The zeros that fill up a window take part as keys, as in the reference. Source: Sam2MultiScaleAttention.
    """

    features: int
    num_heads: int
    pool_queries: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, windows: jax.Array) -> jax.Array:
        """Attend within windows [B, N, h, w, C]; returns [B, N, h', w', features], halved if pooling.

        Sows the weights [B, N, heads, h' * w', h * w] into collection "attentions".
        """
        dense = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": self.kernel_init}
        batch, count, height, width, _ = windows.shape
        qkv = nn.Dense(3 * self.features, name="qkv", **dense)(windows)
        query, key, value = jnp.split(qkv, 3, axis=-1)
        if self.pool_queries:
            query = max_pool(query)
            height, width = query.shape[2:4]

        def heads(x: jax.Array) -> jax.Array:
            return x.reshape(batch, count, -1, self.num_heads, self.features // self.num_heads)

        wanted = recording(self, "attentions")
        out, weights = attend(heads(query), heads(key), heads(value), return_weights=wanted)
        if wanted:
            self.sow("attentions", "weights", weights)
        out = out.reshape(batch, count, height, width, self.features)
        return nn.Dense(self.features, name="proj", **dense)(out)


class MultiScaleBlock(nn.Module):
    """Pre-norm transformer block: windowed attention, MLP, and where a stage begins, pooling and widening.

    Source: Sam2MultiScaleBlock.
    """

    features: int
    num_heads: int
    window: int
    pool: bool
    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [B, H, W, C] to [B, H', W', features]; H' and W' are halved in a pooling block."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        kernel_init = nn.initializers.normal(self.config.initializer_range)
        epsilon = self.config.layer_norm_eps
        shortcut = x
        y = layer_norm(epsilon, **types, name="layer_norm1")(x)
        if x.shape[-1] != self.features:
            # The shortcut is projected from the normalised input, then pooled.
            shortcut = nn.Dense(self.features, kernel_init=kernel_init, name="proj", **types)(y)
            if self.pool:
                shortcut = max_pool(shortcut)
        y = MultiScaleAttention(
            self.features, self.num_heads, self.pool, kernel_init=kernel_init, name="attn", **types
        )(window_partition(y, self.window))
        x = shortcut + window_unpartition(y, shortcut.shape[1], shortcut.shape[2])
        hidden = int(self.features * self.config.mlp_ratio)
        y = layer_norm(epsilon, **types, name="layer_norm2")(x)
        return x + MLP((hidden, self.features), gelu, kernel_init=kernel_init, name="mlp", **types)(y)


class PatchEmbedding(nn.Module):
    """Overlapping 7x7 patches at stride 4. Source: Sam2PatchEmbeddings."""

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Map pixels [B, H, W, 3] to tokens [B, H / 4, W / 4, C]."""
        config = self.config
        return nn.Conv(
            config.hidden_size,
            config.patch_kernel_size,
            config.patch_stride,
            [(p, p) for p in config.patch_padding],
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.normal(config.initializer_range),
            name="projection",
        )(pixel_values)


# Strips of windows that a large map is cut into, each small enough for a CPU's second-level cache.
_STRIPS = 16
_LARGE_MAP = 128 * 128


def _gains_from_strips(block: MultiScaleBlock, x: jax.Array) -> bool:
    """Whether a block is to run strip by strip: on a CPU, unrecorded, its windows dividing a large map."""
    height, width = x.shape[1:3]
    return (
        jax.default_backend() == "cpu"
        and not block.is_initializing()
        and not recording(block, "attentions")
        and block.window > 0
        and height % (block.window * _STRIPS) == 0
        and width % block.window == 0
        and height * width >= _LARGE_MAP
    )


def _in_strips(block: MultiScaleBlock, x: jax.Array) -> jax.Array:
    """Run a windowed block on x [B, H, W, C] strip by strip: the same numbers, out of the cache."""
    batch, height, width, channels = x.shape
    strips = x.reshape(batch, _STRIPS, height // _STRIPS, width, channels).swapaxes(0, 1)
    run = nn.scan(
        lambda module, _, strip: (None, module(strip)),
        variable_broadcast="params",
        split_rngs={"params": False},
    )
    out = run(block, None, strips)[1].swapaxes(0, 1)
    return out.reshape(batch, -1, *out.shape[3:])


class Hiera(nn.Module):
    """The backbone: patch embedding, positions, then the blocks of all stages.

    Sows each block's input and the last output into collection "hidden_states".
    """

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        zeros = nn.initializers.zeros
        self.patch_embed = PatchEmbedding(config, **types)
        background = config.window_positional_embedding_background_size
        window = config.window_size_per_stage[0]
        self.pos_embed = self.param(
            "pos_embed", zeros, (1, *background, config.hidden_size), self.param_dtype
        )
        self.pos_embed_window = self.param(
            "pos_embed_window", zeros, (1, window, window, config.hidden_size), self.param_dtype
        )
        blocks: list[MultiScaleBlock] = []
        for stage, depth in enumerate(config.blocks_per_stage):
            for i in range(depth):
                # A stage's window size takes effect one block late: its first block keeps the last stage's.
                windows_of = stage - 1 if i == 0 and stage > 0 else stage
                is_global = len(blocks) in config.global_attention_blocks
                blocks.append(
                    MultiScaleBlock(
                        features=config.embed_dim_per_stage[stage],
                        num_heads=config.num_attention_heads_per_stage[stage],
                        window=0 if is_global else config.window_size_per_stage[windows_of],
                        pool=i == 0 and stage > 0,
                        config=config,
                        **types,
                    )
                )
        self.blocks = blocks

    def positions(self, height: int, width: int) -> jax.Array:
        """Positional embedding of a height x width token grid, float32 [1, height, width, C]."""
        window = self.pos_embed_window.astype(jnp.float32)
        tiles = (1, height // window.shape[1], width // window.shape[2], 1)
        return resize_bicubic(self.pos_embed.astype(jnp.float32), height, width) + jnp.tile(window, tiles)

    def __call__(self, pixel_values: jax.Array) -> tuple[jax.Array, ...]:
        """Map pixels [B, H, W, 3] to the last map of each stage, at strides 4, 8, 16 and 32."""
        x = self.patch_embed(pixel_values.astype(self.dtype))
        x = (x + self.positions(x.shape[1], x.shape[2])).astype(self.dtype)
        hidden_states = [x]
        stages = []
        for index, block in enumerate(self.blocks):
            x = _in_strips(block, x) if _gains_from_strips(block, x) else block(x)
            hidden_states.append(x)
            if index in self.config.stage_ends:
                stages.append(x)
        if recording(self, "hidden_states"):
            self.sow("hidden_states", "tokens", tuple(hidden_states))
        return tuple(stages)
