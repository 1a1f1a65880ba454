"""The `sam2-jax export` command: a model as programs that run with JAX and NumPy alone."""

import argparse
from pathlib import Path
from typing import Any

from sam2_jax.atomic import check_writable
from sam2_jax.commands.common import add_model, add_quiet, check_model, load_any_model


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
    add_model(export)
    add_quiet(export)
    export.set_defaults(run=write_export)


def write_export(arguments: argparse.Namespace) -> None:
    """The `export` command. What can be wrong with the input is found before the model is loaded."""
    from sam2_jax.scale.export import PLATFORMS, check_names, check_target, export_model

    check_model(arguments)
    check_names("--platforms", arguments.platforms, PLATFORMS)
    check_writable(arguments.output, is_folder=True)
    check_target(arguments.output)
    model = load_any_model(arguments, arguments.dtype)
    options: dict[str, Any] = {"platforms": arguments.platforms, "only": arguments.programs}
    names = []
    for name in export_model(model, arguments.output, model_name=str(arguments.model), **options):
        print(name, flush=True)
        names.append(name)
    print(f"{arguments.output}: {len(names)} programs for {', '.join(arguments.platforms)}")
