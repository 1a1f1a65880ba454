"""Maps cut into windows, and windows laid out so that pooling and matrix products need no moving about."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.model.platforms import on_cpu, on_tpu


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

    `group` windows of `side` x `side` tokens, neighbours in a row of `columns` groups, lie together. Before
    each of `halvings` poolings that are to come, the four tokens that become one lie in the four quarters of
    their group: [4, group, side * side / 4]. With none to come the windows lie one after the other.
    """

    group: int
    side: int
    halvings: int
    columns: int

    @classmethod
    def of(cls, side: int, halvings: int, windows: int) -> "WindowOrder":
        """The order for so many windows in a row, as many in a group as suit the platform."""
        group = _choose_group(side * side, windows, side * windows)
        return cls(group, side, halvings, windows // group)

    def pooled(self) -> "WindowOrder":
        """The order after a pooling, which `quarters_in_order` makes.

        There are more windows in a group if another pooling is to come and this one leaves room for them.
        """
        factor = 1
        if self.halvings > 1:
            factor = _choose_group(self.tokens // 4, self.columns, self.width)
        return WindowOrder(factor * self.group, self.side // 2, self.halvings - 1, self.columns // factor)

    @property
    def tokens(self) -> int:
        """How many tokens a group has."""
        return self.group * self.side * self.side

    @property
    def width(self) -> int:
        """How many tokens a row of the map has."""
        return self.columns * self.group * self.side

    def windows(self) -> jax.Array:
        """To which of the group's windows each of its tokens belongs, [tokens]."""
        return jnp.tile(jnp.arange(self.group).repeat(self.side * self.side // self.parts), self.parts)

    @property
    def parts(self) -> int:
        """How many parts of a group hold tokens of all its windows: quarters, or there is one."""
        return 4 if self.halvings else 1


# So wide are an accelerator's matrix units: windows of fewer tokens share a product, and so many tokens of a
# row are moved at once. Maps that are no wider are the same on all platforms.
_PRODUCT_TOKENS = 128


def _choose_group(tokens: int, windows: int, width: int) -> int:
    """How many of the windows in a row to put into one product, in a map so wide."""
    if width < _PRODUCT_TOKENS or on_cpu():
        return 1
    return _largest_divisor(windows, _PRODUCT_TOKENS // tokens)


def _largest_divisor(number: int, most: int) -> int:
    return max(n for n in range(1, max(most, 1) + 1) if number % n == 0)


def tile_partition(x: jax.Array, order: WindowOrder) -> jax.Array:
    """Cut x [B, H, W, C] into windows laid out in this order: [B, N / group, tokens, C]."""

    def product(x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        where = _places(width, order, _PRODUCT_TOKENS)
        x = x.reshape(batch, height // order.side, order.side, -1, where.shape[1], channels)
        # r: row of windows, m: part of it, n: group in that part
        return move("brymxc,yxnt->brmntc", x, where).reshape(batch, -1, order.tokens, channels)

    return on_tpu(lambda x: _cut(x, order), product, x)


def tile_unpartition(x: jax.Array, order: WindowOrder) -> jax.Array:
    """Put windows [B, N / group, tokens, C] back together: [B, H, W, C]."""
    batch, groups, _, channels = x.shape
    width = order.width

    def join(x: jax.Array) -> jax.Array:
        height = groups * order.tokens // width
        axes = _axes(order.halvings)
        split = _split((batch, height, width, channels), order)
        x = x.reshape([split[axis] for axis in axes]).transpose(np.argsort(axes))
        return x.reshape(batch, height, width, channels)

    def product(x: jax.Array) -> jax.Array:
        where = _places(width, order, 2 * _PRODUCT_TOKENS)  # of the few channels that are a stage's output
        x = x.reshape(batch, -1, width // where.shape[1], where.shape[2], order.tokens, channels)
        return move("brmntc,yxnt->brymxc", x, where).reshape(batch, -1, width, channels)

    return on_tpu(join, product, x)


def quarters_in_order(x: jax.Array, order: WindowOrder) -> list[jax.Array]:
    """The four tokens of each 2x2 of windows [B, N, T, C], each in the order after pooling, [B, N', T', C].

    The maximum of the four is the map pooled 2x2.
    """
    following = order.pooled()
    factor = order.columns // following.columns

    def moving(x: Any) -> Any:
        batch, groups, _, channels = x.shape
        # f: group in one of those that follow, q: quarter, g: window in a group, p: part
        x = x.reshape(batch, groups // factor, factor, 4, order.group, following.parts, -1, channels)
        return x.transpose(3, 0, 1, 5, 2, 4, 6, 7).reshape(4, batch, groups // factor, -1, channels)

    def product(x: jax.Array) -> jax.Array:
        where = _one_hot(lambda x: moving(x.reshape(1, factor, -1, 1)), 1, factor * order.tokens)
        x = x.reshape(x.shape[0], -1, factor * order.tokens, x.shape[-1])
        return move("bnsc,sqt->qbntc", x, where.reshape(len(where), 4, -1))

    quarters = on_tpu(moving, product, x)
    return [quarters[i] for i in range(4)]


def split_groups(x: jax.Array, order: WindowOrder, factor: int) -> jax.Array:
    """Split groups of windows [B, N, tokens, C] in this order into `factor` each: [B, N * factor, ..., C]."""
    batch, groups, tokens, channels = x.shape
    x = _exchange(x, order.parts, factor)
    return x.reshape(batch, groups * factor, tokens // factor, channels)


def merge_groups(x: jax.Array, order: WindowOrder, factor: int) -> jax.Array:
    """Undo `split_groups`: [B, N * factor, ..., C] to [B, N, tokens, C] in this order."""
    x = x.reshape(x.shape[0], -1, order.tokens, x.shape[-1])
    return _exchange(x, factor, order.parts)


def _exchange(x: jax.Array, outer: int, inner: int) -> jax.Array:
    """Turn tokens [outer, inner, ...] of each group into [inner, outer, ...]."""
    if outer == 1 or inner == 1:
        return x

    def moving(x: Any) -> Any:
        apart = x.reshape(*x.shape[:2], outer, inner, -1, x.shape[-1])
        return apart.swapaxes(2, 3).reshape(x.shape)

    where = _one_hot(moving, 1, x.shape[2])
    return on_tpu(moving, lambda x: move("bnsc,st->bntc", x, where), x)


def _split(shape: tuple[int, ...], order: WindowOrder) -> tuple[int, ...]:
    """The shape [B, H, W, C] split as [B, rows, y, ...bits of y, columns, group, x, ...bits of x, C]."""
    batch, height, width, channels = shape
    side = (order.side >> order.halvings, *(2,) * order.halvings)
    columns = width // order.side // order.group
    return (batch, height // order.side, *side, columns, order.group, *side, channels)


def _axes(halvings: int) -> tuple[int, ...]:
    """How to transpose what `_split` gives into `WindowOrder`: the lowest bits of y and x first."""
    y, x = (tuple(range(first, first + 1 + halvings)) for first in (2, 5 + halvings))
    bits = [axis for pair in zip(y[:0:-1], x[:0:-1], strict=True) for axis in pair]
    return (0, 1, 3 + halvings, *bits[:2], 4 + halvings, *bits[2:], y[0], x[0], 6 + 2 * halvings)


def _cut(x: Any, order: WindowOrder) -> Any:
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(_split(x.shape, order)).transpose(_axes(order.halvings))
    return x.reshape(batch, -1, order.tokens, channels)


def _places(width: int, order: WindowOrder, most: int) -> jax.Array:
    """Where the tokens of a part of a row of windows go: 1 or 0 for [y, x, group in that part, token].

    The part is `most` tokens wide at most.
    """
    wide = order.side * order.group
    count = _largest_divisor(width // wide, most // wide)
    where = _one_hot(partial(_cut, order=order), order.side, count * wide)
    return where.reshape(order.side, count * wide, count, order.tokens)


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
