"""The `sam2-jax export` command: a model as programs that run with JAX and NumPy alone."""

import argparse
from pathlib import Path
from typing import Any

from sam2_jax.atomic import check_writable
from sam2_jax.checks import read_whole
from sam2_jax.commands.common import add_model, add_quiet, check_model, count, load_any_model, whole


def add_export(commands: Any) -> None:
    """Add the command's arguments."""
    export = commands.add_parser(
        "export",
        help="write a model as programs that need JAX and NumPy only",
        description="Write encoder, decoders and, of a model for clips, the steps of a frame to a folder: "
        "StableHLO for several platforms, weights in safetensors, a manifest in JSON, and load.py, which "
        "runs them and needs JAX and NumPy alone. Numbers of images, objects and points stay open.",
        epilog="example, for any platform:\n  sam2-jax export --model embedded --output exported\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where it goes")
    export.add_argument(
        "--platforms",
        nargs="+",
        default=["cpu", "cuda", "tpu"],
        metavar="NAME",
        help="what the programs are for (default: cpu cuda tpu)",
    )
    export.add_argument(
        "--programs",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these alone (default: all; the manifest has all names)",
    )
    export.add_argument(
        "--onnx",
        action="store_true",
        help="write ONNX files instead, of encoder and decoder, for one image, with fixed numbers of objects "
        "and points (pip install 'sam2_jax[onnx]')",
    )
    for name, default in (("objects", 1), ("points", 4)):
        export.add_argument(f"--{name}", type=whole, metavar="N", help=f"with --onnx (default: {default})")
    add_model(export)
    add_quiet(export)
    export.set_defaults(run=write_export)


def write_export(arguments: argparse.Namespace) -> None:
    """The `export` command. What can be wrong with the input is found before the model is loaded."""
    from sam2_jax.scale.export import PLATFORMS, check_names, check_target, export_model
    from sam2_jax.scale.onnx import export_onnx, import_jax2onnx

    check_model(arguments)
    check_names("--platforms", arguments.platforms, PLATFORMS)
    check_writable(arguments.output, is_folder=True)
    check_target(arguments.output)
    given = {name: getattr(arguments, name) for name in ("objects", "points")}
    sizes = {name: read_whole(f"--{name}", size, 1) for name, size in given.items() if size is not None}
    if sizes and not arguments.onnx:
        raise ValueError(f"--{min(sizes)} is for --onnx: other programs take any number of them")
    if arguments.onnx:
        import_jax2onnx()
        if arguments.programs or arguments.dtype != "float32":
            raise ValueError(
                "--onnx writes encoder and decoders in float32: leave out --programs and --dtype"
            )
    model = load_any_model(arguments, arguments.dtype)
    about: dict[str, Any] = {"model_name": str(arguments.model)}
    if arguments.onnx:
        work = export_onnx(model, arguments.output, sizes=sizes, **about)
    else:
        about |= {"platforms": arguments.platforms, "only": arguments.programs}
        work = export_model(model, arguments.output, **about)
    names = []
    for name in work:
        print(name, flush=True)
        names.append(name)
    platforms = ["onnx"] if arguments.onnx else dict.fromkeys(arguments.platforms)
    print(f"{arguments.output}: {count(len(names), 'program')} for {', '.join(platforms)}")
