"""Arrays on the devices of all processes that train together, and back."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """What all processes have alike, as arrays over all their devices: each brings what lies on its own."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(x: Any) -> jax.Array:
        array = np.asarray(x)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return jax.tree.map(place, tree)


def own_rows(sharding: NamedSharding, size: int) -> list[int]:
    """Which of a batch's rows lie on this process's devices."""
    parts = sharding.addressable_devices_indices_map((size,)).values()
    return sorted({row for part in parts if part is not None for row in range(size)[part[0]]})


def brought(tree: Any, sharding: NamedSharding, size: int) -> Any:
    """A batch of `size` rows as arrays over all devices: each process brings its own rows."""

    def bring(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), (size, *x.shape[1:]))

    return jax.tree.map(bring, tree)


def at_hand(tree: Any) -> Any:
    """This process's own copy of arrays that lie on all devices."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)
