"""Memory attention: a frame's features attend to themselves and to what is remembered of an object.

Source: Ravi et al. 2024 (arXiv:2408.00714), section 4 and its appendix; transformers
Sam2VideoMemoryAttention. Two things are arranged otherwise and come out the same:

- Values stay as they are remembered, narrow, and are projected after the attention has mixed them: the
  weights of each query sum to 1, so P (M V + v) O = (P M) (V O) + v O.
- The pairs of channels that are turned together lie half a width apart: the weights' columns are put in this
  order, for queries and keys alike, so that no score changes and turning takes two slices.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.layers import Dense, LayerNorm, Linear, attend
from sam2_jax.model.platforms import on_cpu
from sam2_jax.model.positions import rotary_table, rotate, sine_positions

Table = tuple[jax.Array, jax.Array]

# Added to the score of a key that is not there. Finite: where none is, the mean of all comes out, not NaN.
HIDDEN = -1e30
# Maps of fewer positions have scores that fit a CPU's cache, all slots together.
_LARGE_MAP = 32 * 32
# Queries per step on a CPU: the scores of one slot's 4096 keys are then 4 MB.
_QUERIES_PER_STEP = 256


class Memories(NamedTuple):
    """What is remembered of P objects, in n slots of S tokens and m pointers of C / D tokens each.

    spatial: memories [P, n, S, D]; offsets: added to them and their sines as keys, float32 [P, n, S or 1, D];
    valid: bool [P, n]; pointers [P, m C / D, D], float32; pointer_offsets: added to them as keys, the same
    shape; pointer_valid: bool [P, m C / D].
    """

    spatial: jax.Array
    offsets: jax.Array
    valid: jax.Array
    pointers: jax.Array
    pointer_offsets: jax.Array
    pointer_valid: jax.Array


class RotaryAttention(nn.Module):
    """Projections of an attention whose queries and keys are turned by their place on the map.

    key_features is the width of what keys and values are made of.
    """

    config: Sam2VideoConfig
    key_features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = config.memory_attention_hidden_size
        inner = width // config.memory_attention_downsample_rate
        self.heads = config.memory_attention_num_attention_heads
        self.q_proj = Dense(width, inner, **types)
        self.k_proj = Dense(self.key_features, inner, **types)
        self.v_proj = Dense(self.key_features, inner, **types)
        self.o_proj = Dense(inner, width, **types)

    def queries(self, x: jax.Array, table: Table) -> jax.Array:
        """Turned queries [B, S, heads, d] of x [B, S, C]."""
        return rotate(self._by_head(self._halves(self.q_proj)(x, self.dtype)), table)

    def _by_head(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _halves(self, layer: Dense) -> Linear:
        """A layer whose outputs 2 k and 2 k + 1 of each head have become its k and k + d / 2."""

        def reorder(x: jax.Array) -> jax.Array:
            pairs = x.reshape(*x.shape[:-1], self.heads, -1, 2)
            return pairs.swapaxes(-1, -2).reshape(x.shape)

        return Linear(*map(reorder, layer.weights()))


class SelfAttention(RotaryAttention):
    """The map attends to itself."""

    def __call__(self, x: jax.Array, table: Table) -> jax.Array:
        """Map x [B, S, C] to [B, S, C]."""
        query = self.queries(x, table)
        key = rotate(self._by_head(self._halves(self.k_proj)(x, self.dtype)), table)
        value = self._by_head(self.v_proj(x))
        mixed, _ = attend(query[:, None], key[:, None], value[:, None])
        return self.o_proj(mixed.reshape(*x.shape[:2], -1))


class CrossAttention(RotaryAttention):
    """The map attends to memories; pointers have no place on it and are not turned."""

    def __call__(
        self, query: jax.Array, memories: Memories, grid: tuple[int, int], table: Table
    ) -> jax.Array:
        """Turned queries [P or 1, S, heads, d] to [P, S, C]."""
        objects, _, tokens, channels = memories.spatial.shape
        sines = sine_positions(*grid, channels).reshape(1, tokens, channels)
        if objects == 1 and tokens >= _LARGE_MAP and on_cpu():
            mixed = self._slot_by_slot(query, memories, sines, table)
        else:
            mixed = self._all_slots(query, memories, sines, table)
        return self._absorbed_values()(mixed.reshape(objects, tokens, -1), self.dtype)

    def _absorbed_values(self) -> Linear:
        """The projections of values and of the output as one, [heads D, C]."""
        value, out = (
            Linear(*(x.astype(jnp.float32) for x in layer.weights())) for layer in (self.v_proj, self.o_proj)
        )
        v = value.kernel.reshape(self.key_features, self.heads, -1)
        o = out.kernel.reshape(self.heads, v.shape[-1], -1)
        highest = jax.lax.Precision.HIGHEST
        kernel = jnp.einsum("mhd,hdc->hmc", v, o, precision=highest).reshape(-1, o.shape[-1])
        return Linear(kernel, jnp.matmul(value.bias, out.kernel, precision=highest) + out.bias)

    def _all_slots(self, query: jax.Array, memories: Memories, sines: jax.Array, table: Table) -> jax.Array:
        """Attend to all slots at once, those that are not valid hidden: [P, S, heads, D]."""
        objects, _, tokens, channels = memories.spatial.shape
        project = self._halves(self.k_proj)
        spatial = memories.spatial.astype(jnp.float32) + sines[None] + memories.offsets
        spatial_keys = rotate(self._by_head(project(spatial, self.dtype)), table)
        pointer_keys = self._pointer_keys(memories, project)
        key = jnp.concatenate([spatial_keys.reshape(objects, -1, *pointer_keys.shape[2:]), pointer_keys], 1)
        parts = (x.reshape(objects, -1, 1, channels) for x in (memories.spatial, memories.pointers))
        value = jnp.concatenate([x.astype(self.dtype) for x in parts], 1)
        value = jnp.broadcast_to(value, (*key.shape[:3], channels))
        valid = jnp.concatenate([memories.valid.repeat(tokens, axis=1), memories.pointer_valid], 1)
        bias = jnp.where(valid, 0.0, HIDDEN).astype(jnp.float32)[None, :, None, None]
        query = jnp.broadcast_to(query, (objects, *query.shape[1:]))
        return attend(query[None], key[None], value[None], bias)[0][0]

    def _pointer_keys(self, memories: Memories, project: Linear) -> jax.Array:
        return self._by_head(project(memories.pointers + memories.pointer_offsets, self.dtype))

    def _slot_by_slot(
        self, query: jax.Array, memories: Memories, sines: jax.Array, table: Table
    ) -> jax.Array:
        """Attend to one object's valid slots one after the other, [1, S, heads, D]: others cost nothing."""
        project = self._halves(self.k_proj)
        one = jax.tree.map(lambda x: x[0], memories)
        query = query[0] * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
        bias = jnp.where(one.pointer_valid, 0.0, HIDDEN).astype(jnp.float32)
        pointers = _attend_part(
            query, self._pointer_keys(memories, project)[0], one.pointers.astype(self.dtype), bias
        )

        def attend_slot(so_far: _Part, spatial: jax.Array, offset: jax.Array) -> _Part:
            keyed = spatial.astype(jnp.float32) + sines[0] + offset
            key = rotate(self._by_head(project(keyed, self.dtype)), table)
            return _joined(so_far, _attend_part(query, key, spatial.astype(self.dtype)))

        def step(so_far: _Part, slot: tuple[jax.Array, ...]) -> tuple[_Part, None]:
            is_valid, *slot_inputs = slot
            return jax.lax.cond(is_valid, attend_slot, lambda x, *_: x, so_far, *slot_inputs), None

        (mixed, _, total), _ = jax.lax.scan(step, pointers, (one.valid, one.spatial, one.offsets))
        return (mixed / total).astype(self.dtype)[None]


class _Part(NamedTuple):
    """Attention to some of the keys: unnormalised mixed values, the largest score, the weights' sum.

    mixed [S, heads, D], top and total [S, heads, 1], float32.
    """

    mixed: jax.Array
    top: jax.Array
    total: jax.Array


def _attend_part(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None) -> _Part:
    """Attend scaled queries [S, heads, d] to keys [K, heads, d] with values [K, D], a few queries a step."""
    tokens, _, width = query.shape
    chunk = max(size for size in range(1, _QUERIES_PER_STEP + 1) if tokens % size == 0)

    def attend_head(head: tuple[jax.Array, jax.Array]) -> _Part:
        query, key = head

        @jax.checkpoint  # for gradients: the scores are computed again rather than kept
        def attend_chunk(query: jax.Array) -> _Part:
            scores = jnp.einsum("qd,kd->qk", query, key, preferred_element_type=jnp.float32)
            if bias is not None:
                scores = scores + bias[None]
            top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
            weights = jnp.exp(scores - top)
            mixed = jnp.einsum(
                "qk,kd->qd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
            )
            return _Part(mixed, top, weights.sum(axis=-1, keepdims=True))

        return jax.lax.map(attend_chunk, query.reshape(-1, chunk, width))

    # Products of matrices: with the heads among their letters XLA takes twice as long on a CPU.
    parts = jax.lax.map(attend_head, (query.swapaxes(0, 1), key.swapaxes(0, 1)))
    return jax.tree.map(lambda x: x.reshape(x.shape[0], tokens, -1).swapaxes(0, 1), parts)


def _joined(a: _Part, b: _Part) -> _Part:
    """Attention to the keys of both."""
    top = jnp.maximum(a.top, b.top)
    scale_a, scale_b = jnp.exp(a.top - top), jnp.exp(b.top - top)
    return _Part(a.mixed * scale_a + b.mixed * scale_b, top, a.total * scale_a + b.total * scale_b)


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to memories, feed-forward, each on a LayerNorm and added.

    The first half knows no object yet: of the first layer it is computed once for all of them.
    """

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = config.memory_attention_hidden_size
        hidden = config.memory_attention_feed_forward_hidden_size
        self.self_attn = SelfAttention(config, width, **types)
        self.cross_attn_image = CrossAttention(config, config.memory_encoder_output_channels, **types)
        self.linear1 = Dense(width, hidden, **types)
        self.linear2 = Dense(hidden, width, **types)
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = (LayerNorm(1e-5, **types) for _ in range(3))

    def attend_to_itself(self, x: jax.Array, table: Table) -> tuple[jax.Array, jax.Array]:
        """Self-attention on x [B, S, C]: the sum, and its queries for memories [B, S, heads, d]."""
        x = x + self.self_attn(self.layer_norm1(x), table)
        return x, self.cross_attn_image.queries(self.layer_norm2(x), table)

    def attend_to_memories(
        self, x: jax.Array, query: jax.Array, memories: Memories, grid: tuple[int, int], table: Table
    ) -> jax.Array:
        """The rest: x [P or 1, S, C] and its queries to [P, S, C]."""
        x = x + self.cross_attn_image(query, memories, grid, table)
        return x + self.linear2(nn.relu(self.linear1(self.layer_norm3(x))))


class MemoryAttention(nn.Module):
    """All layers: `prepare` once per frame, the rest for its objects."""

    config: Sam2VideoConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layers = range(self.config.memory_attention_num_layers)
        self.layers = [MemoryAttentionLayer(self.config, **types) for _ in layers]
        self.layer_norm = LayerNorm(1e-5, **types)

    def prepare(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Begin with features [B, h, w, C]: tokens [B, S, C], queries [B, S, heads, d]."""
        batch, height, width, channels = features.shape
        x = features.astype(jnp.float32) + 0.1 * sine_positions(height, width, channels)
        x = x.astype(self.dtype).reshape(batch, height * width, channels)
        return self.layers[0].attend_to_itself(x, self._table(height, width))

    def __call__(
        self, x: jax.Array, query: jax.Array, memories: Memories, grid: tuple[int, int]
    ) -> jax.Array:
        """Condition what `prepare` gives of one frame, x [1, S, C], on P objects' memories: [P, S, C].

        grid: (h, w), of which S is the product.
        """
        table = self._table(*grid)
        x = self.layers[0].attend_to_memories(x, query, memories, grid, table)
        for layer in self.layers[1:]:
            x, query = layer.attend_to_itself(x, table)
            x = layer.attend_to_memories(x, query, memories, grid, table)
        return self.layer_norm(x)

    def _table(self, height: int, width: int) -> Table:
        return rotary_table(height, width, self.config.memory_attention_head_size, self.config.rope_theta)
