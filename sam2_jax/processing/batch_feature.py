"""`BatchFeature`: what the processors return, a dictionary whose entries are attributes too."""

import sys
from collections.abc import Iterable
from threading import Lock
from typing import Any, NoReturn, Self


class BatchFeature(dict[str, Any]):
    """Arrays by name: `inputs["pixel_values"]`, `inputs.pixel_values`, `model(**inputs)`.

    The name is transformers'. A pytree for JAX, as dictionaries are: it goes through `jax.jit`,
    `jax.tree.map` and `jax.device_put`, if JAX was imported when it was made. It pickles and copies as a
    dictionary does.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        _register()
        return super().__new__(cls, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name}; there are {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"there is no {name}; there are {', '.join(self)}")
        del self[name]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]

    @property
    def data(self) -> Self:
        """The dictionary itself, as transformers calls it."""
        return self

    def copy(self) -> Self:
        """A new one with the same arrays."""
        return type(self)(self)

    def to(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not needed here: raises ValueError, which says what to write instead."""
        raise ValueError(
            "leave .to(...) out: these are numpy arrays, and the model brings them to its device and dtype. "
            "Elsewhere, jax.device_put(inputs, device) does it"
        )


_lock = Lock()
_is_registered = False


def _register() -> None:
    """Tell JAX once what a BatchFeature holds, if the program uses JAX; processing itself does without."""
    global _is_registered
    if _is_registered or "jax" not in sys.modules:
        return
    from jax.tree_util import DictKey, register_pytree_with_keys

    def flatten(inputs: BatchFeature) -> tuple[list[Any], tuple[str, ...]]:
        names = tuple(sorted(inputs))
        return [inputs[name] for name in names], names

    def flatten_with_keys(inputs: BatchFeature) -> tuple[list[Any], tuple[str, ...]]:
        values, names = flatten(inputs)
        return [(DictKey(name), value) for name, value in zip(names, values, strict=True)], names

    def unflatten(names: tuple[str, ...], values: Iterable[Any]) -> BatchFeature:
        return BatchFeature(zip(names, values, strict=True))

    with _lock:
        if not _is_registered:
            register_pytree_with_keys(BatchFeature, flatten_with_keys, unflatten, flatten)
            _is_registered = True
