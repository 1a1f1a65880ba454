"""Building blocks shared by the whole network: linear layers, norms, multi-layer perceptrons, attention.

Precision policy: modules compute in `dtype` and hold parameters in `param_dtype`; LayerNorm statistics,
softmax and positional encodings are always float32.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x times the normal distribution's share below x; by erf, as torch has it.

    `jax.nn.gelu` takes erfc, which costs a CPU several times as much.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


_platform: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """The platform that programs traced now are for: "cpu", "gpu" or "tpu"."""
    return _platform.get() or jax.default_backend()


@contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Inside, trace programs for another platform than this process runs on: ahead of time, for a TPU say."""
    token = _platform.set(name)
    try:
        yield
    finally:
        _platform.reset(token)


def _dot_general(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, **options: Any) -> jax.Array:
    """Matrix product that a CPU accumulates and returns in float32, its fast path for bfloat16."""
    wanted = jnp.float32 if platform() == "cpu" else None
    return jax.lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=wanted, **options)


class Dense(nn.Dense):
    """Linear layer over the last axis; the bias is added before the result is rounded to `dtype`."""

    dot_general: Any = _dot_general

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map inputs [..., C] to [..., features]."""
        return super().__call__(inputs).astype(self.dtype)


class Linear(NamedTuple):
    """The weights of a linear layer: kernel [C, F], bias [F]."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array, dtype: Any) -> jax.Array:
        """Map x [..., C] to [..., F] in a computing type."""
        numbers = (((x.ndim - 1,), (0,)), ((), ()))
        out = _dot_general(x.astype(dtype), self.kernel.astype(dtype), numbers)
        return (out + self.bias.astype(dtype).reshape((1,) * (x.ndim - 1) + (-1,))).astype(dtype)

    def then(self, following: "Linear") -> "Linear":
        """Both layers as one, [C, F] and [F, G] as [C, G]: equal but for rounding."""
        first, second = (jax.tree.map(lambda x: x.astype(jnp.float32), layer) for layer in (self, following))
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return Linear(product(first.kernel, second.kernel), product(first.bias, second.kernel) + second.bias)


class LinearWeights(nn.Module):
    """A linear layer given as its weights, for callers that join them with others."""

    in_features: int
    features: int
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self) -> Linear:
        """Return kernel [in_features, features] and bias [features]."""
        shape = (self.in_features, self.features)
        return Linear(
            self.param("kernel", self.kernel_init, shape, self.param_dtype),
            self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype),
        )


class PointwiseConv(nn.Module):
    """1x1 convolution: a linear layer over channels whose kernel has the shape of a convolution's."""

    in_features: int
    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.normal(0.02)

    def setup(self) -> None:
        shape = (1, 1, self.in_features, self.features)
        self.kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)

    def weights(self) -> Linear:
        """The layer as its weights, to be joined with others."""
        return Linear(self.kernel[0, 0], self.bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., in_features] to [..., features]."""
        return self.weights()(x, self.dtype)


def layer_norm(
    epsilon: float, dtype: Any, param_dtype: Any = jnp.float32, name: str | None = None
) -> nn.LayerNorm:
    """LayerNorm over channels with two-pass float32 statistics, as torch computes them."""
    return nn.LayerNorm(epsilon, dtype=dtype, param_dtype=param_dtype, use_fast_variance=False, name=name)


class MLP(nn.Module):
    """Linear layers with an activation between them: `proj_in`, `layers_0`..., `proj_out`.

    Source: transformers Sam2FeedForward. features lists every layer's output width.
    """

    features: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., C] to [..., features[-1]]."""
        names = ["proj_in", *(f"layers_{i}" for i in range(len(self.features) - 2)), "proj_out"]
        for name, width in zip(names, self.features, strict=True):
            x = Dense(
                width, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init, name=name
            )(x)
            if name != "proj_out":
                x = self.activation(x)
        return x


def recording(module: nn.Module, collection: str) -> bool:
    """Whether the caller of `apply` wants this collection, "hidden_states" or "attentions"."""
    return module.is_mutable_collection(collection) and not module.is_initializing()


def one_by_one(
    module: nn.Module, function: Callable[[Any, Any], Any], inputs: Any, axis: int, count: int
) -> Any:
    """Call function(module, part) for each of count parts of inputs along an axis, and join what it returns.

    On a CPU this beats all at once: what a part writes stays in the cache. Arrays of length 1 on the axis are
    shared by all parts.
    """
    leaves, structure = jax.tree.flatten(inputs)
    is_own = [leaf.shape[axis] == count for leaf in leaves]
    own = [jnp.moveaxis(leaf, axis, 0) for leaf, is_owned in zip(leaves, is_own, strict=True) if is_owned]

    def step(module: nn.Module, _: None, slices: list[jax.Array]) -> tuple[None, Any]:
        mine = iter(slices)
        part = [
            jnp.expand_dims(next(mine), axis) if is_owned else leaf
            for leaf, is_owned in zip(leaves, is_own, strict=True)
        ]
        return None, function(module, jax.tree.unflatten(structure, part))

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    out = scan(module, None, own)[1]
    return jax.tree.map(lambda x: jnp.moveaxis(x.squeeze(axis + 1), 0, axis), out)


# Fewer keys than this, as in all windows, make scores that no loop or special kernel is worth.
_MANY_KEYS = 1024


def _query_chunk() -> int:
    """Queries per step where full attention goes in steps.

    So few that the scores of 4096 keys stay near a CPU's second-level cache, so many that an accelerator is
    busy.
    """
    return 256 if platform() == "cpu" else 1024


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    *,
    return_weights: bool = False,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Scaled dot-product attention, softmax in float32: the one entry point for every backend.

    query is [B, P, Q, H, D]; key and value are [B, P, K, H, D]; bias, float32, broadcasts to
    [B, P, H, Q, K] and is added to the scores. Either side may have P = 1, shared by the other's P.
    implementation is "plain" or one of IMPLEMENTATIONS; None takes the best for the platform and the shapes.
    Returns ([B, P, Q, H, D] in query's dtype, weights [B, P, H, Q, K] float32 or None).
    """
    chosen = implementation or best_implementation(query, key, plain=return_weights or bias is not None)
    if chosen != "plain":
        return IMPLEMENTATIONS[chosen](query, key, value), None
    out, weights, total = _attend_plain(query, key, value, bias)
    return out, weights / total if return_weights else None


def best_implementation(query: jax.Array, key: jax.Array, *, plain: bool = False) -> str:
    """Name the implementation for these shapes and types on the platform; plain if nothing else will do."""
    batch, objects, queries, _, width = query.shape
    if plain or key.shape[2] < _MANY_KEYS or key.shape[:2] != (batch, objects):
        return "plain"
    # cuDNN's conditions. On short key rows XLA's own fusions do better.
    if platform() == "gpu" and query.dtype == jnp.bfloat16 and width % 8 == 0 and width <= 128:
        return "cudnn"
    chunk = _query_chunk()
    return "chunked" if queries > chunk and queries % chunk == 0 else "plain"


def _attend_plain(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the result, and the softmax as its unnormalised weights and their sums.

    Dividing after the product with the values spares a pass over the scores, by far the largest array.
    """
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bpqhd,bpkhd->bphqk", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    weights = unnormalised_softmax(scores, axis=-1)
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum(
        "bphqk,bpkhd->bpqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return (out / jnp.moveaxis(total, 2, 3)).astype(query.dtype), weights, total


def unnormalised_softmax(scores: jax.Array, axis: int) -> jax.Array:
    """Exponentials of scores along an axis, the largest being 1; dividing by their sum is left to do."""
    return jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=axis, keepdims=True)))


def _attend_chunked(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attend chunk by chunk of queries, on a CPU also head by head: the full scores are never written."""
    batch, objects, queries, heads, width = query.shape
    chunk = min(_query_chunk(), queries)

    def by_head(x: jax.Array) -> jax.Array:
        return x.swapaxes(2, 3).reshape(batch * objects * heads, -1, width)

    @jax.checkpoint  # for gradients: the scores are computed again rather than kept
    def attend_chunk(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        scores = jnp.einsum("qd,kd->qk", query, key, preferred_element_type=jnp.float32)
        weights = unnormalised_softmax(scores, axis=-1)
        out = jnp.einsum("qk,kd->qd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        return (out / weights.sum(axis=-1, keepdims=True)).astype(query.dtype)

    def attend_head(one: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        query, key, value = one
        chunks = query.reshape(-1, chunk, width)
        return jax.lax.map(lambda chunk: attend_chunk(chunk, key, value), chunks).reshape(-1, width)

    scaled = query * jnp.asarray(width**-0.5, query.dtype)
    operands = by_head(scaled), by_head(key), by_head(value)
    all_heads = partial(jax.lax.map, attend_head) if platform() == "cpu" else jax.vmap(attend_head)
    out = all_heads(operands)
    return out.reshape(batch, objects, heads, queries, width).swapaxes(2, 3)


def _attend_cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """cuDNN's fused attention: bfloat16, head sizes of up to 128 that 8 divides."""
    flat = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    return jax.nn.dot_product_attention(*flat, implementation="cudnn").reshape(query.shape)


# What `attend` may be told to use, beside "plain", which alone takes a bias and gives the weights.
IMPLEMENTATIONS = {"chunked": _attend_chunked, "cudnn": _attend_cudnn}
