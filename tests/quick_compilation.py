"""Compiling without LLVM's optimisations: half of the time, where it does not matter how fast code is."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def compiling_quickly(quickly: bool = True) -> Iterator[None]:
    """Inside, compile so, or as users do."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quickly)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
