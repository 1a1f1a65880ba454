"""Hiera, the hierarchical vision transformer under SAM 2.

Source: Ryali et al. 2023 (arXiv:2306.00989), with the windowed positional embedding of Bolya et al. 2023
(arXiv:2311.05613); transformers Sam2HieraDetModel.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.layers import MLP, Dense, LayerNorm, attend, gelu, one_by_one, recording
from sam2_jax.model.platforms import for_each_platform, on_cpu
from sam2_jax.model.positions import resize_bicubic


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max pooling of x [..., H, W, C] to [..., H // 2, W // 2, C]; odd last rows are dropped."""
    *lead, height, width, channels = x.shape
    x = x[..., : height // 2 * 2, : width // 2 * 2, :]
    return x.reshape(*lead, height // 2, 2, width // 2, 2, channels).max(axis=(-4, -2))


def window_partition(x: jax.Array, window: int, filling: jax.Array | None = None) -> jax.Array:
    """Cut x [B, H, W, C] into [B, N, window, window, C], filling [C] (zeros) up the last rows and columns.

    window 0 means the whole map as one window.
    """
    batch, height, width, channels = x.shape
    if window == 0:
        return x[:, None]
    x = jnp.pad(x, ((0, 0), (0, -height % window), (0, -width % window), (0, 0)))
    if filling is not None and x.shape[1:3] != (height, width):
        inside = np.pad(np.ones((height, width), bool), ((0, -height % window), (0, -width % window)))
        x = jnp.where(inside[None, ..., None], x, filling.astype(x.dtype).reshape(1, 1, 1, channels))
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
    window: int
    pool_queries: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend within windows of x [B, H, W, C]; returns [B, H', W', features], halved if pooling.

        Sows the weights [B, N, heads, h' * w', h * w] into collection "attentions".
        """
        dense = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": self.kernel_init}
        project = Dense(x.shape[-1], 3 * self.features, name="qkv", **dense)
        # A filling token is zero, so its projection is the bias: known without computing it for each.
        filling = project(jnp.zeros(x.shape[-1:], self.dtype))
        windows = window_partition(project(x), self.window, filling)
        query, key, value = jnp.split(windows, 3, axis=-1)
        height, width = x.shape[1:3]
        if self.pool_queries:
            query = max_pool(query)
            height, width = height // 2, width // 2

        def heads(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], -1, self.num_heads, self.features // self.num_heads)

        wanted = recording(self, "attentions")
        out, weights = attend(heads(query), heads(key), heads(value), return_weights=wanted)
        if wanted:
            self.sow("attentions", "weights", weights)
        out = window_unpartition(out.reshape(query.shape), height, width)
        return Dense(self.features, self.features, name="proj", **dense)(out)


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
        y = LayerNorm(epsilon, **types, name="layer_norm1")(x)
        if x.shape[-1] != self.features:
            # The shortcut is projected from the normalised input, then pooled.
            shortcut = Dense(x.shape[-1], self.features, kernel_init=kernel_init, name="proj", **types)(y)
            if self.pool:
                shortcut = max_pool(shortcut)
        x = shortcut + MultiScaleAttention(
            self.features,
            self.num_heads,
            self.window,
            self.pool,
            kernel_init=kernel_init,
            name="attn",
            **types,
        )(y)
        hidden = int(self.features * self.config.mlp_ratio)
        y = LayerNorm(epsilon, **types, name="layer_norm2")(x)
        return x + MLP((hidden, self.features), gelu, kernel_init=kernel_init, name="mlp", **types)(y)


class PatchEmbedding(nn.Module):
    """Overlapping 7x7 patches at stride 4. Source: Sam2PatchEmbeddings."""

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.projection = nn.Conv(
            config.hidden_size,
            config.patch_kernel_size,
            config.patch_stride,
            "VALID",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.normal(config.initializer_range),
        )

    def pad(self, pixel_values: jax.Array) -> jax.Array:
        """Surround pixels [B, H, W, 3] with the zeros that the outermost patches reach into."""
        return jnp.pad(pixel_values, ((0, 0), *((p, p) for p in self.config.patch_padding), (0, 0)))

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Map pixels [B, H, W, 3] to tokens [B, H / 4, W / 4, C]."""
        return self.projection(self.pad(pixel_values))

    def rows(self, padded: jax.Array, first: int | jax.Array, count: int) -> jax.Array:
        """Embed only these rows of tokens, [B, count, W / 4, C], from the padded pixels."""
        stride, kernel = self.config.patch_stride[0], self.config.patch_kernel_size[0]
        size = (count - 1) * stride + kernel
        return self.projection(jax.lax.dynamic_slice_in_dim(padded, first * stride, size, axis=1))


class Run(NamedTuple):
    """Blocks first ... end - 1, through which windows stay apart: each works within what is left of a tile.

    tile: the side of the first block's windows, 0 for a block of global attention, which runs alone.
    """

    first: int
    end: int
    tile: int


def windowed_runs(windows: list[int], pools: list[bool]) -> list[Run]:
    """Cut the blocks, of these windows and with or without pooling, into the longest runs."""
    runs: list[Run] = []
    left = 0  # of a tile's side, in the current run
    for i, (window, pool) in enumerate(zip(windows, pools, strict=True)):
        if window > 0 and window == left:
            runs[-1] = runs[-1]._replace(end=i + 1)
        else:
            runs.append(Run(i, i + 1, window))
        left = window // 2 if pool else window
    return runs


# Tokens that go through a run together on a CPU: their hidden layer fits the second- and third-level cache,
# and matrix products are still large enough.
_BAND_TOKENS = 4096


def _bands(batch: int, height: int, width: int, tile: int) -> int:
    """Into how many equal bands of whole tiles to cut maps, each band of about _BAND_TOKENS tokens."""
    rows = height // tile
    batch = 1 if export.is_symbolic_dim(batch) else batch
    most = max(_BAND_TOKENS // (batch * tile * width), 1)
    return rows // max(n for n in range(1, most + 1) if rows % n == 0)


class Image(NamedTuple):
    """An image not yet embedded: its padded pixels, and [1, H / 4, w, C], the background of its positions."""

    pixels: jax.Array
    background: jax.Array


class Hiera(nn.Module):
    """The backbone: patch embedding, positions, then the blocks of all stages.

    Sows each block's input and the last output into collection "hidden_states".
    """

    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

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
        block_class = nn.remat(MultiScaleBlock) if self.remat else MultiScaleBlock
        blocks: list[MultiScaleBlock] = []
        for stage, depth in enumerate(config.blocks_per_stage):
            for i in range(depth):
                # A stage's window size takes effect one block late: its first block keeps the last stage's.
                windows_of = stage - 1 if i == 0 and stage > 0 else stage
                is_global = len(blocks) in config.global_attention_blocks
                blocks.append(
                    block_class(
                        features=config.embed_dim_per_stage[stage],
                        num_heads=config.num_attention_heads_per_stage[stage],
                        window=0 if is_global else config.window_size_per_stage[windows_of],
                        pool=i == 0 and stage > 0,
                        config=config,
                        **types,
                    )
                )
        self.blocks = blocks
        self.runs = windowed_runs([block.window for block in blocks], [block.pool for block in blocks])

    def positions(self, height: int, width: int) -> jax.Array:
        """Positional embedding of a height x width token grid, float32 [1, height, width, C]."""
        return self._place(self._background(height), width)

    def _background(self, height: int) -> jax.Array:
        """The positions' background, resized to its full height but not width: [1, height, w, C]."""
        background = self.pos_embed.astype(jnp.float32)
        return resize_bicubic(background, height, background.shape[2])

    def _place(self, background: jax.Array, width: int) -> jax.Array:
        """Positional embedding [1, h, width, C] of the rows that the background [1, h, w, C] is for."""
        window = self.pos_embed_window.astype(jnp.float32)
        height = background.shape[1]
        tiles = (1, height // window.shape[1], width // window.shape[2], 1)
        return resize_bicubic(background, height, width) + jnp.tile(window, tiles)

    @for_each_platform
    def __call__(self, pixel_values: jax.Array) -> tuple[jax.Array, ...]:
        """Map pixels [B, H, W, 3] to the last map of each stage, at strides 4, 8, 16 and 32."""
        height, width = (
            n // s for n, s in zip(pixel_values.shape[1:3], self.config.patch_stride, strict=True)
        )
        pixels = self.patch_embed.pad(pixel_values.astype(self.dtype))
        x: Image | jax.Array = Image(pixels, self._background(height))
        hidden_states = [self._rows(x, 0, height)] if recording(self, "hidden_states") else []
        stages: list[jax.Array] = []
        for run in self.runs:
            if self._is_tiled(run, height, width):
                outputs = self._run_tiles(run, x, height, width)
            else:
                outputs = self._run_blocks(run, self._rows(x, 0, height))
            if hidden_states:
                hidden_states += [out for _, out in outputs]
            stages += [out for index, out in outputs if index in self.config.stage_ends]
            x = outputs[-1][1]
            height, width = x.shape[1:3]
        if hidden_states:
            self.sow("hidden_states", "tokens", tuple(hidden_states))
        return tuple(stages)

    def _rows(self, x: Image | jax.Array, first: int | jax.Array, count: int) -> jax.Array:
        """Cut rows out of a map [B, H, W, C], or embed those of an image."""
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=count, axis=1)
        if not isinstance(x, Image):
            return cut(x)
        tokens = self.patch_embed.rows(x.pixels, first, count)
        positions = self._place(cut(x.background), tokens.shape[2])
        return (tokens.astype(jnp.float32) + positions).astype(self.dtype)

    def _run_blocks(self, run: Run, x: jax.Array) -> list[tuple[int, jax.Array]]:
        """Put x [B, H, W, C] through the blocks of a run; returns what each of them gives, with its index."""
        outputs = []
        for index in range(run.first, run.end):
            x = self.blocks[index](x)
            outputs.append((index, x))
        return outputs

    def _is_tiled(self, run: Run, height: int, width: int) -> bool:
        """Whether a run is to go tile by tile: unrecorded, its tiles covering the map without filling."""
        records = self.is_initializing() or any(recording(self, c) for c in ("hidden_states", "attentions"))
        divides = run.tile > 0 and height % run.tile == 0 and width % run.tile == 0
        halvings = sum(self.blocks[index].pool for index in range(run.first, run.end))
        return divides and not records and run.tile % 2**halvings == 0

    def _run_tiles(
        self, run: Run, x: Image | jax.Array, height: int, width: int
    ) -> list[tuple[int, jax.Array]]:
        """Do as `_run_blocks`, each window a map of its own, on a CPU in bands of windows out of the cache.

        Returns the outputs that are wanted: those at a stage's end and the last.
        """
        wanted = [i for i in range(run.first, run.end) if i in self.config.stage_ends or i == run.end - 1]
        batch = (x.pixels if isinstance(x, Image) else x).shape[0]
        bands = _bands(batch, height, width, run.tile)
        if bands > 1 and not on_cpu():
            bands = 1
        rows = height // bands

        def run_band(module: "Hiera", index: jax.Array) -> tuple[jax.Array, ...]:
            tiles = window_partition(module._rows(x, index[0] * rows, rows), run.tile)
            outputs = module._run_blocks(run, tiles.reshape(-1, *tiles.shape[2:]))
            return tuple(whole(out)[None] for index, out in outputs if index in wanted)

        def whole(tiles: jax.Array) -> jax.Array:
            side, channels = tiles.shape[-2:]
            tiles = tiles.reshape(batch, -1, side, side, channels)
            return window_unpartition(tiles, rows * side // run.tile, width * side // run.tile)

        def joined(out: jax.Array) -> jax.Array:
            return out.swapaxes(0, 1).reshape(batch, -1, *out.shape[3:])

        indices = jnp.arange(bands)
        outputs = one_by_one(self, run_band, indices, 0, bands) if bands > 1 else run_band(self, indices)
        return [(index, joined(out)) for index, out in zip(wanted, outputs, strict=True)]
