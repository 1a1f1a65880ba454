"""Compiling without LLVM's optimisations and XLA's newer code generator: for tests of what code does.

The generator begins each of a program's hundreds of kernels with a compiler of its own, which costs more than
all the rest. Together three times as quick; JAX 0.12 knows no other generator.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import pytest
from jax._src import compiler

_NEWER_GENERATOR = "xla_cpu_use_fusion_emitters"


@contextmanager
def compiling_quickly(quickly: bool = True, newer_generator: bool = False) -> Iterator[None]:
    """Inside, compile so, or as users do. With the newer generator, two programs' equal parts are equal."""
    usual, newer = compiler.get_compile_options, newer_generator or not quickly

    def options(*args: Any, **kwargs: Any) -> Any:
        found = usual(*args, **kwargs)
        found.env_option_overrides = [*found.env_option_overrides, (_NEWER_GENERATOR, newer)]
        return found

    before = jax.config.read("jax_disable_most_optimizations")
    with pytest.MonkeyPatch.context() as patch:
        if _can_choose():
            patch.setattr(compiler, "get_compile_options", options)
        jax.config.update("jax_disable_most_optimizations", quickly)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


@cache
def _can_choose() -> bool:
    """Whether this JAX has both generators."""
    try:
        jax.jit(lambda: 0, compiler_options={_NEWER_GENERATOR: True})()
    except jax.errors.JaxRuntimeError:
        return False
    return True
