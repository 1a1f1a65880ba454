"""The networks and their parameters: built, initialised, described by name and shape."""

from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.checkpoint import names
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.model.hiera import Hiera
from sam2_jax.model.sam2 import Sam2, VisionEncoder
from sam2_jax.model.sam2_video import Sam2Video


def network(config: Any, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32) -> nn.Module:
    """The module that a configuration of a video, image or vision model, or of a backbone, describes."""
    kinds = {
        Sam2VideoConfig: Sam2Video,
        Sam2Config: Sam2,
        Sam2VisionConfig: VisionEncoder,
        Sam2HieraDetConfig: Hiera,
    }
    return kinds[type(config)](config, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(param_dtype))


def initial(module: Any, key: jax.Array) -> Any:
    """Random parameters of a network as a tree."""
    # No parameter depends on the image's size: the smallest one compiles fastest.
    backbone = module.config.part(Sam2HieraDetConfig)[0]
    inputs = [jnp.zeros((1, *backbone.stride, backbone.num_channels))]
    if isinstance(module, Sam2Video):
        return module.init(key, *inputs, method="every_step")["params"]
    if isinstance(module, Sam2):
        inputs += [jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1), jnp.int32)]
    return module.init(key, *inputs)["params"]


@lru_cache
def parameter_shapes(
    config: Sam2VideoConfig | Sam2Config | Sam2VisionConfig | Sam2HieraDetConfig,
) -> dict[str, tuple[int, ...]]:
    """Names (levels joined by dots) and shapes of a network's parameters, without computing any.

    config: of a video, image or vision model, or of a backbone.
    """
    tree = jax.eval_shape(lambda: initial(network(config), jax.random.key(0)))
    return names.shapes(names.flatten(tree))
