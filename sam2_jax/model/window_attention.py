"""Attention within windows on a TPU, in one kernel from a block's input to its shortcut's sum.

A map goes in and a map comes out, both with channels in lanes: windows are cut, filled up and put together
again in a chip's own memory, where queries, keys, values and scores stay. XLA's steps would write each of
these to the chip's large memory, most of them twice, once for each layout.

Small windows that are neighbours in a row share a product, 128 tokens of them, and are hidden from each
other. Their rows are read with some columns more, where that makes whole registers; these columns are the
next window's, hidden too, and what comes of them is overwritten by the next window.
"""

from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sam2_jax.model.layers import Linear

_LANES = 128
# Tokens that share a product: a matrix unit's width.
_PRODUCT_TOKENS = 128
# Numbers that come out of one step of the kernel, at most: more tokens keep a chip's units busier, and are
# longer to compile. Windows that are not whole registers wide go in whole rows of the map.
_STEP_NUMBERS = 2**18
# A register's rows hold so many columns of a map in bfloat16, or two registers' in float32.
_COLUMNS = 16
# Of a chip's own memory, which has 64 MiB or more since v5e: the last blocks of base-plus do not fit into the
# usual 16.
_MEMORY = 32 * 2**20
_HIDDEN = -1e30  # added to scores


class WindowWeights(NamedTuple):
    """Weights of a block's norm, its attention, and the shortcut's projection if it has one."""

    scale: jax.Array
    bias: jax.Array
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    shortcut: Linear | None


class _Cut(NamedTuple):
    """How maps are cut.

    window: rows and columns of one. stride: columns of a group of windows; columns: those read for one.
    chunk: columns of a step of the kernel; groups: so many of them are in it. halved: 2 if pooling, or 1.
    """

    height: int
    width: int
    window: int
    stride: int
    columns: int
    chunk: int
    groups: int
    halved: int

    @classmethod
    def of(cls, height: int, width: int, features: int, window: int, pool: bool) -> "_Cut":
        stride = window * max(_PRODUCT_TOKENS // window**2, 1)
        columns = -(-stride // _COLUMNS) * _COLUMNS
        groups = -(-width // stride)
        if columns == stride:
            most = max(_STEP_NUMBERS // (window * stride * features), 1)
            groups = max(n for n in range(1, min(groups, most) + 1) if groups % n == 0)
        chunk = min(width, groups * stride)
        return cls(height, width, window, stride, columns, chunk, groups, 1 + pool)

    @property
    def keys(self) -> int:
        """Tokens of a group."""
        return self.window * self.columns

    @property
    def queries(self) -> int:
        """Tokens of a group after pooling."""
        return self.keys // self.halved**2

    @property
    def buffer(self) -> int:
        """Columns that all of a step's groups reach over."""
        return (self.groups - 1) * self.stride + self.columns

    @property
    def grid(self) -> tuple[int, int]:
        """Steps down and across a map."""
        return -(-self.height // self.window), -(-self.width // self.chunk)

    def hidden(self) -> jax.Array:
        """What hides a group's windows from each other, to be added to scores [queries, keys]."""

        def windows(halved: int) -> jax.Array:
            columns = jnp.arange(self.keys // halved**2) % (self.columns // halved)
            return columns // (self.window // halved)

        return jnp.where(windows(self.halved)[:, None] == windows(1)[None], 0.0, _HIDDEN)


def takes_maps(height: int, width: int, window: int, pool: bool) -> bool:
    """Whether the kernel takes maps of this size: all but odd ones that are to be pooled."""
    return not pool or height % 2 == width % 2 == window % 2 == 0


def window_attention(
    x: jax.Array, weights: WindowWeights, window: int, heads: int, pool: bool, epsilon: float
) -> jax.Array:
    """Attend within windows of x [B, H, W, C], after a norm, and add the shortcut: [B, H', W', F].

    H' and W' are halved if queries are pooled 2x2, and the shortcut with them. The zeros that fill up windows
    take part as keys. `takes_maps` says of which sizes.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    batch, height, width, channels = x.shape
    features = weights.out.kernel.shape[1]
    cut = _Cut.of(height, width, features, window, pool)
    half = cut.halved
    kernels = jax.tree.leaves(jax.tree.map(partial(_operand, dtype=x.dtype), weights))
    constants = [cut.hidden(), *kernels]
    scratch = [
        pltpu.VMEM((window, cut.buffer, channels), jnp.float32),
        pltpu.VMEM((window // half, cut.buffer // half, features), jnp.float32),
    ]
    if pool:
        tiles = -(-features // _LANES)
        scratch += [pltpu.VMEM((tiles, cut.groups * window // 2, cut.columns, _LANES), jnp.float32)]
    structure = jax.tree.structure(weights)
    kernel = partial(_kernel, structure=structure, cut=cut, heads=heads, epsilon=epsilon)
    return pl.pallas_call(
        kernel,
        grid=(batch, *cut.grid),
        in_specs=[
            pl.BlockSpec((1, window, cut.chunk, channels), lambda b, r, c: (b, r, c, 0)),
            *(pl.BlockSpec(one.shape, lambda b, r, c: (0, 0)) for one in constants),
        ],
        out_specs=pl.BlockSpec(
            (1, window // half, cut.chunk // half, features), lambda b, r, c: (b, r, c, 0)
        ),
        out_shape=jax.ShapeDtypeStruct((batch, height // half, width // half, features), x.dtype),
        scratch_shapes=scratch,
        cost_estimate=_cost(x, weights, cut, heads),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3, vmem_limit_bytes=_MEMORY),
        name="window_attention",
    )(x, *constants)


def _operand(one: jax.Array, dtype: Any) -> jax.Array:
    """A kernel as products take it, or a vector as it is added."""
    return one.astype(dtype) if one.ndim == 2 else one.astype(jnp.float32).reshape(1, -1)


def _cost(x: jax.Array, weights: WindowWeights, cut: _Cut, heads: int) -> Any:
    """What the kernel does, its filling included: products, exponentials, what it reads and writes once."""
    from jax.experimental import pallas as pl

    groups = x.shape[0] * prod(cut.grid) * cut.groups
    channels, features = x.shape[3], weights.out.kernel.shape[1]
    projections = [weights.query, weights.key, weights.value, weights.shortcut]
    inputs = sum(layer.kernel.size for layer in projections if layer is not None)
    products = cut.keys * inputs + cut.queries * features * (features + 2 * cut.keys)
    rest = x.size // channels // cut.halved**2 * features
    kernels = sum(one.size for one in jax.tree.leaves(weights))
    return pl.CostEstimate(
        flops=2 * groups * products,
        transcendentals=groups * heads * cut.queries * cut.keys,
        bytes_accessed=(x.size + rest + kernels) * x.dtype.itemsize,
    )


def _kernel(
    x_ref: Any, hidden: Any, *refs: Any, structure: Any, cut: _Cut, heads: int, epsilon: float
) -> None:
    weights = jax.tree.unflatten(structure, refs[: structure.num_leaves])
    out_ref, inputs, outputs, *pooling = refs[structure.num_leaves :]
    dtype = x_ref.dtype
    x = x_ref[0].astype(jnp.float32)
    _fill(inputs, _norm(x, weights, epsilon), cut)
    starts = [group * cut.stride for group in range(cut.groups)]
    pieces = [inputs[:, first : first + cut.columns].reshape(cut.keys, -1) for first in starts]
    tokens = jnp.concatenate(pieces).astype(dtype)
    key, value = (_project(tokens, layer).astype(dtype) for layer in (weights.key, weights.value))
    query = _pooled(_project(tokens, weights.query), cut, *pooling)
    query = (query * (query.shape[1] // heads) ** -0.5).astype(dtype)
    queries, keys, values = (jnp.split(one, cut.groups) for one in (query, key, value))
    attended = [
        _attend(*one, hidden=hidden[...], heads=heads) for one in zip(queries, keys, values, strict=True)
    ]
    out = _project(jnp.concatenate(attended).astype(dtype), weights.out)
    if weights.shortcut is not None:
        out = out + _pooled(_project(tokens, weights.shortcut), cut, *pooling)
    for first, one in zip(starts, jnp.split(out, cut.groups), strict=True):
        columns = slice(first // cut.halved, (first + cut.columns) // cut.halved)
        outputs[:, columns] = one.reshape(cut.window // cut.halved, cut.columns // cut.halved, -1)
    out = outputs[:, : out_ref.shape[2]]
    out_ref[0] = (out if weights.shortcut is not None else x + out).astype(dtype)


def _norm(x: jax.Array, weights: WindowWeights, epsilon: float) -> jax.Array:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    scale, bias = (one[...].reshape(1, 1, -1) for one in (weights.scale, weights.bias))
    return (x - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias


def _fill(inputs: Any, y: jax.Array, cut: _Cut) -> None:
    """Write a step's tokens [window, chunk, C], and zeros where there is no map."""
    from jax.experimental import pallas as pl

    for axis, (size, step) in enumerate(((cut.height, cut.window), (cut.width, cut.chunk))):
        if size % step:
            place = pl.program_id(1 + axis) * step + lax.broadcasted_iota(jnp.int32, y.shape, axis)
            y = jnp.where(place < size, y, 0)
    inputs[:, : cut.chunk] = y
    if cut.buffer > cut.chunk:
        inputs[:, cut.chunk :] = jnp.zeros((cut.window, cut.buffer - cut.chunk, y.shape[2]), y.dtype)


def _project(tokens: jax.Array, layer: Linear) -> jax.Array:
    """A linear layer's outputs in float32."""
    return _product(tokens, layer.kernel[...], 0) + layer.bias[...]


def _product(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    numbers = (((1,), (axis,)), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)


def _pooled(x: jax.Array, cut: _Cut, buffer: Any = None) -> jax.Array:
    """The greatest of each 2x2 of a step's tokens [groups * keys, F], if there is a buffer to pool in."""
    from jax.experimental import pallas as pl

    if buffer is None:
        return x
    features = x.shape[1]
    rows = x.reshape(-1, 2, cut.columns, features).max(axis=1)
    pieces = []
    for tile, first in enumerate(range(0, features, _LANES)):  # only single registers are read with a stride
        piece = rows[:, :, first : first + _LANES]
        buffer[tile, :, :, : piece.shape[2]] = piece
        even, odd = (
            buffer[pl.ds(tile, 1), :, pl.ds(start, cut.columns // 2, stride=2)][0] for start in (0, 1)
        )
        pieces.append(jnp.maximum(even, odd)[:, :, : piece.shape[2]])
    return jnp.concatenate(pieces, axis=2).reshape(-1, features)


def _attend(query: jax.Array, key: jax.Array, value: jax.Array, hidden: jax.Array, heads: int) -> jax.Array:
    """Attend with scaled queries [Q, F] to keys and values [T, F], head by head: [Q, F] in float32.

    A head's lanes are not moved to where a register begins: a product takes all lanes of the registers in
    which it lies, those of other heads being zeros in the queries, and left out of the result.
    """
    features = query.shape[1]
    width = features // heads
    tiles: list[Any] = [None] * -(-features // _LANES)
    for start in range(0, features, width):
        first, last = start // _LANES, -(-(start + width) // _LANES)
        lanes = slice(first * _LANES, min(last * _LANES, features))
        place = lanes.start + lax.broadcasted_iota(jnp.int32, (1, lanes.stop - lanes.start), 1)
        is_own = (place >= start) & (place < start + width)
        own = jnp.where(is_own, query[:, lanes], 0)
        scores = _product(own, key[:, lanes], 1) + hidden
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        total = weights.sum(axis=-1, keepdims=True)
        out = _product(weights.astype(value.dtype), value[:, lanes], 0) / total
        for tile in range(first, last):
            inside = slice((tile - first) * _LANES, min((tile + 1 - first) * _LANES, out.shape[1]))
            known = tiles[tile]
            tiles[tile] = (
                out[:, inside] if known is None else jnp.where(is_own[:, inside], out[:, inside], known)
            )
    return jnp.concatenate(tiles, axis=1)
