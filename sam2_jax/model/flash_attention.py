"""Fused attention on a TPU: JAX's own Pallas kernel, as an operation that every program may hold.

The kernel can be lowered for a TPU alone, so not in a program for several platforms, and says nothing of how
its result varies over devices, which `jax.shard_map` asks unless its check_vma is False. This operation can
stand everywhere: it becomes the kernel where that can be, and else steps of plain attention.

Source: Dao et al. 2022, FlashAttention (arXiv:2205.14135); jax.experimental.pallas.ops.tpu.flash_attention.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

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
    """An operation that is `flash_attention` where it is lowered for a TPU, and `elsewhere` elsewhere.

    It is differentiated as `elsewhere` is, in both modes.
    """
    primitive = Primitive("flash_attention")
    primitive.def_impl(jax.jit(elsewhere))
    primitive.def_abstract_eval(lambda query, key, value: query)
    plain = mlir.lower_fun(elsewhere, multiple_results=False)
    mlir.register_lowering(primitive, plain)

    def lower_for_tpu(ctx: Any, *operands: Any) -> Any:
        # The kernel has no rule for the other platforms that the program may be for.
        module = ctx.module_context.replace(platforms=("tpu",))
        try:
            return mlir.lower_fun(flash_attention, multiple_results=False)(
                ctx.replace(module_context=module), *operands
            )
        except ValueError:  # inside of jax.shard_map
            return plain(ctx, *operands)

    mlir.register_lowering(primitive, lower_for_tpu, platform="tpu")

    def batched(operands: Any, axes: Any, **_: Any) -> tuple[jax.Array, int]:
        size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
        moved = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        out = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in moved))
        return out.reshape(moved[0].shape), 0

    batching.primitive_batchers[primitive] = batched

    @jax.custom_jvp
    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return primitive.bind(query, key, value)

    @attend.defjvp
    def tangents(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(elsewhere, primals, tangents)

    return attend
