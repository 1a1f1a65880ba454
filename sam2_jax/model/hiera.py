"""Hiera, the hierarchical vision transformer under SAM 2.

Source: Ryali et al. 2023 (arXiv:2306.00989), with the windowed positional embedding of Bolya et al. 2023
(arXiv:2311.05613); transformers Sam2HieraDetModel.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.layers import MLP, Dense, LayerNorm, Linear, attend, gelu, one_by_one, recording
from sam2_jax.model.patch_embedding import PatchEmbedding
from sam2_jax.model.platforms import for_each_platform, on_cpu, on_tpu
from sam2_jax.model.positions import resize_bicubic
from sam2_jax.model.windows import (
    WindowOrder,
    merge_groups,
    quarters_in_order,
    quarters_of_maps,
    rows_of_tokens,
    split_groups,
    tile_partition,
    tile_unpartition,
    window_partition,
    window_unpartition,
)


def pooled(linear: Linear, quarters: list[jax.Array], dtype: Any) -> jax.Array:
    """2x2 max pooling of a linear layer's outputs, given its inputs in four parts, one of each 2x2.

    The quarters of the outputs are never joined, only the greater of them kept.
    """
    return reduce(jnp.maximum, (linear(quarter, dtype) for quarter in quarters))


QueryKeyValue = tuple[jax.Array, jax.Array, jax.Array]


class MultiScaleAttention(nn.Module):
    """Self-attention inside windows; the first block of a stage pools its queries 2x2.

    The zeros that fill up a window take part as keys, as in the reference. Source: Sam2MultiScaleAttention.

    Where queries are pooled there are few of them, so their keys and values are not projected: the queries
    go through the keys' kernel instead, what they gather of the inputs through the values' (Attention in
    arXiv:1706.03762, re-associated), and all heads attend to the same inputs:

        q_h (y W_k,h + b)^T = (q_h W_k,h^T) y^T + q_h b^T, of which the last drops out of the softmax
        P_h (y W_v,h + b)   = (P_h y) W_v,h + b, since the rows of P_h sum to one
    """

    in_features: int
    features: int
    num_heads: int
    window: int
    pool_queries: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.normal(0.02)

    def setup(self) -> None:
        dense = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": self.kernel_init}
        self.qkv = Dense(self.in_features, 3 * self.features, **dense)
        self.proj = Dense(self.features, self.features, **dense)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend within windows of x [B, H, W, C]; returns [B, H', W', features], halved if pooling.

        Sows the weights [B, N, heads, h' * w', h * w] into collection "attentions".
        """
        height, width = x.shape[1:3]
        if self.pool_queries:
            windows = window_partition(x, self.window)
            parts = quarters_of_maps(windows)
            side = parts[0].shape[2:4]
            queries = pooled(_thirds(self.qkv.weights())[0], [rows_of_tokens(x) for x in parts], self.dtype)
            out = self._attend_pooled(queries, rows_of_tokens(windows))
            height, width = height // 2, width // 2
        else:
            side = (self.window,) * 2 if self.window else (height, width)
            out = self._attend(*self._project_windows(x))
        return self.proj(window_unpartition(out.reshape(*out.shape[:2], *side, -1), height, width))

    def in_order(self, x: jax.Array, order: WindowOrder) -> jax.Array:
        """Attend within windows that are laid out, x [B, N, T, C]; returns [B, N, T, features]."""
        query, key, value = self._project(x)
        return self.proj(self._attend(query, key, value, _other_windows(order, order)))

    def pooled_in_order(self, x: jax.Array, parts: list[jax.Array], order: WindowOrder) -> jax.Array:
        """Do as `in_order`, pooling the quarters of x: [B, N', T', features] in the order after pooling."""
        following = order.pooled()
        factor = order.columns // following.columns
        queries = pooled(_thirds(self.qkv.weights())[0], parts, self.dtype)
        hidden = _other_windows(following._replace(group=order.group), order)
        out = self._attend_pooled(split_groups(queries, following, factor), x, hidden)
        return self.proj(merge_groups(out, following, factor))

    def _project(self, x: jax.Array) -> QueryKeyValue:
        """Queries, keys and values [B, N, T, H, D] of x [B, N, T, C]."""

        def at_once(x: jax.Array, layer: Linear) -> QueryKeyValue:
            return self._heads(jnp.split(layer(x, self.dtype), 3, axis=-1))

        def in_thirds(x: jax.Array, layer: Linear) -> QueryKeyValue:
            if self.num_heads == 1:
                return at_once(x, layer)
            # Splitting the result by heads is one more pass over a TPU's memory.
            return self._heads([part(x, self.dtype) for part in _thirds(layer)])

        return on_tpu(at_once, in_thirds, x, self.qkv.weights())

    def _project_windows(self, x: jax.Array) -> QueryKeyValue:
        """Do as `_project` within windows of x [B, H, W, C]."""

        def project_first(x: jax.Array, layer: Linear) -> QueryKeyValue:
            # A filling token is zero, so its projection is the bias: known without computing it for each.
            windows = window_partition(layer(x, self.dtype), self.window, layer.bias)
            return self._heads(jnp.split(rows_of_tokens(windows), 3, axis=-1))

        def cut_first(x: jax.Array, layer: Linear) -> QueryKeyValue:
            windows = rows_of_tokens(window_partition(x, self.window))  # a third of the channels to move
            return self._heads([part(windows, self.dtype) for part in _thirds(layer)])

        return on_tpu(project_first, cut_first, x, self.qkv.weights())

    def _heads(self, parts: list[jax.Array]) -> QueryKeyValue:
        query, key, value = (x.reshape(*x.shape[:3], self.num_heads, -1) for x in parts)
        return query, key, value

    def _attend(
        self, query: jax.Array, key: jax.Array, value: jax.Array, hidden: jax.Array | None = None
    ) -> jax.Array:
        """Attend, [B, N, T, H, D] each, hidden [T, T] being added to the scores: [B, N, T, features]."""
        bias = None if hidden is None else hidden[None, None, None]
        wanted = recording(self, "attentions")
        out, weights = attend(query, key, value, bias, return_weights=wanted)
        if wanted:
            self.sow("attentions", "weights", weights)
        return out.reshape(*out.shape[:3], -1)

    def _attend_pooled(self, queries: jax.Array, x: jax.Array, hidden: jax.Array | None = None) -> jax.Array:
        """Attend from pooled queries [B, N, Q, features] to x [B, N, T, C]: [B, N, Q, features]."""
        heads, width = self.num_heads, self.features // self.num_heads
        _, key, value = _thirds(self.qkv.weights())
        lead = queries.shape[:3]
        by_head = (self.in_features, heads, width)
        # Rounded once, when scaled.
        absorbed = jnp.einsum(
            "bnqhd,chd->bnqhc",
            queries.reshape(*lead, heads, width),
            key.kernel.astype(self.dtype).reshape(by_head),
            preferred_element_type=jnp.float32,
        )
        absorbed = (absorbed * width**-0.5).astype(self.dtype)
        # Heads are so many queries more, of one head as wide as the inputs.
        absorbed = absorbed.reshape(*lead[:2], -1, 1, self.in_features)
        bias = None if hidden is None else hidden.repeat(heads, axis=0)[None, None, None]
        wanted = recording(self, "attentions")
        tokens = x[:, :, :, None]
        out, weights = attend(absorbed, tokens, tokens, bias, scale=1.0, return_weights=wanted)
        if wanted:
            assert weights is not None
            weights = weights.reshape(*lead, heads, -1)
            self.sow("attentions", "weights", jnp.moveaxis(weights, 3, 2))
        mixed = out.reshape(*lead, heads, self.in_features)
        out = jnp.einsum(
            "bnqhc,chd->bnqhd",
            mixed,
            value.kernel.astype(self.dtype).reshape(by_head),
            preferred_element_type=jnp.float32,
        )
        out = out.reshape(*lead, self.features) + value.bias.astype(jnp.float32).reshape(1, 1, 1, -1)
        return out.astype(self.dtype)


def _other_windows(queries: WindowOrder, keys: WindowOrder) -> jax.Array | None:
    """What hides windows of a group from each other, to be added to scores [Q, T]."""
    if keys.group == 1:
        return None
    return jnp.where(queries.windows()[:, None] == keys.windows()[None], 0.0, -jnp.inf).astype(jnp.float32)


def _thirds(layer: Linear) -> list[Linear]:
    """The projections of queries, keys and values that are one layer."""
    kernels, biases = (jnp.split(p, 3, axis=-1) for p in layer)
    return [Linear(kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]


class MultiScaleBlock(nn.Module):
    """Pre-norm transformer block: windowed attention, MLP, and where a stage begins, pooling and widening.

    Source: Sam2MultiScaleBlock.
    """

    in_features: int
    features: int
    num_heads: int
    window: int
    pool: bool
    config: Sam2HieraDetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        made = {"kernel_init": nn.initializers.normal(self.config.initializer_range), **types}
        epsilon = self.config.layer_norm_eps
        self.layer_norm1, self.layer_norm2 = (LayerNorm(epsilon, **types) for _ in range(2))
        self.attn = MultiScaleAttention(
            self.in_features, self.features, self.num_heads, self.window, self.pool, **made
        )
        hidden = int(self.features * self.config.mlp_ratio)
        self.mlp = MLP((hidden, self.features), gelu, **made)
        if self.in_features != self.features:
            self.proj = Dense(self.in_features, self.features, **made)

    def __call__(self, x: jax.Array, order: WindowOrder | None = None) -> jax.Array:
        """Map x [B, H, W, C] to [B, H', W', features]; H' and W' are halved in a pooling block.

        With an order x is [B, N, T, C], windows laid out in it; so is the result, in the order after
        pooling if the block pools.
        """
        y = self.layer_norm1(x)
        if order is not None and self.pool:
            parts = quarters_in_order(y, order)
            attended = self.attn.pooled_in_order(y, parts, order)
        else:
            attended = self.attn(y) if order is None else self.attn.in_order(y, order)
            parts = quarters_of_maps(y) if self.pool else [y]
        # The shortcut is projected from the normalised input, then pooled.
        widens = self.in_features != self.features
        shortcut = pooled(self.proj.weights(), parts, self.dtype) if widens else x
        x = shortcut + attended
        return x + self.mlp(self.layer_norm2(x))


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
        block_class = nn.remat(MultiScaleBlock, static_argnums=(2,)) if self.remat else MultiScaleBlock
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
        for run in self.runs:
            if self._is_tiled(run, height, width):
                ends, x = self._run_tiles(run, x, height, width, output)
            else:
                x = self._rows(x, 0, height)
                ends = []
                for index in range(run.first, run.end):
                    x = self.blocks[index](x, None)
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

    def _is_tiled(self, run: Run, height: int, width: int) -> bool:
        """Whether a run is to go tile by tile: unrecorded, its tiles covering the map without filling."""
        records = self.is_initializing() or any(recording(self, c) for c in ("hidden_states", "attentions"))
        divides = run.tile > 0 and height % run.tile == 0 and width % run.tile == 0
        halvings = sum(self.blocks[index].pool for index in range(run.first, run.end))
        return divides and not records and run.tile % 2**halvings == 0

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
        first = WindowOrder.of(run.tile, halvings, width // run.tile)

        def run_band(module: "Hiera", index: jax.Array) -> tuple[jax.Array, ...]:
            order = first
            tiles = tile_partition(module._rows(x, index[0] * rows, rows), order)
            maps = []
            for i in range(run.first, run.end):
                tiles = module.blocks[i](tiles, order)
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
