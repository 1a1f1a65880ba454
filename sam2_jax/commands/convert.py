"""The `sam2-jax convert` command: PyTorch checkpoints to Flax layout, to transformers' and back."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_jax.atomic import check_writable

if TYPE_CHECKING:
    from sam2_jax.checkpoint.conversion import Source
    from sam2_jax.checkpoint.reading import Checkpoint

Comparison = Callable[["Checkpoint", "Source", Path, str], str]
"""Compares a written checkpoint with another implementation and says what it found."""

_LAYOUTS = ("flax", "transformers")
_DTYPES = ("bfloat16", "float32")

EXAMPLES = """examples:
  sam2-jax convert sam2.1_hiera_tiny.pt converted/tiny --to flax --verify
  sam2-jax convert facebook/sam2.1-hiera-tiny converted/tiny --to flax
  sam2-jax convert converted/tiny for_torch/tiny --to transformers

A .pt file is read without PyTorch and nothing in it is executed. The memory of a video checkpoint is kept.
"""


def add_convert(commands: Any) -> None:
    """Add the command's arguments."""
    add_arguments(
        commands.add_parser(
            "convert",
            help="convert checkpoints between PyTorch and Flax",
            description="Convert SAM 2 checkpoints: Meta's PyTorch files and transformers' layout to Flax "
            "layout and back.",
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser of any name."""
    parser.add_argument("source", metavar="SOURCE", help="file (.pt, .safetensors), folder or hub id")
    parser.add_argument("target", metavar="TARGET_FOLDER", type=Path, help="folder to write; made if need be")
    parser.add_argument("--to", required=True, choices=_LAYOUTS, help="layout to write")
    parser.add_argument(
        "--dtype",
        choices=_DTYPES,
        help="type to write; default: bfloat16 if all of the source is, else float32 (exact for float16)",
    )
    parser.add_argument(
        "--config", type=Path, help="config.json for a single file of no released size (those are recognised)"
    )
    parser.add_argument(
        "--source-layout", choices=_LAYOUTS, help="what to read where SOURCE holds both layouts"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="reload the result and, where PyTorch and transformers are installed, compare its predictions",
    )
    parser.set_defaults(run=convert)


def convert(options: argparse.Namespace, compare: Comparison | None = None) -> None:
    """Run the command; compare is what --verify asks beside reloading."""
    from sam2_jax.checkpoint.conversion import DTYPES, check_target, find, read, write
    from sam2_jax.checkpoint.hub import WEIGHT_FILES
    from sam2_jax.config import Sam2VideoConfig, read_config

    check_writable(options.target, is_folder=True)
    dtype = None if options.dtype is None else DTYPES[options.dtype]
    config = None if options.config is None else read_config(options.config)
    with _step(f"finding {options.source}") as note:
        source = find(options.source, options.source_layout)
        check_target(options.target, options.to, source)
        note(f"{len(source.files)} file{'s' if len(source.files) > 1 else ''}")
    with _step("checking and reading") as note:
        checkpoint = read(source, dtype, config)
        note(f"{checkpoint.layout} layout, {_size(checkpoint)}")
        note(f"{len(checkpoint.image)} tensors of the image model, {len(checkpoint.memory)} of video memory")
    with _step(f"writing {options.target}"):
        write(checkpoint, source, options.target, options.to)
    kind = "video" if isinstance(checkpoint.config, Sam2VideoConfig) else "image"
    print(
        f"{options.target / WEIGHT_FILES[options.to]}: {kind} model, {_size(checkpoint)}, {checkpoint.dtype}"
    )
    if options.verify:
        _verify(checkpoint, source, options.target, options.to, compare)


def _verify(
    checkpoint: "Checkpoint", source: "Source", target: Path, layout: str, compare: Comparison | None
) -> None:
    from sam2_jax.checkpoint.conversion import check_reload

    with _step("reloading"):
        check_reload(checkpoint, target, layout)
    print(f"verified: all {len(checkpoint.tensors)} tensors reload bit for bit")
    if compare is None:
        print("not compared with transformers: in a clone of the repository, python -m convert --verify does")
        return
    with _step("comparing with transformers"):
        found = compare(checkpoint, source, target, layout)
    print(found)


def _size(checkpoint: "Checkpoint") -> str:
    tensors = checkpoint.tensors.values()
    parameters, size = sum(t.size for t in tensors), sum(t.nbytes for t in tensors)
    return f"{len(tensors)} tensors, {parameters:,} parameters, {size / 1e6:.1f} MB"


@contextmanager
def _step(what: str) -> Iterator[Callable[[str], None]]:
    """Tell on stderr what is being done, then what was noted about it and how long it took."""
    start = time.perf_counter()
    notes: list[str] = []
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield notes.append
        notes.append(f"{time.perf_counter() - start:.1f} s")
    finally:
        print("", "; ".join(notes), file=sys.stderr, flush=True)
