"""What all models have in common: a network with parameters, from a seed or a checkpoint, saved again."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import read_weights, write_checkpoint
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.compilation import use_compilation_cache
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig, read_config_of
from sam2_jax.model.hiera import Hiera
from sam2_jax.model.sam2 import Sam2, VisionEncoder

Config = TypeVar("Config", Sam2Config, Sam2VisionConfig, Sam2HieraDetConfig)

# Every checkpoint contains what stands behind it in this list.
_CHECKPOINTS = (Sam2VideoConfig, Sam2Config, Sam2VisionConfig, Sam2HieraDetConfig)


def _part_of(config: Any, kind: type[Config]) -> tuple[Config, str]:
    """Find one network's configuration within another's, and where its tensors' names begin."""
    prefix = ""
    if isinstance(config, Sam2VideoConfig):
        config = config.image_config
    if isinstance(config, Sam2Config) and kind is not Sam2Config:
        config, prefix = config.vision_config, "vision_encoder."
    if isinstance(config, Sam2VisionConfig) and kind is not Sam2VisionConfig:
        config, prefix = config.backbone_config, prefix + "backbone."
    return config, prefix


def _network(config: Any, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32) -> nn.Module:
    kinds = {Sam2Config: Sam2, Sam2VisionConfig: VisionEncoder, Sam2HieraDetConfig: Hiera}
    return kinds[type(config)](config, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(param_dtype))


def _init(module: Any, key: jax.Array) -> Any:
    # No parameter depends on the image's size: the smallest one compiles fastest.
    backbone, _ = _part_of(module.config, Sam2HieraDetConfig)
    inputs = [jnp.zeros((1, *backbone.stride, backbone.num_channels))]
    if isinstance(module, Sam2):
        inputs += [jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1), jnp.int32)]
    return module.init(key, *inputs)["params"]


@lru_cache
def parameter_shapes(
    config: Sam2Config | Sam2VisionConfig | Sam2HieraDetConfig,
) -> dict[str, tuple[int, ...]]:
    """Names (levels joined by dots) and shapes of a network's parameters, without computing any.

    config: a Sam2Config, Sam2VisionConfig or Sam2HieraDetConfig.
    """
    tree = jax.eval_shape(lambda: _init(_network(config), jax.random.key(0)))
    return names.shapes(names.flatten(tree))


@partial(jax.jit, static_argnames=("module", "method", "record", "options"))
def _apply(
    module: nn.Module,
    params: Any,
    *inputs: Any,
    method: str,
    record: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
) -> Any:
    return module.apply({"params": params}, *inputs, method=method, mutable=list(record), **dict(options))


class PretrainedModel(Generic[Config]):
    """`config`, `params` and `module`, a pure Flax module, for direct use; loads, saves, compiles calls."""

    config_class: ClassVar[type]

    def __init__(
        self,
        config: Config | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        seed: int = 0,
    ) -> None:
        """Build from a configuration and a parameter tree; random parameters from `seed` if params is None.

        dtype is the computing type, float32 or bfloat16; param_dtype that of random or loaded parameters.
        Raises ValueError for another type or configuration, and for parameters that do not fit exactly.
        """
        if config is not None and type(config) is not self.config_class:
            raise ValueError(
                f"config must be a {self.config_class.__name__} or None; got {type(config).__name__}. For a "
                f"hub id or folder: {type(self).__name__}.from_pretrained"
            )
        for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
            _check_dtype(name, value)
        use_compilation_cache()
        self.config: Config = self.config_class() if config is None else config
        self.module = _network(self.config, dtype, param_dtype)
        # How from_pretrained was called, for what else lies in that folder.
        self._source: tuple[str | Path, dict[str, Any]] | None = None
        if params is None:
            self.params = jax.jit(partial(_init, self.module))(jax.random.key(seed))
        else:
            names.check_names(parameter_shapes(self.config), names.shapes(names.flatten(params)), "params")
            self.params = jax.tree.map(jnp.asarray, params)  # on the device once, not at every call

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        layout: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a model from a hub id or a local folder.

        Image (`sam2`) and video (`sam2_video`) checkpoints are read, whole or sharded, in transformers' or
        Flax layout, and what this class has saved itself; tensors of other parts, the memory of a video
        checkpoint say, are set aside. revision pins a commit, tag or branch. local_files_only never touches
        the network. options are those of the class, such as `padding` of Sam2Model. Raises ValueError if the
        model cannot be found or reached, a file is broken, or names and shapes do not fit the configuration
        exactly.
        """
        for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
            _check_dtype(name, value)  # before anything is downloaded
        source: dict[str, Any] = {
            "revision": revision,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        folder = HubFolder(model, **source)
        kinds = _CHECKPOINTS[: _CHECKPOINTS.index(cls.config_class) + 1]
        whole: Any = read_config_of(folder.get("config.json"), *kinds)
        config: Any
        config, prefix = _part_of(whole, cls.config_class)
        layout, paths = folder.weights(layout)
        flat, _ = read_weights(layout, paths, jnp.dtype(param_dtype), prefix)
        expected, found = parameter_shapes(config), names.shapes(flat)
        if layout == "transformers":  # so that an error speaks of the names and shapes in the file
            expected, found = names.torch_shapes(expected), names.torch_shapes(found)
        if prefix:
            expected, found = ({prefix + name: x[name] for name in x} for x in (expected, found))
        names.check_names(expected, found, f"checkpoint {model}")
        loaded = cls(config, names.unflatten(flat), dtype=dtype, param_dtype=param_dtype, **options)
        loaded._source = model, source
        return loaded

    def save_pretrained(self, folder: str | Path, *, layout: str = "flax") -> None:
        """Write config.json and the weights to a folder, in layout "flax" or "transformers".

        What transformers' class of this name loads of the latter gives the same numbers. An interrupted save
        leaves older files whole. Raises ValueError if the folder cannot be written.
        """
        flat = {name: np.asarray(value) for name, value in names.flatten(self.params).items()}
        write_checkpoint(folder, flat, self.config, layout)

    def _run(self, method: str, *inputs: Any, record: tuple[str, ...] = (), **options: Any) -> Any:
        """Run a method of the module, compiled once for each shape of the inputs and value of the options.

        Returns its result and what modules sowed into the collections to record.
        """
        return _apply(self.module, self.params, *inputs, **_fixed(method, record, options))

    def _compile(self, method: str, *inputs: Any, **options: Any) -> None:
        """Compile what `_run` would for inputs like these, arrays or their shapes, without running it."""
        _apply.lower(self.module, self.params, *inputs, **_fixed(method, (), options)).compile()


def _fixed(method: str, record: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a program of `_apply` is compiled for, beside shapes."""
    return {"method": method, "record": record, "options": tuple(sorted(options.items()))}


def _check_dtype(name: str, dtype: Any) -> None:
    try:
        is_supported = jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)
    except TypeError:
        is_supported = False
    if not is_supported:
        raise ValueError(f"{name} must be float32 or bfloat16; got {dtype!r}")
