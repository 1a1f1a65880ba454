"""One network with a program of its own for each platform: which one a program is for is JAX's to know.

It is settled when a program is lowered, long after the Python that traces it has run: one process lowers for
its own devices, for others ahead of time, for several in one export. So where a CPU wants the work cut as an
accelerator does not, both ways are traced, and lowering keeps the one that is needed
(`jax.lax.platform_dependent`); no condition is left in what is compiled. That happens once around a whole
method of the network, inside of which the platform is known. Most small networks come out the same for all
platforms; those are traced once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from flax.core.scope import is_filter_empty

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])

_CPU, _TPU, _GPU = "cpu", "tpu", "gpu"
# Tracing in the hope that no answer depends on the platform, or on which accelerator it is.
_UNDECIDED, _ACCELERATOR = "all", "accelerator"

# None outside of the methods that `for_each_platform` marks.
_target: ContextVar[str | None] = ContextVar("target", default=None)


class _PlatformMattersError(Exception):
    """A program that was traced for all platforms at once cannot be."""


class _AcceleratorMattersError(Exception):
    """A program that was traced for all accelerators at once cannot be."""


@contextmanager
def tracing_for(target: str) -> Iterator[None]:
    """Inside, trace for "cpu", "tpu" or "gpu" or, as long as that does not matter, "accelerator" or "all".

    Any of them may be asked for on any machine.
    """
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def on_cpu() -> bool:
    """Whether the program that is traced is for a CPU, to be asked only where the answer changes it.

    Outside of the methods that `for_each_platform` marks the answer is False, which is right everywhere.
    """
    target = _target.get()
    if target == _UNDECIDED:
        raise _PlatformMattersError
    return target == _CPU


def is_for_tpu() -> bool:
    """Whether the program that is traced is for a TPU, asked as `on_cpu` is.

    Then all that is around is traced once more. For a piece that depends on nothing around, `on_tpu` is
    cheaper.
    """
    target = _target.get()
    if target == _UNDECIDED:
        raise _PlatformMattersError
    if target == _ACCELERATOR:
        raise _AcceleratorMattersError
    return target == _TPU


def is_known_for_gpu() -> bool:
    """Whether the program that is traced is known to be for a GPU: False where it may be for others too.

    To be asked where False is right on a GPU as well. Nothing is traced once more.
    """
    return _target.get() == _GPU


def by_platform(cpu: Callable[..., T], accelerator: Callable[..., T], *operands: jax.Array) -> T:
    """Call one of two functions of arrays, which differ in how they compute the same."""
    if _target.get() is not None:
        return (cpu if on_cpu() else accelerator)(*operands)
    branches = _traced_for(_CPU, cpu), _traced_for(_ACCELERATOR, accelerator)
    return jax.lax.platform_dependent(*operands, cpu=branches[0], default=branches[1])


def on_tpu(elsewhere: Callable[..., T], tpu: Callable[..., T], *operands: Any) -> T:
    """Call one of two functions of trees of arrays, the second where the program is for a TPU.

    It is chosen on the spot, so the platform need not be known: for pieces that nothing around depends on.
    """
    target = _target.get()
    if target in (_CPU, _TPU, _GPU):
        return (tpu if target == _TPU else elsewhere)(*operands)
    functions = elsewhere, tpu
    if target is None:
        functions = _traced_for(_CPU, elsewhere), _traced_for(_TPU, tpu)
    return jax.lax.platform_dependent(*operands, tpu=functions[1], default=functions[0])


def for_each_platform(method: Method) -> Method:
    """Mark a method of a Flax module inside of which the platform is to be known.

    Where parameters are made or results recorded, nothing is cut to suit a platform but what `by_platform`
    decides piece by piece.
    """

    @wraps(method)
    def called(self: nn.Module, *args: Any, **options: Any) -> Any:
        changes = self.scope is None or not is_filter_empty(self.scope.mutable)
        if changes or _target.get() is not None:
            return method(self, *args, **options)
        module, variables = self.unbind()
        leaves, structure = jax.tree.flatten((args, options))
        is_array = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]
        arrays = [leaf for leaf, is_one in zip(leaves, is_array, strict=True) if is_one]

        def apply(variables: Any, arrays: list[Any]) -> Any:
            given = iter(arrays)
            filled = [next(given) if is_one else leaf for leaf, is_one in zip(leaves, is_array, strict=True)]
            args, options = jax.tree.unflatten(structure, filled)
            return module.apply(variables, *args, method=method, **options)

        try:
            return _traced_for(_UNDECIDED, apply)(variables, arrays)
        except _PlatformMattersError:
            branches = _traced_for(_CPU, apply), _traced_for(_ACCELERATOR, apply)
            return jax.lax.platform_dependent(variables, arrays, cpu=branches[0], default=branches[1])

    return called  # type: ignore[return-value]


def _traced_for(target: str, function: Callable[..., T]) -> Callable[..., T]:
    def traced(*operands: Any) -> T:
        try:
            with tracing_for(target):
                return function(*operands)
        except _AcceleratorMattersError:
            branches = _traced_for(_TPU, function), _traced_for(_GPU, function)
            return jax.lax.platform_dependent(*operands, tpu=branches[0], default=branches[1])

    return traced
