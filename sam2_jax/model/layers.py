"""Building blocks shared by the whole network: norms, multi-layer perceptrons, attention.

Precision policy: modules compute in `dtype` and hold parameters in `param_dtype`; LayerNorm statistics,
softmax and positional encodings are always float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

gelu = partial(nn.gelu, approximate=False)  # SAM 2 uses the exact (erf) form; Flax defaults to tanh

# Queries per step of full attention. 256 keeps the scores of 4096 keys in a CPU's second-level cache.
_QUERY_CHUNK = 256


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
            x = nn.Dense(
                width, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init, name=name
            )(x)
            if name != "proj_out":
                x = self.activation(x)
        return x


def recording(module: nn.Module, collection: str) -> bool:
    """Whether the caller of `apply` wants this collection, "hidden_states" or "attentions"."""
    return module.is_mutable_collection(collection) and not module.is_initializing()


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    *,
    return_weights: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Scaled dot-product attention, softmax in float32: the one entry point for every backend.

    query is [B, P, Q, H, D]; key and value are [B, P, K, H, D]; bias, float32, broadcasts to
    [B, P, H, Q, K] and is added to the scores. Either side may have P = 1, shared by the other's P.
    Returns ([B, P, Q, H, D] in query's dtype, weights [B, P, H, Q, K] float32 or None).
    """
    queries = query.shape[2]
    chunked = not return_weights and bias is None and queries > _QUERY_CHUNK and queries % _QUERY_CHUNK == 0
    # Only long key rows overflow a cache; elsewhere the loop costs more than it saves.
    if chunked and key.shape[2] > _QUERY_CHUNK:
        chunks = jnp.moveaxis(
            query.reshape(*query.shape[:2], queries // _QUERY_CHUNK, _QUERY_CHUNK, *query.shape[3:]), 2, 0
        )
        out = jax.lax.map(lambda chunk: _attend(chunk, key, value, None)[0], chunks)
        return jnp.moveaxis(out, 0, 2).reshape(query.shape), None
    out, weights, total = _attend(query, key, value, bias)
    return out, weights / total if return_weights else None


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the result, and the softmax as its unnormalised weights and their sums.

    Dividing after the product with the values spares a pass over the scores, by far the largest array.
    """
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bpqhd,bpkhd->bphqk", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum(
        "bphqk,bpkhd->bpqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return (out / jnp.moveaxis(total, 2, 3)).astype(query.dtype), weights, total
