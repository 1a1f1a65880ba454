"""A block of Hiera: attention in windows, pooled where a stage begins, and a multi-layer perceptron.

Source: Ryali et al. 2023 (arXiv:2306.00989); transformers Sam2MultiScaleAttention, Sam2MultiScaleBlock.
"""

from collections.abc import Iterable
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2HieraDetConfig
from sam2_jax.model.kernels import kernel_on_tpu
from sam2_jax.model.layers import MLP, Dense, LayerNorm, Linear, attend, gelu, recording
from sam2_jax.model.platforms import is_known_for_gpu, on_tpu
from sam2_jax.model.window_attention import WindowWeights, takes_maps, window_attention
from sam2_jax.model.windows import (
    WindowOrder,
    quarters_in_order,
    quarters_of_maps,
    rows_of_tokens,
    window_partition,
    window_unpartition,
)


def pooled(linear: Linear, quarters: list[jax.Array], dtype: Any) -> jax.Array:
    """2x2 max pooling of a linear layer's outputs, given its inputs in four parts, one of each 2x2.

    The quarters of the outputs are never joined, only the greater of them kept.
    """
    return _greatest(linear(quarter, dtype) for quarter in quarters)


def _greatest(quarters: Iterable[jax.Array]) -> jax.Array:
    return reduce(jnp.maximum, quarters)


QueryKeyValue = tuple[jax.Array, jax.Array, jax.Array]


class MultiScaleAttention(nn.Module):
    """Self-attention inside windows; the first block of a stage pools its queries 2x2.

    The zeros that fill up a window take part as keys, as in the reference. Source: Sam2MultiScaleAttention.

    Where queries are pooled there are few of them, so their keys and values are not projected: the queries
    go through the keys' kernel instead, what they gather of the inputs through the values' (Attention in
    arXiv:1706.03762, re-associated), and all heads attend to the same inputs:

        q_h (y W_k,h + b)^T = (q_h W_k,h^T) y^T + q_h b^T, of which the last drops out of the softmax
        P_h (y W_v,h + b)   = (P_h y) W_v,h + b, since the rows of P_h sum to one

    Not on a GPU, where one large product costs less than the launches of several small ones.
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
            height, width, *side = (n // 2 for n in (height, width, *windows.shape[2:4]))
            if is_known_for_gpu():
                query, key, value = jnp.split(self.qkv(windows), 3, axis=-1)
                parts = [_greatest(quarters_of_maps(query)), key, value]
                out = self._joined(self._attend(*self._heads([rows_of_tokens(x) for x in parts])))
            else:
                parts = quarters_of_maps(windows)
                layer, rows = _thirds(self.qkv.weights())[0], [rows_of_tokens(x) for x in parts]
                out = self._attend_pooled(pooled(layer, rows, self.dtype), rows_of_tokens(windows))
        elif self.window == 0:
            by_head = self._attend(*self._project_windows(x))
            return on_tpu(self._project_joined, self._project_heads, by_head, self.proj.weights()).reshape(
                *x.shape[:3], -1
            )
        else:
            side = [self.window] * 2
            out = self._joined(self._attend(*self._project_windows(x)))
        return self.proj(window_unpartition(out.reshape(*out.shape[:2], *side, -1), height, width))

    def in_order(self, x: jax.Array) -> jax.Array:
        """Attend within windows that are laid out, x [B, N, T, C].

        Returns [B, N, T, features], or [B, N, T / 4, features] in the order after pooling.
        """
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        if self.pool_queries:
            query = _greatest(quarters_in_order(query))
        return self.proj(self._joined(self._attend(*self._heads([query, key, value]))))

    def pooled_in_order(self, x: jax.Array, parts: list[jax.Array]) -> jax.Array:
        """Do as `in_order`, re-associated, given the quarters of x."""
        queries = pooled(_thirds(self.qkv.weights())[0], parts, self.dtype)
        return self.proj(self._attend_pooled(queries, x))

    def _project_windows(self, x: jax.Array) -> QueryKeyValue:
        """Queries, keys and values [B, N, T, H, D] of the windows of x [B, H, W, C]."""

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

    def _joined(self, out: jax.Array) -> jax.Array:
        return out.reshape(*out.shape[:3], -1)

    def _project_joined(self, out: jax.Array, layer: Linear) -> jax.Array:
        """Map what heads attended to, [B, N, T, H, D], to [B, N, T, features]."""
        return layer(self._joined(out), self.dtype)

    def _project_heads(self, out: jax.Array, layer: Linear) -> jax.Array:
        """Do as `_project_joined`, heads staying where a TPU's fused attention leaves them."""
        kernel, bias = (x.astype(self.dtype) for x in layer)
        out = jnp.einsum("bnthd,hdf->bntf", out, kernel.reshape(*out.shape[3:], -1))
        return out + bias.reshape(1, 1, 1, -1)

    def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """Attend, [B, N, T, H, D] each and the result."""
        wanted = recording(self, "attentions")
        out, weights = attend(query, key, value, return_weights=wanted)
        if wanted:
            self.sow("attentions", "weights", weights)
        return out

    def _attend_pooled(self, queries: jax.Array, x: jax.Array) -> jax.Array:
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
        wanted = recording(self, "attentions")
        tokens = x[:, :, :, None]
        out, weights = attend(absorbed, tokens, tokens, scale=1.0, return_weights=wanted)
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

    def __call__(self, x: jax.Array, order: WindowOrder | None = None, has_kernel: bool = False) -> jax.Array:
        """Map x [B, H, W, C] to [B, H', W', features]; H' and W' are halved in a pooling block.

        With an order x is [B, N, T, C], windows laid out in it; so is the result, in the order after
        pooling if the block pools. has_kernel: attend to windows of a map in a TPU's kernel.
        """
        if has_kernel and self.window > 0 and takes_maps(x.shape[1], x.shape[2], self.window, self.pool):
            x = self._attended_on_tpu(x)
        else:
            x = self.attended(x, order)
        return x + self.mlp(self.layer_norm2(x))

    def attended(self, x: jax.Array, order: WindowOrder | None = None) -> jax.Array:
        """The block's first half: attention added to its shortcut."""
        y = self.layer_norm1(x)
        quarters = quarters_of_maps if order is None else quarters_in_order
        is_joined = not self.pool or is_known_for_gpu()
        if order is not None and not is_joined:
            parts = quarters(y)
            attended = self.attn.pooled_in_order(y, parts)
        else:
            attended = self.attn(y) if order is None else self.attn.in_order(y)
            parts = [y] if is_joined else quarters(y)
        if self.in_features == self.features:
            return x + attended
        # The shortcut is projected from the normalised input, then pooled.
        shortcut = pooled(self.proj.weights(), parts, self.dtype)
        if self.pool and is_joined:
            shortcut = _greatest(quarters(shortcut))
        return shortcut + attended

    def _attended_on_tpu(self, x: jax.Array) -> jax.Array:
        """Do as `attended` with a map, in a TPU's program by a kernel."""
        module, variables = self.unbind()
        names = (
            ("layer_norm1", "attn", "proj") if self.in_features != self.features else ("layer_norm1", "attn")
        )
        leaves, structure = jax.tree.flatten({name: variables["params"][name] for name in names})

        def call(method: str, x: jax.Array, *leaves: jax.Array) -> Any:
            params = jax.tree.unflatten(structure, leaves)
            return module.apply({"params": params}, x, method=method)

        batch, height, width, _ = x.shape
        half = 1 + self.pool
        result = jax.ShapeDtypeStruct((batch, height // half, width // half, self.features), self.dtype)
        return kernel_on_tpu(
            partial(call, "attended_in_kernel"), partial(call, "attended"), result, [x], leaves
        )

    def attended_in_kernel(self, x: jax.Array) -> jax.Array:
        """What `attended` makes of a map, by a kernel that only a TPU has."""
        norm = self.layer_norm1.variables["params"]
        query, key, value = _thirds(self.attn.qkv.weights())
        shortcut = self.proj.weights() if self.in_features != self.features else None
        weights = WindowWeights(
            norm["scale"], norm["bias"], query, key, value, self.attn.proj.weights(), shortcut
        )
        epsilon = self.config.layer_norm_eps
        return window_attention(x, weights, self.window, self.num_heads, self.pool, epsilon)
