"""The devices of a process as one: weights lie on each, and each has its part of a batch.

Nothing goes from one device to another: a program for several is the program of one, on each.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam2_jax.checks import read_whole, shown

BATCH = "batch"
"""The axis of a mesh along which the first axis of arrays is divided."""

DIVIDED, WHOLE = PartitionSpec(BATCH), PartitionSpec()
SECOND_DIVIDED = PartitionSpec(None, BATCH)


def mesh_of(devices: Any) -> Mesh:
    """A mesh of this process's first so many devices, or of the devices given.

    Raises ValueError for more than there are, and for what are not different devices of this process.
    """
    there = jax.local_devices()
    if isinstance(devices, Iterable) and not isinstance(devices, (str, bytes)):
        chosen = list(devices)
        if not chosen or any(device not in there for device in chosen) or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"devices must be a number, or different ones of this process's: {_told(there)}; "
                f"got {shown(chosen)}"
            )
    else:
        count = read_whole("devices", devices, 1)
        if count > len(there):
            raise ValueError(
                f"devices must be at most {len(there)}, the number there is ({_told(there)}); got {count}"
            )
        chosen = there[:count]
    return Mesh(np.asarray(chosen), (BATCH,))


def _told(devices: list[Any]) -> str:
    """Devices in words, many of them shortened."""
    names = [str(device) for device in devices]
    return ", ".join(names if len(names) <= 4 else [*names[:2], "...", names[-1]])


def on_each(mesh: Mesh | None, function: Callable[..., Any], weights: Any, inputs: tuple[Any, ...]) -> Any:
    """Call function(weights, *inputs), on each device of a mesh, if there is one, for its part of the batch.

    To be traced. What is returned has the batch as its first axis, too. mesh and inputs: see `divided`.
    """
    if mesh is None:
        return function(weights, *inputs)
    specs = tuple(DIVIDED if is_along else WHOLE for is_along in along_batch(inputs))
    parts = jax.shard_map(function, mesh=mesh, in_specs=(WHOLE, *specs), out_specs=DIVIDED, check_vma=False)
    return parts(weights, *inputs)


def even_batch(size: int, devices: int) -> int:
    """A batch of so many at least of which each device has as many as any other."""
    return -(-size // devices) * devices


def along_batch(inputs: tuple[Any, ...]) -> list[bool]:
    """Which inputs have as their first axis that of the first input."""
    size = jax.tree.leaves(inputs[0])[0].shape[0]
    return [any(leaf.shape[:1] == (size,) for leaf in jax.tree.leaves(x)) for x in inputs]


def divides(mesh: Mesh | None, inputs: tuple[Any, ...]) -> bool:
    """Whether the first input's batch can be divided among several devices."""
    return mesh is not None and mesh.size > 1 and jax.tree.leaves(inputs[0])[0].shape[0] % mesh.size == 0


def divided(mesh: Mesh | None, inputs: tuple[Any, ...]) -> tuple[Mesh | None, tuple[Any, ...]]:
    """A mesh, None if the batch cannot be divided among its devices; and inputs where `on_each` takes them
    from: parts of a batch on their devices, and the rest on all.
    """
    if mesh is None or not divides(mesh, inputs):
        return None, inputs
    places = [NamedSharding(mesh, DIVIDED if is_along else WHOLE) for is_along in along_batch(inputs)]
    return mesh, tuple(jax.device_put(x, place) for x, place in zip(inputs, places, strict=True))


@partial(jax.jit, static_argnames="mesh")
def one_of_each(mesh: Mesh | None, arrays: Any, i: int) -> Any:
    """Take the i-th of a batch, or of each device's part of it: one program for all i."""

    def take(arrays: Any, i: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), arrays)

    if mesh is None or mesh.size == 1:
        return take(arrays, i)
    specs = DIVIDED, WHOLE
    return jax.shard_map(take, mesh=mesh, in_specs=specs, out_specs=DIVIDED, check_vma=False)(arrays, i)
