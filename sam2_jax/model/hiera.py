"""Hiera, the hierarchical vision transformer under SAM 2.

Source: Ryali et al. 2023 (arXiv:2306.00989), with the windowed positional embedding of Bolya et al. 2023
(arXiv:2311.05613); transformers Sam2HieraDetModel.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.layers import Linear, one_by_one, recording
from sam2_jax.model.multi_scale_block import MultiScaleBlock
from sam2_jax.model.patch_embedding import PatchEmbedding
from sam2_jax.model.platforms import for_each_platform, is_for_tpu, on_cpu
from sam2_jax.model.positions import resize_bicubic
from sam2_jax.model.windows import WindowOrder, tile_partition, tile_unpartition


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


# Tokens of a row from which on a TPU has kernels for windows.
_KERNEL_WIDTH = 64


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
        block_class = nn.remat(MultiScaleBlock, static_argnums=(2, 3)) if self.remat else MultiScaleBlock
        blocks: list[MultiScaleBlock] = []
        for stage, depth in enumerate(config.blocks_per_stage):
            for i in range(depth):
                # A stage's window size takes effect one block late: its first block keeps the last stage's.
                windows_of = stage - 1 if i == 0 and stage > 0 else stage
                is_global = len(blocks) in config.global_attention_blocks
                blocks.append(
                    block_class(
                        in_features=blocks[-1].features if blocks else config.hidden_size,
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

    def __call__(self, pixel_values: jax.Array) -> tuple[jax.Array, ...]:
        """Map pixels [B, H, W, 3] to the last map of each stage, at strides 4, 8, 16 and 32."""
        return self.project(pixel_values, None)[0]

    @for_each_platform
    def project(
        self, pixel_values: jax.Array, layers: tuple[Linear, ...] | None
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Do as a call does, putting each stage's map through a linear layer; returns the last as it is too.

        The layers' few channels are what is moved from windows to maps, not the stage's.
        """
        height, width = (
            n // s for n, s in zip(pixel_values.shape[1:3], self.config.patch_stride, strict=True)
        )

        def output(index: int, x: jax.Array) -> jax.Array:
            return x if layers is None else layers[self.config.stage_ends.index(index)](x, self.dtype)

        pixels = self.patch_embed.pad(pixel_values.astype(self.dtype))
        x: Image | jax.Array = Image(pixels, self._background(height))
        hidden_states = [self._rows(x, 0, height)] if recording(self, "hidden_states") else []
        stages: list[jax.Array] = []
        have_kernels = self._have_kernels(width)
        for run in self.runs:
            if not have_kernels and self._is_tiled(run, height, width):
                ends, x = self._run_tiles(run, x, height, width, output)
            else:
                x = self._rows(x, 0, height)
                ends = []
                for index in range(run.first, run.end):
                    x = self.blocks[index](x, None, have_kernels)
                    if hidden_states:
                        hidden_states.append(x)
                    if index in self.config.stage_ends:
                        ends.append(output(index, x))
            stages += ends
            height, width = x.shape[1:3]
        if hidden_states:
            self.sow("hidden_states", "tokens", tuple(hidden_states))
        assert isinstance(x, jax.Array)
        return tuple(stages), x

    def _rows(self, x: Image | jax.Array, first: int | jax.Array, count: int) -> jax.Array:
        """Cut rows out of a map [B, H, W, C], or embed those of an image."""
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=count, axis=1)
        if not isinstance(x, Image):
            return cut(x)
        tokens = self.patch_embed.rows(x.pixels, first, count)
        positions = self._place(cut(x.background), tokens.shape[2])
        return (tokens.astype(jnp.float32) + positions).astype(self.dtype)

    def _records(self) -> bool:
        return self.is_initializing() or any(recording(self, c) for c in ("hidden_states", "attentions"))

    def _have_kernels(self, width: int) -> bool:
        """Whether windows are attended to in kernels: on a TPU, unrecorded, unless the image is tiny.

        Programs for tiny images are the same for all platforms.
        """
        return width >= _KERNEL_WIDTH and not self._records() and is_for_tpu()

    def _is_tiled(self, run: Run, height: int, width: int) -> bool:
        """Whether a run is to go tile by tile: unrecorded, its tiles covering the map without filling."""
        divides = run.tile > 0 and height % run.tile == 0 and width % run.tile == 0
        halvings = sum(self.blocks[index].pool for index in range(run.first, run.end))
        return divides and not self._records() and run.tile % 2**halvings == 0

    def _run_tiles(
        self,
        run: Run,
        x: Image | jax.Array,
        height: int,
        width: int,
        output: Callable[[int, jax.Array], jax.Array],
    ) -> tuple[list[jax.Array], jax.Array]:
        """Put x through a run's blocks, windows staying apart, on a CPU in bands of windows out of the cache.

        Returns the outputs of the stages that end in it, and the last map.
        """
        batch = (x.pixels if isinstance(x, Image) else x).shape[0]
        bands = _bands(batch, height, width, run.tile)
        if bands > 1 and not on_cpu():
            bands = 1
        rows = height // bands
        halvings = sum(self.blocks[index].pool for index in range(run.first, run.end))
        first = WindowOrder(run.tile, halvings, width // run.tile)

        def run_band(module: "Hiera", index: jax.Array) -> tuple[jax.Array, ...]:
            order = first
            tiles = tile_partition(module._rows(x, index[0] * rows, rows), order)
            maps = []
            for i in range(run.first, run.end):
                tiles = module.blocks[i](tiles, order, False)  # nn.remat counts what is static
                order = order.pooled() if module.blocks[i].pool else order
                if i in module.config.stage_ends:
                    maps.append(tile_unpartition(output(i, tiles), order))
            maps.append(tile_unpartition(tiles, order))
            return tuple(x[None] for x in maps)

        def joined(out: jax.Array) -> jax.Array:
            return out.swapaxes(0, 1).reshape(batch, -1, *out.shape[3:])

        indices = jnp.arange(bands)
        maps = one_by_one(self, run_band, indices, 0, bands) if bands > 1 else run_band(self, indices)
        *ends, last = (joined(x) for x in maps)
        return ends, last
