"""A model as a folder of programs that runs with nothing but JAX and NumPy: see `export_model`."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax import export
from safetensors.numpy import save

from sam2_jax.atomic import aside
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.checks import did_you_mean, shown
from sam2_jax.image.model import Sam2Model
from sam2_jax.json_files import read_json_object, to_json
from sam2_jax.model.sam2 import Sam2
from sam2_jax.scale.programs import ExportedProgram, programs_of
from sam2_jax.video.model import Sam2VideoModel

MANIFEST_FILE = "manifest.json"
LOADER_FILE = "load.py"
WEIGHTS_FILE = "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = 1
_ENDING = ".stablehlo"


def export_model(
    model: Sam2Model | Sam2VideoModel,
    folder: Path,
    *,
    platforms: Sequence[str] = PLATFORMS,
    only: Sequence[str] = (),
    model_name: str = "",
) -> Iterator[str]:
    """Write a model's programs, its weights and a manifest; yields each program's name when it begins.

    NAME.stablehlo is a program for all platforms, of JAX's `export` (a StableHLO portable artifact, which JAX
    reads for at least six months). Weights are its first arguments and lie in WEIGHTS_FILE; MANIFEST_FILE
    says which, and names, types and shapes of inputs and outputs. Numbers in shapes that are words, "batch"
    say, may be any. LOADER_FILE is a copy of `loader`, which runs them. only: names of programs; all by
    default: see `programs_of`. The folder appears whole, in place of an export that was there before. Raises
    ValueError for unknown platforms and programs, or if the folder cannot be written or holds something else.
    """
    programs = programs_of(cast(Sam2, model.module))
    check_names("platforms", platforms, PLATFORMS)
    check_names("programs", only, programs)
    if not platforms:
        raise ValueError(f"platforms must name at least one of {', '.join(PLATFORMS)}")
    check_target(folder)
    platforms = tuple(dict.fromkeys(platforms))
    flat = {name: np.asarray(x) for name, x in sorted(names.flatten(model.params).items())}
    with aside(folder, is_folder=True) as new:
        programs_written: dict[str, Any] = {}
        for name, program in programs.items():
            if not only or name in only:
                yield name
                code, programs_written[name] = _export(program, flat, platforms)
                programs_written[name]["file"] = name + _ENDING
                (new / (name + _ENDING)).write_bytes(code)
        used = {name for about in programs_written.values() for name in about["weights"]}
        kept = {name: np.ascontiguousarray(x) for name, x in flat.items() if name in used}
        (new / WEIGHTS_FILE).write_bytes(save(kept))
        shutil.copyfile(Path(__file__).with_name("loader.py"), new / LOADER_FILE)
        about = about_model(model, model_name) | {
            "platforms": list(platforms),
            "weights": WEIGHTS_FILE,
            "tensors": {name: _shape(x) for name, x in kept.items()},
        }
        (new / MANIFEST_FILE).write_text(to_json(about | {"programs": programs_written}), encoding="utf-8")


def check_target(folder: Path) -> None:
    """Raise ValueError for a folder with anything but an export in it, which would be lost."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := there and there - _files_of(folder):
        raise ValueError(
            f"{folder} has something else in it, {shown(min(others))}: name a new folder for the export"
        )


def _files_of(folder: Path) -> set[str]:
    """What the export that a folder is has in it; nothing if it is none."""
    try:
        files = {about["file"] for about in read_json_object(folder / MANIFEST_FILE)["programs"].values()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()
    return files | {MANIFEST_FILE, LOADER_FILE, WEIGHTS_FILE, "__pycache__"}  # LOADER_FILE was imported


def _export(
    program: ExportedProgram, flat: Mapping[str, np.ndarray], platforms: tuple[str, ...]
) -> tuple[bytes, dict[str, Any]]:
    """A program's code, and what a manifest says of it, without weights and inputs that it does not use."""
    called = list(program.inputs)
    flat = {name: x for name, x in flat.items() if program.reads(name)}

    def call(weights: list[Any], inputs: list[Any]) -> Any:
        params = names.unflatten(dict(zip(flat, weights, strict=True)))
        return program.call(params, dict(zip(called, inputs, strict=True)))

    weights = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in flat.values()]
    exported = export.export(jax.jit(call), platforms=platforms)(weights, list(program.inputs.values()))
    used = exported.module_kept_var_idx
    keys = list(flat)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return bytes(exported.mlir_module_serialized), {
        "says": program.says,
        "weights": [keys[i] for i in used if i < len(keys)],
        # May be given, and change nothing: of a frame's features not each step takes all.
        "unused": [name for i, name in enumerate(called, len(keys)) if i not in used],
        "inputs": [
            {"name": called[i - len(keys)]} | _shape(exported.in_avals[i]) for i in used if i >= len(keys)
        ],
        # In the order of the program's results, which is that of sorted names.
        "outputs": described(dict(sorted(outputs.items()))),
        "calling_convention_version": exported.calling_convention_version,
    }


def _shape(array: Any) -> dict[str, Any]:
    shape = [side if isinstance(side, int) else str(side) for side in array.shape]
    return {"shape": shape, "dtype": str(array.dtype)}


def described(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names, shapes and types, as a manifest has them."""
    return [{"name": name} | _shape(array) for name, array in arrays.items()]


def about_model(model: Any, model_name: str) -> dict[str, Any]:
    """What a manifest says of a model: what it was made of, and what its inputs mean."""
    processor = model.processor.image_processor.to_dict()
    pixels = {name: x for name, x in processor.items() if name not in ("image_processor_type", "mask_size")}
    return {
        "format": FORMAT,
        "made_with": {name: version(name) for name in ("sam2_jax", "jax", "jaxlib")},
        "model": {"name": model_name, "weights": fingerprint(model.params)},
        "pixels": json.loads(json.dumps(pixels)),
        "labels": {"on the object": 1, "off it": 0, "box corners": [2, 3], "no point": -1, "padding": -10},
        "hints": "Each new number in a shape compiles anew: pad objects to powers of 2 up to 16 and to "
        "multiples of 16 beyond, points with label -10 to powers of 4, and cut off what belongs to padding.",
    }


def check_names(owner: str, given: Sequence[str], known: Iterable[str]) -> None:
    """Raise ValueError for a name that owner, "--platforms" say, does not have."""
    if unknown := [name for name in given if name not in list(known)]:
        meant = did_you_mean(unknown[0], known, cutoff=0.7)  # gpu is not tpu
        raise ValueError(f"{owner}: there is no {shown(unknown[0])}{meant}")
