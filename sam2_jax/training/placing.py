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


def at_hand(tree: Any) -> Any:
    """This process's own copy of arrays that lie on all devices."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)
