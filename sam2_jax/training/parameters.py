"""Which parameters are trained: a split by name, and low-rank updates of matrices that stay frozen.

Parameters are flat here, names joined by dots, as `sam2_jax.checkpoint.names` flattens a tree.
Source for the latter: Hu et al. 2021 (arXiv:2106.09685), LoRA.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam2_jax.checkpoint import names

Flat = dict[str, jax.Array]

# Where in a matrix's name the two factors of its update are kept.
_DOWN, _UP = ".lora_down", ".lora_up"


class Split(NamedTuple):
    """Flat parameters: those that are trained, low-rank factors among them, and those that stay."""

    trained: Flat
    frozen: Flat


def split_parameters(
    params: Any, trained: Iterable[str], lora: Iterable[str] = (), rank: int = 4, *, seed: int = 0
) -> Split:
    """Split a parameter tree by patterns of names, `mask_decoder.*` say, as in `fnmatch`.

    trained: patterns of the parameters to train. lora: patterns of matrices that get a low-rank update of
    this rank instead; at first it is zero. The Fourier matrix of positions is never trained: it is no
    parameter in SAM 2. Raises ValueError for a pattern that fits nothing or a matrix matched by both.
    """
    flat = names.flatten(params)
    chosen = _matching(flat, trained, "trained") - {names.FOURIER}
    matrices = _matching(flat, lora, "lora") - {names.FOURIER}
    if both := sorted(chosen & matrices):
        raise ValueError(f"trained and lora must not name the same parameters; both name {both[0]}")
    if not chosen and not matrices:
        raise ValueError("trained and lora name no parameters: give at least one pattern")
    if rank < 1:
        raise ValueError(f"lora_rank must be at least 1; got {rank}")
    split = Split({name: flat[name] for name in sorted(chosen)}, {})
    split.frozen.update({name: value for name, value in flat.items() if name not in chosen})
    for number, name in enumerate(sorted(matrices)):
        shape = flat[name].shape
        if len(shape) != 2:
            raise ValueError(f"lora must name matrices; {name} has shape {shape}")
        key = jax.random.fold_in(jax.random.key(seed), number)
        split.trained[name + _DOWN] = jax.random.normal(key, (shape[0], rank)) * shape[0] ** -0.5
        split.trained[name + _UP] = jnp.zeros((rank, shape[1]))
    return split


def merge_parameters(trained: Mapping[str, jax.Array], frozen: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The network's parameter tree, low-rank updates added to their matrices."""
    flat = dict(frozen)
    for name, value in trained.items():
        if name.endswith(_DOWN):
            matrix = name.removesuffix(_DOWN)
            update = value @ trained[matrix + _UP]
            flat[matrix] = frozen[matrix] + update.astype(frozen[matrix].dtype)
        elif not name.endswith(_UP):
            flat[name] = value
    return names.unflatten(flat)


def _matching(flat: Mapping[str, Any], patterns: Iterable[str], parameter: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in flat if fnmatchcase(name, pattern)}
        if not fitting:
            parts = ", ".join(sorted({".".join(name.split(".")[:2]) for name in flat}))
            raise ValueError(f"{parameter} pattern {pattern!r} fits no parameter; there are {parts}")
        found |= fitting
    return found
