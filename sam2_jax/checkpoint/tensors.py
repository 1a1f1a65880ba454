"""Tensors in files: known by name, shape and type before any of their numbers are read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from sam2_jax.checkpoint.layouts import is_of_sam2
from sam2_jax.checkpoint.torch_file import TorchFile
from sam2_jax.checkpoint.torch_pickle import StoredTensor
from sam2_jax.checks import cut, shown, some_lines

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# As safetensors calls them. No SAM 2 checkpoint has numbers of another type.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Under which names training code keeps a model's tensors, the ones most likely meant first.
_STATE_DICTS = ("model", "state_dict", "model_state_dict", "module", "network", "net", "ema")


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor, its shape and the name of its type, and how to fetch its numbers."""

    shape: tuple[int, ...]
    dtype: str
    fetch: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """The header of an array that is at hand."""
        return cls(array.shape, array.dtype.name, lambda: array)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def transpose(self, axes: Sequence[int]) -> "Header":
        """The same tensor with its axes in another order."""
        return Header(
            tuple(self.shape[axis] for axis in axes), self.dtype, lambda: self.fetch().transpose(axes)
        )

    @classmethod
    def rows(cls, parts: Sequence["Header"]) -> "Header":
        """Matrices of one width as the rows of one."""
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return cls(shape, parts[0].dtype, lambda: np.concatenate([part.fetch() for part in parts]))


Headers = dict[str, Header]


@contextmanager
def open_tensors(paths: Sequence[Path]) -> Iterator[Headers]:
    """The tensors of safetensors or `.pt` files, as these name them; to be fetched while the files are open.

    Raises ValueError, naming the file, if one is truncated, corrupt or of another format, asks for anything
    but tensors, or repeats a tensor of another one.
    """
    with ExitStack() as stack:
        found: Headers = {}
        for path in paths:
            opened = _open_safetensors if _is_safetensors(path) else _open_torch
            headers = stack.enter_context(opened(path))
            if twice := sorted(found.keys() & headers.keys()):
                raise ValueError(f"{path} repeats tensors of another shard: {', '.join(map(cut, twice[:3]))}")
            found |= headers
        yield found


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Headers]:
    with ExitStack() as stack:
        with _naming(path):
            file = stack.enter_context(safe_open(path, framework="np"))
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        yield {
            name: Header(
                tuple(part.get_shape()),
                _FLOATS.get(part.get_dtype(), part.get_dtype()),
                partial(_fetch, path, file, name),
            )
            for name, part in slices.items()
        }


def _fetch(path: Path, file: Any, name: str) -> np.ndarray:
    with _naming(path):
        tensor: np.ndarray = file.get_tensor(name)
    return tensor


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors: it is truncated, corrupt or another format "
            f"({shown(str(error))}). Download or convert it again"
        ) from error


@contextmanager
def _open_torch(path: Path) -> Iterator[Headers]:
    with TorchFile(path) as file:
        tensors = find_state_dict(file.contents, path)
        yield {
            name: Header(tensor.shape, tensor.dtype.name, partial(file.read, tensor))
            for name, tensor in tensors.items()
        }


def find_state_dict(contents: Any, path: Path) -> dict[str, StoredTensor]:
    """The model's tensors in what a `.pt` file holds: itself a state dict, or one that a trainer keeps there.

    Whatever lies beside it, an optimiser's state say, is passed over unread. Raises ValueError without any.
    """
    candidates = list(_state_dicts(contents))
    if candidates:
        return next((tensors for tensors in candidates if is_of_sam2(tensors)), candidates[0])
    keys = ", ".join(map(shown, list(contents)[:8])) if isinstance(contents, dict) else ""
    got = f"the keys {keys or '(none)'}" if isinstance(contents, dict) else f"a {type(contents).__name__}"
    raise ValueError(
        f"{path} must hold a model's tensors by name, as its entries or under a key such as 'model' or "
        f"'state_dict'; got {got}. Take the checkpoint of the model's weights"
    )


def _state_dicts(contents: Any, depth: int = 2) -> Iterator[dict[str, StoredTensor]]:
    if not isinstance(contents, dict):
        return
    tensors = {
        name: value
        for name, value in contents.items()
        if isinstance(name, str) and isinstance(value, StoredTensor)
    }
    if tensors:
        yield tensors
    usual = [key for key in _STATE_DICTS if key in contents]
    for key in [*usual, *(key for key in contents if key not in usual)] if depth else []:
        yield from _state_dicts(contents[key], depth - 1)


def check_types(headers: Mapping[str, Header], source: str) -> None:
    """Raise ValueError for a tensor of a type that no SAM 2 checkpoint has."""
    for name, header in headers.items():
        if header.dtype not in _FLOATS.values():
            known = ", ".join(_FLOATS.values())
            raise ValueError(
                f"{source}: tensor {cut(name)} is {header.dtype}; expected one of {known}. "
                "Quantised checkpoints are not supported: take the float32 or bfloat16 one"
            )


def read_numbers(
    headers: Mapping[str, Header], dtypes: Mapping[str, np.dtype], source: str
) -> dict[str, np.ndarray]:
    """Fetch tensors, each contiguous and in its own type.

    Raises ValueError, naming the tensors, if some hold NaN or infinity, also those too large for their type.
    """
    arrays, broken = {}, []
    for name, header in headers.items():
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(header.fetch(), dtypes[name])
        if not np.isfinite(array).all():  # a tenth of a second for the 217 million of hiera-large
            broken.append(f"  {cut(name)}")
        arrays[name] = array
    if broken:
        raise ValueError(
            f"{source}: {len(broken)} of {len(headers)} tensors hold NaN or infinity, or numbers too large "
            f"for their type. Take an earlier checkpoint of that training\n{some_lines(broken)}"
        )
    return arrays
