"""A model's programs for pictures as ONNX, for other runtimes, through jax2onnx."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax

from sam2_jax.atomic import aside
from sam2_jax.checks import read_whole
from sam2_jax.image.model import Sam2Model
from sam2_jax.json_files import to_json
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.sam2 import Sam2
from sam2_jax.scale.export import MANIFEST_FILE, about_model, check_target, described
from sam2_jax.scale.programs import programs_of
from sam2_jax.video.model import Sam2VideoModel

SIZES = {"batch": 1, "objects": 1, "points": 4}
"""Numbers of images, objects and points of an object; of fewer the rest is padding, label -10."""
PROGRAMS = ("encoder", "decoder", "decoder_single")


def export_onnx(
    model: Sam2Model | Sam2VideoModel,
    folder: Path,
    *,
    sizes: Mapping[str, int] = SIZES,
    model_name: str = "",
) -> Iterator[str]:
    """Write NAME.onnx for each of PROGRAMS, weights within, and a manifest; yields each name when it begins.

    Numbers are fixed by sizes; inputs and outputs have the names that `programs_of` gives them. The folder
    appears whole, in place of an export that was there before. Raises ValueError if jax2onnx is not
    installed, or if the folder cannot be written or holds something else.
    """
    jax2onnx = import_jax2onnx()
    check_target(folder)
    sizes = SIZES | {name: read_whole(name, size, 1) for name, size in sizes.items()}
    programs = programs_of(cast(Sam2, model.module))
    about: dict[str, Any] = {}
    with aside(folder, is_folder=True) as new:
        for name in PROGRAMS:
            yield name
            program = programs[name]
            shapes = {
                key: jax.ShapeDtypeStruct(
                    tuple(side if isinstance(side, int) else sizes[str(side)] for side in kind.shape),
                    kind.dtype,
                )
                for key, kind in program.inputs.items()
            }

            def call(*arrays: Any, program: Any = program) -> tuple[Any, ...]:
                # One of the network's ways is meant: a choice among platforms has no word in ONNX.
                with tracing_for("cpu"):
                    found = program.call(model.params, dict(zip(program.inputs, arrays, strict=True)))
                return tuple(found[key] for key in sorted(found))

            outputs = jax.eval_shape(program.call, model.params, shapes)
            made = jax2onnx.to_onnx(
                call,
                list(shapes.values()),
                model_name=name,
                input_names=list(shapes),
                output_names=sorted(outputs),
            )
            (new / f"{name}.onnx").write_bytes(made.SerializeToString())
            about[name] = {"file": f"{name}.onnx", "says": program.says}
            about[name] |= {"inputs": described(shapes), "outputs": described(dict(sorted(outputs.items())))}
        manifest = about_model(model, model_name) | {"platforms": ["onnx"], "programs": about}
        (new / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8")


def import_jax2onnx() -> Any:
    """jax2onnx. Raises ValueError, naming the extra that brings it, if it is not installed."""
    try:
        import jax2onnx
    except ImportError as error:
        raise ValueError("ONNX needs the package jax2onnx: pip install 'sam2_jax[onnx]'") from error
    return jax2onnx
