"""Maps cut into windows, and windows laid out so that pooling needs no moving about."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.model.platforms import on_tpu


def window_partition(x: jax.Array, window: int, filling: jax.Array | None = None) -> jax.Array:
    """Cut x [B, H, W, C] into [B, N, window, window, C], filling [C] (zeros) up the last rows and columns.

    window 0 means the whole map as one window.
    """
    batch, height, width, channels = x.shape
    if window == 0:
        return x[:, None]
    columns = -(-width // window)

    def cut(x: Any) -> Any:
        x = x.reshape(x.shape[0], -1, window, columns, window, x.shape[-1]).swapaxes(2, 3)
        return x.reshape(x.shape[0], -1, window, window, x.shape[-1])

    def moved(x: jax.Array) -> jax.Array:
        return cut(jnp.pad(x, ((0, 0), (0, 0), (0, -width % window), (0, 0))))

    def product(x: jax.Array) -> jax.Array:
        where = _one_hot(cut, window, width, columns * window).reshape(window, width, columns, -1)
        x = x.reshape(batch, -1, window, width, channels)
        return move("bryxc,yxnt->brntc", x, where).reshape(batch, -1, window, window, channels)

    x = jnp.pad(x, ((0, 0), (0, -height % window), (0, 0), (0, 0)))
    windows = on_tpu(moved, product, x)
    if filling is not None and (height % window or width % window):
        inside = np.zeros((1, x.shape[1], columns * window, 1), bool)
        inside[:, :height, :width] = True
        windows = jnp.where(cut(inside), windows, filling.astype(x.dtype).reshape(1, 1, 1, 1, channels))
    return windows


def window_unpartition(windows: jax.Array, height: int, width: int) -> jax.Array:
    """Put windows [B, N, h, w, C] back together as [B, height, width, C], dropping the filling."""
    batch, count, window_h, window_w, channels = windows.shape
    if count == 1:
        return windows[:, 0, :height, :width]
    columns = -(-width // window_w)

    def join(x: Any) -> Any:
        x = x.reshape(x.shape[0], -1, columns, window_h, window_w, x.shape[-1]).swapaxes(2, 3)
        return x.reshape(x.shape[0], -1, columns * window_w, x.shape[-1])

    def product(windows: jax.Array) -> jax.Array:
        back = _one_hot(join, columns * window_h, window_w)
        where = back.reshape(columns, -1, window_h, columns * window_w)[..., :width]
        x = windows.reshape(batch, count // columns, columns, -1, channels)
        return move("brntc,ntyx->bryxc", x, where).reshape(batch, -1, width, channels)

    return on_tpu(lambda x: join(x)[:, :, :width], product, windows)[:, :height]


def quarters_of_maps(x: jax.Array) -> list[jax.Array]:
    """The four tokens of each 2x2 of x [..., H, W, C]; odd last rows are dropped."""
    height, width = (n // 2 * 2 for n in x.shape[-3:-1])
    return [x[..., i:height:2, j:width:2, :] for i in (0, 1) for j in (0, 1)]


def rows_of_tokens(windows: jax.Array) -> jax.Array:
    """Windows [B, N, h, w, C] as rows of tokens [B, N, h * w, C]."""
    return windows.reshape(*windows.shape[:2], -1, windows.shape[-1])


class WindowOrder(NamedTuple):
    """How the tokens of square windows are laid out where windows stay apart for a run of blocks.

    The map has `columns` windows of `side` x `side` tokens in a row. Before each of `halvings` poolings that
    are to come, the four tokens that become one lie in the four quarters of their window.
    """

    side: int
    halvings: int
    columns: int

    def pooled(self) -> "WindowOrder":
        """The order after a pooling."""
        return WindowOrder(self.side // 2, self.halvings - 1, self.columns)


def tile_partition(x: jax.Array, order: WindowOrder) -> jax.Array:
    """Cut x [B, H, W, C] into windows laid out in this order: [B, N, tokens, C]."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(_split(x.shape, order)).transpose(_axes(order.halvings))
    return x.reshape(batch, -1, order.side**2, channels)


def tile_unpartition(x: jax.Array, order: WindowOrder) -> jax.Array:
    """Put windows [B, N, tokens, C] back together: [B, H, W, C]."""
    batch, windows, tokens, channels = x.shape
    width = order.side * order.columns
    shape = batch, windows * tokens // width, width, channels
    split, axes = _split(shape, order), _axes(order.halvings)
    return x.reshape([split[axis] for axis in axes]).transpose(np.argsort(axes)).reshape(shape)


def quarters_in_order(x: jax.Array) -> list[jax.Array]:
    """The four tokens of each 2x2 of windows [B, N, T, C] that are to be pooled, [B, N, T / 4, C] each.

    Their maximum is the map pooled 2x2, in the order after pooling.
    """
    quarters = x.reshape(*x.shape[:2], 4, -1, x.shape[-1])
    return [quarters[:, :, i] for i in range(4)]


def _split(shape: tuple[int, ...], order: WindowOrder) -> tuple[int, ...]:
    """The shape [B, H, W, C] split as [B, rows, y, ...bits of y, columns, x, ...bits of x, C]."""
    batch, height, _, channels = shape
    side = (order.side >> order.halvings, *(2,) * order.halvings)
    return (batch, height // order.side, *side, order.columns, *side, channels)


def _axes(halvings: int) -> tuple[int, ...]:
    """How to transpose what `_split` gives into `WindowOrder`: the lowest bits of y and x first."""
    y, x = (tuple(range(first, first + 1 + halvings)) for first in (2, 4 + halvings))
    bits = [axis for pair in zip(y[:0:-1], x[:0:-1], strict=True) for axis in pair]
    return (0, 1, 3 + halvings, *bits, y[0], x[0], 5 + 2 * halvings)


def _one_hot(
    moving: Callable[[Any], Any], height: int, width: int, filled_width: int | None = None
) -> jax.Array:
    """What a function that moves tokens does to a map [1, height, filled_width, 1]: ones for [from, to].

    What fills the map's rows up is not from the map: zeros. Made in the program, to be no constant of it.
    """
    index = jnp.arange(height * width)
    given = index.reshape(1, height, width, 1)
    if filled_width is not None:
        given = jnp.pad(given, ((0, 0), (0, 0), (0, filled_width - width), (0, 0)), constant_values=-1)
    return (index[:, None] == moving(given).reshape(1, -1)).astype(jnp.float32)


def move(letters: str, x: jax.Array, where: jax.Array) -> jax.Array:
    """Move tokens by a product with ones and zeros, which is exact.

    A TPU moves pieces smaller than a tile of its registers in three passes over the memory, and takes one for
    this, its matrix units having nothing else to do.
    """
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum(letters, x, where.astype(x.dtype), precision=highest, preferred_element_type=x.dtype)
