"""PyTorch files written by hand, so that tests need no PyTorch, and checkpoints as Meta keeps them."""

import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.meta_names import FRAGMENTS

STORAGES = {
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "float64": "Double",
}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: tuple[int, ...]) -> bytes:
    return tuple_of(*map(integer, values))


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def stored_tensor(key: str, kind: str, count: int, offset: int, shape: bytes, strides: bytes) -> bytes:
    storage = (
        tuple_of(text("storage"), named("torch", f"{kind}Storage"), text(key), text("cpu"), integer(count))
        + b"Q"
    )
    hooks = named("collections", "OrderedDict") + b")R"
    arguments = tuple_of(storage, integer(offset), shape, strides, b"\x89", hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 6) -> bytes:
    """Pickle of a float32 tensor that is this view of storage "0"."""
    return stored_tensor("0", "Float", count, offset, integers(shape), integers(strides))


def write_archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    compression: int = 0,
    **extra: bytes,
) -> Path:
    entries = {"data.pkl": b"\x80\x02" + pickled + b".", "byteorder": b"little", **extra}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_meta(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    keys: Sequence[str] = ("model",),
    whole: bool = True,
    **beside: bytes,
) -> Path:
    """Write {"model": tensors, ...} as torch.save does; keys is the way to them, whole with their numbers."""
    pickled, storages = {}, {}
    for key, (name, tensor) in enumerate(tensors.items()):
        strides = [int(np.prod(tensor.shape[axis + 1 :])) for axis in range(tensor.ndim)]
        kind = STORAGES[tensor.dtype.name]
        pickled[name] = stored_tensor(
            str(key), kind, tensor.size, 0, integers(tensor.shape), integers(tuple(strides))
        )
        if whole:
            storages[str(key)] = tensor.tobytes()
    contents = dictionary(pickled)
    for key_of in reversed(keys):
        contents = dictionary({key_of: contents, **beside})
    return write_archive(path, contents, storages)


FOURIER = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def meta_name(name: str) -> str:
    """Meta's name of a transformers tensor, by the converter's table read backwards."""
    backwards = {value: key for key, value in FRAGMENTS.items()}
    longest_first = sorted(backwards, key=len, reverse=True)
    fragment = rf"(?<![^.])({'|'.join(map(re.escape, longest_first))})(?![^.])"
    return re.sub(fragment, lambda match: backwards[match[0]], name)


def as_meta(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors as Meta keeps them."""
    meta = {}
    for name, tensor in tensors.items():
        if name == names.FOURIER:
            meta[FOURIER] = tensor
        elif name == "prompt_encoder.point_embed.weight":
            rows = {f"sam_prompt_encoder.point_embeddings.{k}.weight": tensor[k : k + 1] for k in range(4)}
            meta |= rows
        elif name != names.FOURIER_COPY:
            meta[meta_name(name)] = tensor
    return meta
