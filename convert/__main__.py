"""Convert SAM 2 checkpoints: Meta's PyTorch files and transformers' layout to Flax layout and back."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from convert.conversion import DTYPES, Checkpoint, Source, check, check_target, find, read, write
from convert.verify import TOLERANCE, check_reload, compare_with_transformers, describe
from sam2_jax.config import Sam2VideoConfig, read_config
from sam2_jax.hub import WEIGHT_FILES

_EXAMPLES = """examples:
  python -m convert sam2.1_hiera_tiny.pt converted/tiny --to flax --verify
  python -m convert facebook/sam2.1-hiera-tiny converted/tiny --to flax
  python -m convert converted/tiny for_torch/tiny --to transformers

A .pt file is read without PyTorch and nothing in it is executed. The memory of a video checkpoint is kept.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 after an error or 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        _convert(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="Meta .pt file, or folder or hub id of the other layouts"
    )
    parser.add_argument("target", metavar="TARGET_FOLDER", type=Path, help="folder to write; made if need be")
    parser.add_argument("--to", required=True, choices=sorted(WEIGHT_FILES), help="layout to write")
    parser.add_argument(
        "--dtype",
        choices=sorted(DTYPES),
        help="type to write; default: bfloat16 if all of the source is, else float32 (exact for float16)",
    )
    parser.add_argument(
        "--config", type=Path, help="config.json for a .pt file of no released size (those are recognised)"
    )
    parser.add_argument(
        "--source-layout", choices=sorted(WEIGHT_FILES), help="what to read where SOURCE holds both layouts"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="reload the result and, where PyTorch and transformers are installed, compare its predictions",
    )
    return parser


def _convert(options: argparse.Namespace) -> None:
    dtype = None if options.dtype is None else DTYPES[options.dtype]
    config = None if options.config is None else read_config(options.config)
    with _step(f"finding {options.source}") as note:
        source = find(options.source, options.source_layout)
        check_target(options.target, options.to, source)
        note(f"{len(source.files)} file{'s' if len(source.files) > 1 else ''} in {source.layout} layout")
    with _step("reading and renaming") as note:
        checkpoint = read(source, dtype, config)
        note(_size(checkpoint))
    with _step("checking names and shapes") as note:
        check(checkpoint, source)
        note(f"{len(checkpoint.image)} tensors of the image model, {len(checkpoint.memory)} of video memory")
    with _step(f"writing {options.target}"):
        write(checkpoint, source, options.target, options.to)
    kind = "video" if isinstance(checkpoint.config, Sam2VideoConfig) else "image"
    print(
        f"{options.target / WEIGHT_FILES[options.to]}: {kind} model, {_size(checkpoint)}, {checkpoint.dtype}"
    )
    if options.verify:
        _verify(checkpoint, source, options.target, options.to)


def _verify(checkpoint: Checkpoint, source: Source, target: Path, layout: str) -> None:
    with _step("reloading"):
        check_reload(checkpoint, target, layout)
    print(f"verified: all {len(checkpoint.tensors)} tensors reload bit for bit")
    with _step("comparing with transformers"):
        differences = compare_with_transformers(checkpoint, source, target, layout)
    if differences is None:
        print("not compared with transformers: PyTorch and transformers with SAM 2 are not installed")
    else:
        found = describe(differences)
        print(f"verified: differs from transformers by {found} (relative; limit {TOLERANCE:.0e})")


def _size(checkpoint: Checkpoint) -> str:
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


if __name__ == "__main__":
    sys.exit(main())
