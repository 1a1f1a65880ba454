"""Building blocks shared by the whole network: linear layers, norms, multi-layer perceptrons, attention.

Precision policy: modules compute in `dtype` and hold parameters in `param_dtype`; LayerNorm statistics,
softmax and positional encodings are always float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sam2_jax.model.flash_attention import flash_blocks, on_tpu_alone, takes_width
from sam2_jax.model.platforms import by_platform, on_cpu, on_tpu


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x times the normal distribution's share below x; by erf, as torch has it.

    `jax.nn.gelu` takes erfc, which costs a CPU several times as much.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


class Linear(NamedTuple):
    """The weights of a linear layer: kernel [C, F], bias [F]."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array, dtype: Any) -> jax.Array:
        """Map x [..., C] to [..., F] in a computing type; the bias is added before the result is rounded.

        A CPU accumulates and returns products of bfloat16 in float32, its fast path.
        """
        operands = x.astype(dtype), self.kernel.astype(dtype), self.bias.astype(dtype)
        if dtype == jnp.float32:
            return _linear(*operands)
        return by_platform(partial(_linear, accumulate=jnp.float32), _linear, *operands)

    def then(self, following: "Linear") -> "Linear":
        """Both layers as one, [C, F] and [F, G] as [C, G]: equal but for rounding."""
        first, second = (jax.tree.map(lambda x: x.astype(jnp.float32), layer) for layer in (self, following))
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return Linear(product(first.kernel, second.kernel), product(first.bias, second.kernel) + second.bias)


def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, accumulate: Any = None) -> jax.Array:
    numbers = (((x.ndim - 1,), (0,)), ((), ()))
    out = jax.lax.dot_general(x, kernel, numbers, preferred_element_type=accumulate)
    return (out + bias.astype(out.dtype).reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Dense(nn.Module):
    """Linear layer over the last axis, to be called, or asked for its weights to be joined with others.

    convolution: the kernel is stored as that of a 1x1 convolution.
    """

    in_features: int
    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.normal(0.02)
    convolution: bool = False

    def setup(self) -> None:
        shape = (1, 1) * self.convolution + (self.in_features, self.features)
        self.kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)

    def weights(self) -> Linear:
        """The layer as kernel [in_features, features] and bias [features]."""
        return Linear(self.kernel.reshape(self.in_features, self.features), self.bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., in_features] to [..., features]."""
        return self.weights()(x, self.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any) -> jax.Array:
    """Normalise x [..., C] in float32, with the variance in a second pass, as torch computes it.

    On a TPU a network that computes in bfloat16 takes one pass for both.
    """
    lead = (1,) * (x.ndim - 1)
    x = x.astype(jnp.float32)
    is_low = dtype == jnp.bfloat16
    mean, variance = on_tpu(_in_two_passes, _in_one_pass, x) if is_low else _in_two_passes(x)
    factor = jax.lax.rsqrt(variance + epsilon) * scale.astype(jnp.float32).reshape(*lead, -1)
    return ((x - mean) * factor + bias.astype(jnp.float32).reshape(*lead, -1)).astype(dtype)


def _in_two_passes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = x.mean(axis=-1, keepdims=True)
    return mean, jnp.square(x - mean).mean(axis=-1, keepdims=True)


def _in_one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and E[x^2] - E[x]^2, which whatever makes x can give as it writes x.

    In float32 that loses what bfloat16 holds only where the mean is tens of standard deviations.
    """
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean)
    return mean, jnp.maximum(variance, 0)


class LayerNorm(nn.Module):
    """LayerNorm over channels, see `layer_norm`."""

    epsilon: float
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x [..., C]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)


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
            x = Dense(x.shape[-1], width, self.dtype, self.param_dtype, self.kernel_init, name=name)(x)
            if name != "proj_out":
                x = self.activation(x)
        return x


def reaches(count: Any, least: int) -> bool:
    """Whether a number of images or objects is at least so large; one that an export leaves open is."""
    return export.is_symbolic_dim(count) or count >= least


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


# Fewer keys than this, as in all windows, make scores that no loop is worth, nor a TPU's special kernel.
_MANY_KEYS = 1024
# cuDNN's kernels take queries and keys by 128 and fuse what moves as much as several products. On shorter key
# rows, mostly filled up, XLA's own fusions do better.
_CUDNN_KEYS = 128
# Queries per step where full attention goes in steps: so few that the scores of 4096 keys stay near a CPU's
# second-level cache, so many that an accelerator is busy.
_QUERIES_PER_STEP = {"cpu": 256, "cuda": 1024, "tpu": 1024}
# Scores per step on an accelerator, at most: 32 MB of them stay in a TPU's vector memory or a GPU's cache.
_SCORES_PER_STEP = 2**23


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Scaled dot-product attention, softmax in float32: the one entry point for every backend.

    query is [B, P, Q, H, D], key [B, P, K, H, D], value [B, P, K, H, F]; bias, float32, broadcasts to
    [B, P, H, Q, K] and is added to the scores. Either side may have P = 1, shared by the other's P.
    scale is that of the scores, D^-0.5 if not given.
    Returns ([B, P, Q, H, F] in query's dtype, weights [B, P, H, Q, K] float32 or None).
    """
    query = query * jnp.asarray(query.shape[-1] ** -0.5 if scale is None else scale, query.dtype)
    is_open = export.is_symbolic_dim(key.shape[2])
    if return_weights or (bias is not None and (is_open or bias.shape[2:4] != (1, 1))):
        out, weights, total = _attend_plain(query, key, value, bias)
        return out, weights / total if return_weights else None
    may_fuse = bias is None and value.shape[-1] == query.shape[-1]  # or no fused kernel is asked for
    best = {name: best_implementation(query, key, name, may_fuse) for name in _QUERIES_PER_STEP}
    if set(best.values()) == {"plain"}:
        return _attend_plain(query, key, value, bias)[0], None
    on = {name: IMPLEMENTATIONS[best[name]] for name in best}

    def accelerator(*operands: jax.Array) -> jax.Array:
        if best["cuda"] == best["tpu"]:
            return on["tpu"](*operands)
        return on_tpu(on["cuda"], on["tpu"], *operands)

    operands = (query, key, value) if bias is None else (query, key, value, bias)
    return by_platform(on["cpu"], accelerator, *operands), None


def best_implementation(query: jax.Array, key: jax.Array, platform: str, may_fuse: bool = True) -> str:
    """Name the best of IMPLEMENTATIONS for these shapes and types on platform "cpu", "cuda" or "tpu"."""
    queries, width = query.shape[2], query.shape[4]
    if key.shape[:2] != query.shape[:2]:
        return "plain"
    # cuDNN's conditions.
    fits = query.dtype == jnp.bfloat16 and width % 8 == 0 and width <= 128
    if platform == "cuda" and may_fuse and fits and key.shape[2] >= _CUDNN_KEYS and _has_cudnn():
        return "cudnn"
    if key.shape[2] < _MANY_KEYS:
        return "plain"
    is_closed = not any(export.is_symbolic_dim(size) for size in query.shape)
    if (
        platform == "tpu"
        and may_fuse
        and is_closed
        and takes_width(width)
        and flash_blocks(queries, key.shape[2])
    ):
        return "flash"
    chunk = _QUERIES_PER_STEP[platform]
    return "chunked" if queries > chunk and queries % chunk == 0 else "plain"


def _has_cudnn() -> bool:
    """Whether a program with cuDNN's attention can be made here: it takes jaxlib's CUDA plugin, not a GPU."""
    x = jax.ShapeDtypeStruct((1, 1, 1024, 1, 64), jnp.bfloat16)
    try:
        # A function of its own each time: JAX would keep the answer.
        jax.eval_shape(lambda x: _attend_cudnn(x, x, x), x)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _attend_plain(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the result, and the softmax as its unnormalised weights and their sums.

    Dividing after the product with the values spares a pass over the scores, by far the largest array. The
    weights are summed as the product takes them, rounded: they are written once, in the type of the values.
    """
    scores = jnp.einsum("bpqhd,bpkhd->bphqk", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    weights = unnormalised_softmax(scores, axis=-1).astype(value.dtype)
    total = weights.astype(jnp.float32).sum(axis=-1, keepdims=True)
    out = jnp.einsum("bphqk,bpkhd->bpqhd", weights, value, preferred_element_type=jnp.float32)
    return (out / jnp.moveaxis(total, 2, 3)).astype(query.dtype), weights, total


def unnormalised_softmax(scores: jax.Array, axis: int) -> jax.Array:
    """Exponentials of scores along an axis, the largest being 1; dividing by their sum is left to do."""
    return jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=axis, keepdims=True)))


def _attend_chunked(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Attend chunk by chunk of queries, on a CPU or to many keys head by head too: no one writes all scores.

    bias broadcasts to [B, P, 1, 1, K].
    """
    batch, objects, queries, heads, width = query.shape
    is_on_cpu = on_cpu()
    chunk = min(_QUERIES_PER_STEP["cpu" if is_on_cpu else "tpu"], queries)
    are_many_keys = not is_on_cpu and chunk * key.shape[2] > _SCORES_PER_STEP
    while are_many_keys and chunk * key.shape[2] > _SCORES_PER_STEP and chunk % 2 == 0:
        chunk //= 2

    def by_head(x: jax.Array) -> jax.Array:
        return x.swapaxes(2, 3).reshape(batch * objects * heads, -1, x.shape[-1])

    @jax.checkpoint  # for gradients: the scores are computed again rather than kept
    def attend_chunk(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> jax.Array:
        scores = jnp.einsum("qd,kd->qk", query, key, preferred_element_type=jnp.float32)
        if bias is not None:
            scores = scores + bias
        weights = unnormalised_softmax(scores, axis=-1)
        if not is_on_cpu:  # a column of ones sums the weights, for which they would be computed once more
            value = jnp.concatenate([value, jnp.ones((value.shape[0], 1), value.dtype)], axis=1)
        out = jnp.einsum("qk,kd->qd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        if is_on_cpu:
            return (out / weights.sum(axis=-1, keepdims=True)).astype(query.dtype)
        return (out[:, :-1] / out[:, -1:]).astype(query.dtype)

    def attend_head(one: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]) -> jax.Array:
        query, key, value, bias = one
        chunks = query.reshape(-1, chunk, width)
        out = jax.lax.map(lambda chunk: attend_chunk(chunk, key, value, bias), chunks)
        return out.reshape(queries, -1)

    if bias is not None:
        bias = jnp.broadcast_to(bias, (batch, objects, heads, 1, key.shape[2]))
        bias = bias.reshape(batch * objects * heads, 1, -1)
    operands = by_head(query), by_head(key), by_head(value), bias
    all_heads = partial(jax.lax.map, attend_head) if is_on_cpu or are_many_keys else jax.vmap(attend_head)
    out = all_heads(operands)
    return out.reshape(batch, objects, heads, queries, -1).swapaxes(2, 3)


def _attend_cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """cuDNN's fused attention: bfloat16, head sizes of up to 128 that 8 divides; queries are scaled."""
    flat = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    return jax.nn.dot_product_attention(*flat, scale=1.0, implementation="cudnn").reshape(query.shape)


IMPLEMENTATIONS = {
    "plain": lambda *operands: _attend_plain(*operands)[0],
    "chunked": _attend_chunked,
    "cudnn": _attend_cudnn,
    # Inside of a TPU's program as the others are inside of theirs.
    "flash": on_tpu_alone(_attend_chunked),
}
