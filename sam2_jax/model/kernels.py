"""Pallas's kernels for a TPU as operations that every program may hold.

A kernel can be lowered for a TPU alone, so not in a program for several platforms. The compiler cannot divide
it among chips, as it would have to where `jax.shard_map` is over some axes of a mesh. And a kernel does not
say how its result varies over devices, which shard_map asks unless its check_vma is False. An operation made
here can stand everywhere: it becomes the kernel where that can be, and else plain steps, as which it is
differentiated too, in both modes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

Steps = Callable[..., jax.Array]

_operation = Primitive("tpu_kernel")


def kernel_on_tpu(
    kernel: Steps,
    plain: Steps,
    result: jax.ShapeDtypeStruct,
    along: Sequence[jax.Array],
    whole: Sequence[jax.Array] = (),
) -> jax.Array:
    """Call kernel(*along, *whole) in a program for a TPU, plain(*along, *whole) elsewhere.

    Either gives the array that `result` describes. It and the arrays in `along` have a first axis along which
    nothing depends on anything else: a vmap makes it longer, and chips that share the work divide it.
    """
    return _operation.bind(
        *along, *whole, kernel=kernel, plain=plain, count=len(along), shape=result.shape, dtype=result.dtype
    )


def _steps(*operands: jax.Array, plain: Steps, **_: Any) -> jax.Array:
    return jax.jit(plain)(*operands)


def _result(x: Any, *_: Any, shape: tuple[int, ...], dtype: Any, **__: Any) -> Any:
    return x.update(shape=shape, dtype=dtype)


def _plain_in_program(ctx: Any, *operands: Any, plain: Steps, **_: Any) -> Any:
    return mlir.lower_fun(plain, multiple_results=False)(ctx, *operands)


def _kernel_in_program(ctx: Any, *operands: Any, kernel: Steps, plain: Steps, count: int, **_: Any) -> Any:
    # The kernel has no rule for the other platforms that the program may be for.
    module = ctx.module_context.replace(platforms=("tpu",))
    devices = getattr(module.axis_context, "num_devices", 1)
    is_open = any(export.is_symbolic_dim(size) for aval in ctx.avals_in for size in aval.shape)
    if is_open or _is_over_some_axes(module.axis_context):
        kernel = plain
    elif devices > 1:
        kernel = _divided(kernel, devices, ctx.avals_in, count) or plain
    # Without how a mesh of explicit axes would have them divided: shard_map wants to be told the same.
    types = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    inner = ctx.replace(module_context=module, avals_in=types)
    try:
        return mlir.lower_fun(kernel, multiple_results=False)(inner, *operands)
    except ValueError as error:
        if "check_vma" not in str(error):
            raise
        return mlir.lower_fun(plain, multiple_results=False)(ctx, *operands)


def _is_over_some_axes(context: Any) -> bool:
    """Inside of a `jax.shard_map` over some axes of a mesh."""
    manual = getattr(context, "manual_axes", ())
    return bool(manual) and set(manual) != set(context.mesh.axis_names)


def _divided(kernel: Steps, devices: int, operands: Sequence[Any], count: int) -> Steps | None:
    """The kernel on each device for its part of the first axis; None if that has no equal parts.

    Whatever is not divided so is, and the result gathered again where it is needed.
    """
    if any(x.shape[0] % devices for x in operands[:count]):
        return None
    mesh = AbstractMesh((devices,), ("devices",), axis_types=(AxisType.Auto,))
    divided, whole = PartitionSpec("devices"), PartitionSpec()
    specs = (divided,) * count + (whole,) * (len(operands) - count)
    return jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=divided, check_vma=False)


def _batched(
    operands: Any, axes: Any, *, kernel: Steps, plain: Steps, count: int, shape: tuple[int, ...], dtype: Any
) -> tuple[jax.Array, int]:
    if any(axis is not None for axis in axes[count:]):
        return jax.vmap(plain, axes)(*operands), 0
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    along = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands[:count], axes, strict=False)]
    merged = [x.reshape(-1, *x.shape[2:]) for x in along]
    result = jax.ShapeDtypeStruct((size * shape[0], *shape[1:]), dtype)
    out = kernel_on_tpu(kernel, plain, result, merged, operands[count:])
    return out.reshape(size, *shape), 0


def _differentiated(primals: Any, tangents: Any, *, plain: Steps, **_: Any) -> tuple[jax.Array, jax.Array]:
    tangents = [ad.instantiate_zeros(tangent) for tangent in tangents]
    return jax.jvp(plain, tuple(primals), tuple(tangents))


_operation.def_impl(_steps)
_operation.def_abstract_eval(_result)
mlir.register_lowering(_operation, _plain_in_program)
mlir.register_lowering(_operation, _kernel_in_program, platform="tpu")
batching.primitive_batchers[_operation] = _batched
ad.primitive_jvps[_operation] = _differentiated
