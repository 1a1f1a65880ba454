"""Runs the programs of a folder that `sam2-jax export` wrote, beside this file. Needs jax and numpy alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def load(folder: str | Path, name: str) -> Callable[..., dict[str, jax.Array]]:
    """The program of a name, a function: arrays by name in, arrays by name out, as manifest.json has them.

    The function raises ValueError for names of another program, whose arrays would change nothing.
    """
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    about, raw = manifest["programs"][name], np.memmap(folder / manifest["weights"], np.uint8, "r")
    begin = 8 + int.from_bytes(raw[:8].tobytes(), "little")  # safetensors: a length, a head in JSON, numbers
    places = json.loads(raw[8:begin].tobytes())

    def weight(key: str) -> jax.Array:
        start, end = (begin + offset for offset in places[key]["data_offsets"])
        kind = manifest["tensors"][key]
        return jnp.asarray(raw[start:end].view(jnp.dtype(kind["dtype"])).reshape(kind["shape"]))

    scope = jax.export.SymbolicScope()

    def described(kind: dict[str, Any]) -> jax.ShapeDtypeStruct:
        shape = jax.export.symbolic_shape(",".join(map(str, kind["shape"])), scope=scope)
        return jax.ShapeDtypeStruct(shape, kind["dtype"])

    weights = [weight(key) for key in about["weights"]]
    inputs, outputs = ([described(kind) for kind in about[side]] for side in ("inputs", "outputs"))
    # A program of the same signature, made by the JAX that is here; then the folder's code takes its place.
    blank = jax.jit(lambda *_: [jnp.zeros(x.shape, x.dtype) for x in outputs], keep_unused=True)
    exported = replace(
        jax.export.export(blank, platforms=manifest["platforms"])(*weights, *inputs),
        mlir_module_serialized=(folder / about["file"]).read_bytes(),
        calling_convention_version=about["calling_convention_version"],
    )
    run, given = jax.jit(exported.call), [kind["name"] for kind in about["inputs"]]

    def call(**arrays: Any) -> dict[str, jax.Array]:
        if wrong := {*given} - arrays.keys() or arrays.keys() - {*given, *about["unused"]}:
            raise ValueError(
                f"{name} takes {', '.join(given)}; got {', '.join(arrays)}, {min(wrong)} is wrong"
            )
        found = run(*weights, *(arrays[key] for key in given))
        return {kind["name"]: array for kind, array in zip(about["outputs"], found, strict=True)}

    return call
