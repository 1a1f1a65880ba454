"""What all models have in common: a network with parameters, from a seed or a checkpoint, saved again."""

import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jax.sharding import Mesh

from sam2_jax import devices
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import write_checkpoint
from sam2_jax.checkpoint.hub import HUB_OPTIONS, WEIGHT_FILES, HubFolder
from sam2_jax.checkpoint.parameters import initial, network
from sam2_jax.checkpoint.parameters import parameter_shapes as parameter_shapes
from sam2_jax.checkpoint.reading import read_checkpoint
from sam2_jax.checks import check_options, read_whole, shown
from sam2_jax.compilation import give_back_after_compiling, use_compilation_cache
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.config.base import BaseConfig
from sam2_jax.config.released import released_size

Config = TypeVar("Config", Sam2VideoConfig, Sam2Config, Sam2VisionConfig, Sam2HieraDetConfig)

# Of transformers' from_pretrained: how it loads and where it computes, which JAX decides here.
_IGNORED = (
    "attn_implementation",
    "device_map",
    "low_cpu_mem_usage",
    "trust_remote_code",
    "use_safetensors",
    "weights_only",
)


@partial(jax.jit, static_argnames=("module", "method", "record", "options", "mesh"))
def _apply(
    module: nn.Module,
    params: Any,
    *inputs: Any,
    method: str,
    record: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
    mesh: Mesh | None = None,
) -> Any:
    def apply(params: Any, *inputs: Any) -> Any:
        return module.apply({"params": params}, *inputs, method=method, mutable=list(record), **dict(options))

    return devices.on_each(mesh, apply, params, inputs)


class PretrainedModel(Generic[Config]):
    """`config`, `params` and `module`, a pure Flax module, for direct use; loads, saves, compiles calls."""

    config_class: ClassVar[Any]
    # Methods of the module whose inputs and results all have the batch as their first axis.
    _of_batches: ClassVar[frozenset[str]] = frozenset()
    # The devices that share the work, if there are several.
    mesh: Mesh | None = None

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
        give_back_after_compiling()
        self.config: Config = self.config_class() if config is None else config
        self.module = network(self.config, dtype, param_dtype)
        # How from_pretrained was called, for what else lies in that folder.
        self._source: tuple[str | Path, dict[str, Any]] | None = None
        if params is None:
            seed = read_whole("seed", seed, -(2**63), 2**63 - 1)
            with computed_at_once():
                params = jax.jit(partial(initial, self.module))(jax.random.key(seed))
        self.params = params

    def __repr__(self) -> str:
        """The network's size, that of its images, the computing type and the number of parameters."""
        backbone = self.config.part(Sam2HieraDetConfig)[0]
        millions = sum(leaf.size for leaf in jax.tree.leaves(self.params)) / 1e6
        size = released_size(backbone)
        blocks = f"hiera of {sum(backbone.blocks_per_stage)} blocks, {backbone.hidden_size} wide"
        about = [f"hiera-{size}" if size else blocks]
        if self.config.contains(Sam2Config):
            about.append("{} x {}".format(*self.config.part(Sam2Config)[0].image_size))
        about += [self.dtype.name, f"{millions:.1f} M parameters"]
        return f"{type(self).__name__}({', '.join(about)})"

    @property
    def params(self) -> Any:
        """The parameters, a tree of arrays on the device. Others that fit may be put in their place.

        Raises ValueError for names and shapes that are not those of the configured network, for what is not
        floating point, and for what a transformation of JAX traces: that would outlive its trace.
        """
        return self._params

    @params.setter
    def params(self, params: Mapping[str, Any]) -> None:
        names.check_names(parameter_shapes(self.config), _shapes_of_floats(params), "params")
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params))
        if is_traced and hasattr(self, "_params"):
            raise ValueError(
                "params of a model must not be what JAX traces, or the model breaks afterwards: make "
                "one for the trace, with model.config and these params, or call model.module.apply"
            )
        with computed_at_once(params):  # on the device once, not at every call
            self._params = jax.tree.map(_on_device, params)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The computing type, float32 or bfloat16."""
        return jnp.dtype(self.module.dtype)

    @property
    def device(self) -> Any:
        """JAX's device that holds the parameters, the first of several."""
        return min(jax.tree.leaves(self.params)[0].devices(), key=lambda device: device.id)

    def eval(self) -> Self:
        """The model itself: nothing in it is random, so that training and prediction compute the same."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not needed here: raises ValueError, which says what to write instead."""
        raise ValueError(
            "leave .to(...) out: the model is on JAX's default device. To another one, "
            "model.params = jax.device_put(model.params, device); another type is had with "
            'from_pretrained(..., dtype="bfloat16")'
        )

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        config: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        layout: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a model from a hub id, a local folder, a single file of weights, or "embedded".

        Image (`sam2`) and video (`sam2_video`) checkpoints are read, whole or sharded, in transformers' or
        Flax layout, and what this class has saved itself. A file may be Meta's `.pt` (which is read without
        PyTorch, nothing in it executed), a trainer's, or `.safetensors`, under anyone's names, also wrapped
        by DDP or torch.compile; the released sizes are recognised. Tensors of parts that this class does not
        have, for an image model the memory of a video checkpoint say, are left unread.

        config: what the checkpoint holds, in place of its own: a configuration, or a folder or hub id of one.
        dtype: the computing type, float32 by default, or bfloat16; "auto" for bfloat16 where all of the
        checkpoint is; torch_dtype is the same. param_dtype: type of the parameters. layout: "flax" or
        "transformers", where a folder holds both.
        options: of the class, such as `padding` of Sam2Model; revision (commit, tag or branch), subfolder,
        token, cache_dir, local_files_only (never touch the network) and force_download say which files are
        meant. device_map, attn_implementation, low_cpu_mem_usage, use_safetensors, trust_remote_code and
        weights_only are taken for transformers' sake and change nothing: JAX places and computes.

        Raises ValueError for options that cannot be meant, before anything is read or fetched; if the model
        cannot be found or reached, a file is broken, or names and shapes are not those of the configuration.
        """
        model = _one_of("model", model, "pretrained_model_name_or_path", options)
        dtype = _one_of("dtype", dtype, "torch_dtype", options, jnp.float32)
        cls._check_loading(options, dtype, param_dtype, layout)
        source = {name: value for name, value in options.items() if name in HUB_OPTIONS}
        own = {k: v for k, v in options.items() if k not in (*HUB_OPTIONS, *_IGNORED)}
        folder = HubFolder(model, **source)
        found = read_checkpoint(
            folder,
            kind=cls.config_class,
            layout=layout,
            config=cls._given_config(config),
            dtype=jnp.dtype(_known_type(param_dtype)),
        )
        own["dtype"] = found.stored if isinstance(dtype, str) and dtype == "auto" else _known_type(dtype)
        own["param_dtype"] = _known_type(param_dtype)
        loaded = cls(found.config, names.unflatten(_moved_to_device(found.tensors)), **own)
        loaded._source = model, source
        return loaded

    @classmethod
    def loading_options(cls) -> list[str]:
        """Names of the arguments of `from_pretrained`, but for the model."""
        return sorted(
            {*cls._own_options(), *HUB_OPTIONS, *_IGNORED, "config", "dtype", "torch_dtype", "layout"}
        )

    @classmethod
    def check_loading(cls, **options: Any) -> None:
        """Raise ValueError for arguments of `from_pretrained`, but the model, that cannot be meant."""
        dtype = _one_of("dtype", options.pop("dtype", None), "torch_dtype", options, jnp.float32)
        usual = {"param_dtype": jnp.float32, "layout": None}
        cls._check_loading(options, dtype, **{name: options.pop(name, x) for name, x in usual.items()})

    @classmethod
    def _own_options(cls) -> set[str]:
        return set(inspect.signature(cls.__init__).parameters) - {"self", "params"}

    @classmethod
    def _check_loading(cls, options: Mapping[str, Any], dtype: Any, param_dtype: Any, layout: Any) -> None:
        of_class = cls._own_options()
        check_options(options, cls.loading_options(), f"{cls.__name__}.from_pretrained")
        if not (isinstance(dtype, str) and dtype == "auto"):
            _check_dtype("dtype", dtype)
        _check_dtype("param_dtype", param_dtype)
        if layout is not None and layout not in WEIGHT_FILES:
            raise ValueError(f"layout must be one of {sorted(WEIGHT_FILES)} or None; got {shown(layout)}")
        cls._check_options({k: v for k, v in options.items() if k in of_class})

    @classmethod
    def _check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise ValueError for values of this class's own options that cannot be meant."""

    @classmethod
    def _given_config(cls, config: Any) -> BaseConfig | None:
        if config is None or (isinstance(config, BaseConfig) and type(config).contains(cls.config_class)):
            return config
        if isinstance(config, (str, Path)):
            found: BaseConfig = cls.config_class.from_pretrained(config)
            return found
        raise ValueError(
            f"config must be a {cls.config_class.__name__}, or a folder or hub id of one; got {shown(config)}"
        )

    def save_pretrained(self, folder: str | Path, *, layout: str = "flax") -> None:
        """Write config.json and the weights to a folder, in layout "flax" or "transformers".

        What transformers' class of this name loads of the latter gives the same numbers. An interrupted save
        leaves older files whole. Raises ValueError if the folder cannot be written.
        """
        flat = {name: np.asarray(value) for name, value in names.flatten(self.params).items()}
        write_checkpoint(folder, flat, self.config, layout, self._texts_beside(Path(folder)))

    def _texts_beside(self, folder: Path) -> dict[str, str]:
        """Other files that a folder of this model needs and lacks, by name."""
        return {}

    def _run(self, method: str, *inputs: Any, record: tuple[str, ...] = (), **options: Any) -> Any:
        """Run a method of the module, compiled once for each shape of the inputs and value of the options.

        Returns its result and what modules sowed into the collections to record. Under a transformation of
        JAX it takes part in that, unless all it works on is known: then it is computed at once.
        """
        how = {"method": method, "record": record, "options": tuple(sorted(options.items()))}
        with computed_at_once(self.params, inputs):
            mesh, inputs = devices.divided(self.mesh if method in self._of_batches else None, inputs)
            return _apply(self.module, self.params, *inputs, mesh=mesh, **how)


def computed_at_once(*operands: Any) -> AbstractContextManager[Any]:
    """Inside, compute what has values, although a transformation of JAX may be tracing the program around it.

    Where anything of the operands is itself traced, that is left to the transformation. So whatever is made
    of known things, and kept, is never a tracer that outlives its trace.
    """
    if get_opaque_trace_state(convention="flax") == _OUTSIDE:
        return nullcontext()  # below, JAX would compile each constant of a network for itself
    is_known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operands))
    return jax.ensure_compile_time_eval() if is_known else nullcontext()


def _trace_state_outside() -> Any:
    """JAX's state outside of all transformations: a new thread's, whatever this may be imported in."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(get_opaque_trace_state, convention="flax").result()


_OUTSIDE = _trace_state_outside()


def _shapes_of_floats(params: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters by flat names. Raises ValueError for what is no tree of floating point arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        kind = getattr(leaf, "dtype", None)
        is_named = path and all(isinstance(getattr(key, "key", None), str) for key in path)
        if not is_named or kind is None or not jnp.issubdtype(kind, jnp.floating):
            what = ".".join(str(getattr(key, "key", key)) for key in path)
            raise ValueError(
                "params must be a tree of floating point arrays in dictionaries, as model.params is; got "
                f"{f'{what}, ' * bool(what)}{shown(type(leaf) if kind is None else kind)}"
            )
    return names.shapes(names.flatten(params))


def _moved_to_device(tensors: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Tensors on the device, each taken from the host's as soon as it is there: memory for them once."""
    with computed_at_once():
        return {name: _on_device(tensors.pop(name)) for name in list(tensors)}


def _on_device(array: Any) -> jax.Array:
    """A parameter as an array of JAX, of 64 bits as one of 32, also where JAX is told to take them."""
    if isinstance(array, jax.Array):
        return array.astype(jnp.float32) if array.dtype == jnp.float64 else array
    # Of a copy, whose memory JAX may use as it is. jnp.asarray would compile a program for each shape, which
    # takes seconds and memory that is not given back.
    return jax.device_put(np.array(array, np.float32 if array.dtype == np.float64 else None))


def _one_of(name: str, value: Any, other: str, options: dict[str, Any], default: Any = None) -> Any:
    """The value of an argument that may also come among the options under transformers' other name."""
    given = [v for v in (value, options.pop(other, None)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"{name} and {other} are one thing; give one of them")
    if not given and default is None:
        raise ValueError(f"{name} must be given: a hub id, a folder or a file of weights")
    return given[0] if given else default


def _known_type(dtype: Any) -> Any:
    """A type as JAX knows it, also if it is torch's."""
    return str(dtype).removeprefix("torch.") if str(dtype).startswith("torch.") else dtype


def _check_dtype(name: str, dtype: Any) -> None:
    try:
        is_supported = jnp.dtype(_known_type(dtype)) in (jnp.float32, jnp.bfloat16)
    except TypeError:
        is_supported = False
    if not is_supported:
        raise ValueError(
            f"{name} must be float32 or bfloat16; got {shown(dtype)}. bfloat16 has the size of float16 and "
            "the range of float32"
        )
