"""Rebuilds what torch.save pickled, without PyTorch and without running anything that the pickle asks for.

A pickle is a program for a small stack machine, and Python's own unpickler imports and calls whatever the
program names. The machine here knows only the operations that build numbers, strings and containers, and
takes every name for a mere word to be looked up in a short table: there is nothing in it that could import,
call or set an attribute.

Source: the pickle protocol (Python's pickletools); torch/_utils.py and torch/storage.py for what is called.
"""

import math
import pickletools
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
# What a storage's class and a dtype stand for, by the name that the pickle calls them.
_STORAGE_DTYPES = {f"torch.{name}Storage": np.dtype(_DTYPES[dtype]) for name, dtype in _STORAGES.items()}
_STORAGE_DTYPES["torch.storage.UntypedStorage"] = np.dtype(np.uint8)
_NAMED_DTYPES = {f"torch.{name}": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_CALLED = {
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
}
_ADMITTED = _CALLED | _STORAGE_DTYPES.keys() | _NAMED_DTYPES.keys()

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS_AND_STRINGS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}


@dataclass(frozen=True)
class _Name:
    """A global that a pickle names: a word, never the object of that name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The bytes of tensors: `count` elements of `dtype`, in the archive's entry `data/<key>`."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file; `shape`, and `strides` and `offset` in elements of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RefusedError(ValueError):
    """A pickle asks for what no rebuilding of tensors needs."""


def rebuild(pickle: bytes) -> Any:
    """Run a pickle's operations on a stack of plain values; return the object they build.

    Raises RefusedError for what only other objects than tensors, numbers and containers need, and an
    exception of another kind (ValueError, TypeError, LookupError, ...) for a malformed pickle.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(pickle):
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case name if name in _LITERALS:
                stack.append(_LITERALS[name])
            case name if name in _NUMBERS_AND_STRINGS:
                stack.append(argument)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(operation.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                _expect(stack[-1], list).append(item)
            case "APPENDS":
                items = since_mark()
                _expect(stack[-1], list).extend(items)
            case "EMPTY_SET":
                stack.append(set())
            case "ADDITEMS":
                items = since_mark()
                _expect(stack[-1], set).update(_key(item) for item in items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _expect(stack[-1], dict)[_key(key)] = value
            case "SETITEMS":
                items = since_mark()
                pairs = zip(items[::2], items[1::2], strict=True)
                _expect(stack[-1], dict).update((_key(key), value) for key, value in pairs)
            case "GLOBAL":
                stack.append(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_name(module, attribute))
            case "BINPERSID":
                stack.append(_storage(*_expect(stack.pop(), tuple)))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(_expect(function, _Name).name, _expect(arguments, tuple)))
            case "BUILD":
                # A module's state dict carries its versions in an attribute, which says nothing of tensors.
                state = stack.pop()
                if not isinstance(stack[-1], OrderedDict) or set(_expect(state, dict)) - {"_metadata"}:
                    raise RefusedError("its pickle sets attributes of an object (operation BUILD)")
            case name:
                raise RefusedError(
                    f"its pickle uses {name}, an operation that rebuilding tensors does not need"
                )
    raise ValueError("it has no end")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(
            f"a {kind.__name__.strip('_')} must stand where a {type(value).__name__.strip('_')} does"
        )
    return value


def _key(key: Any) -> Any:
    """A key of a dictionary or set. Containers are refused: hashing one nested deep enough ends Python."""
    if isinstance(key, (str, bytes, int, float, type(None))):
        return key
    raise ValueError(f"a key must be a string or number; got a {type(key).__name__}")


def _name(module: Any, name: Any) -> _Name:
    full = f"{_expect(module, str)}.{_expect(name, str)}"
    if full not in _ADMITTED:
        raise RefusedError(
            f"its pickle names {full[:200]!r}, which is not needed to rebuild tensors and is refused"
        )
    return _Name(full)


def _storage(kind: Any, storage_type: Any, key: Any, _location: Any, count: Any) -> Storage:
    name = _expect(storage_type, _Name).name
    if kind != "storage" or name not in _STORAGE_DTYPES:
        raise ValueError(f"a tensor must refer to a storage; got a reference to {name}")
    if not re.fullmatch(r"[0-9]{1,20}", _expect(key, str)):
        raise ValueError(f"a storage's key must be a number; got {key[:40]!r}")
    return Storage(key, _STORAGE_DTYPES[name], *_counts("the size of a storage", (count,)))


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """What calling one of the admitted names would give."""
    match name.removeprefix("torch._utils."), arguments:
        case "collections.OrderedDict", ():
            return OrderedDict()
        case "torch.Size", (sizes,):
            return _counts("a torch.Size", sizes)
        case "torch.device", (str(), *_):
            return arguments[0]
        case "_rebuild_parameter", (StoredTensor() as tensor, *_):
            return tensor
        case "_rebuild_tensor_v2", (Storage() as storage, offset, shape, strides, *_):
            return _tensor(storage, storage.dtype, offset, shape, strides)
        case "_rebuild_tensor_v3", (Storage() as storage, offset, shape, strides, _, _, dtype, *_):
            return _tensor(storage, _NAMED_DTYPES[_expect(dtype, _Name).name], offset, shape, strides)
    raise RefusedError(f"its pickle calls {name} in a way that torch.save does not")


def _tensor(storage: Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    """Describe a view of a storage, having checked that it stays within."""
    (start,) = _counts("a tensor's offset", (offset,))
    shape, strides = _counts("a tensor's shape", shape), _counts("a tensor's strides", strides)
    capacity = storage.count * storage.dtype.itemsize // dtype.itemsize
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError(
            f"a tensor must have at most 32 axes and a stride for each; got {shape} and {strides}"
        )
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    is_inside = start <= capacity if 0 in shape else last < capacity
    if not is_inside or math.prod(n or 1 for n in shape) > (2**48 if 0 in shape else capacity):
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} and offset {start} must lie within its storage's "
            f"{capacity} elements and have no more (expanded tensors: call .contiguous() before saving)"
        )
    return StoredTensor(storage, dtype, start, shape, strides)


def _counts(what: str, values: Any) -> tuple[int, ...]:
    for value in _expect(values, tuple):
        if type(value) is not int or not 0 <= value < 2**48:
            # Only numbers are shown: the text of a nested value can be endless.
            found = value if isinstance(value, int) else f"a {type(value).__name__}"
            raise ValueError(f"{what} must be of integers from 0 to 2**48; got {found}")
    return values
