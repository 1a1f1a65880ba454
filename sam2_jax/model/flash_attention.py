"""Fused attention on a TPU: JAX's own Pallas kernel, for many keys.

Source: Dao et al. 2022, FlashAttention (arXiv:2205.14135); jax.experimental.pallas.ops.tpu.flash_attention.
"""

from collections.abc import Callable

import jax

from sam2_jax.model.kernels import kernel_on_tpu

# Keys that a step of the kernel takes, and queries: their scores, in float32, fill half of a TPU's scratch
# memory of 16 MiB.
_KEYS, _QUERIES = 4096, 512
_LANES = 128

Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def flash_blocks(queries: int, keys: int) -> tuple[int, int] | None:
    """Into blocks of how many queries and keys to cut so many; None if that leaves a rest."""
    blocks = [
        [size for size in range(_LANES, most + 1, _LANES) if count % size == 0]
        for count, most in ((queries, _QUERIES), (keys, _KEYS))
    ]
    return (blocks[0][-1], blocks[1][-1]) if all(blocks) else None


def takes_width(width: int) -> bool:
    """Whether the kernel takes heads of this width."""
    return width <= _LANES or width % _LANES == 0


def flash_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attend with scaled queries [B, P, Q, H, D] to keys and values [B, P, K, H, D]: [B, P, Q, H, D].

    `flash_blocks` and `takes_width` say of which sizes.
    """
    blocks = flash_blocks(query.shape[2], key.shape[2])
    if blocks is None:
        raise ValueError(f"{query.shape[2]} queries and {key.shape[2]} keys are no whole blocks of {_LANES}")
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    q, k = blocks
    backward = {
        name: min(q, k)
        for name in (
            *("block_q_major_dkv", "block_k_major_dkv", "block_k_dkv", "block_q_dkv"),
            *("block_k_major_dq", "block_k_dq", "block_q_dq"),
        )
    }
    sizes = pallas.BlockSizes(block_b=1, block_q=q, block_k_major=k, block_k=k, **backward)
    by_head = (x.reshape(-1, *x.shape[2:]).swapaxes(1, 2) for x in (query, key, value))
    return pallas.flash_attention(*by_head, block_sizes=sizes).swapaxes(1, 2).reshape(query.shape)


def on_tpu_alone(elsewhere: Attention) -> Attention:
    """An operation that is `flash_attention` where it is lowered for a TPU, and `elsewhere` elsewhere."""

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct(query.shape, query.dtype)
        return kernel_on_tpu(flash_attention, elsewhere, result, (query, key, value))

    return attend
