"""The `sam2-jax` command. Each command imports what it needs when it runs."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from sam2_jax.commands.convert import add_convert
from sam2_jax.commands.finetune import add_finetune
from sam2_jax.commands.generate import add_generate
from sam2_jax.commands.segment import add_segment, join_negative_numbers


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="sam2-jax", description="Segment Anything 2 in JAX.")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_segment, add_generate, add_finetune, add_convert):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 1 the input was at fault (said on stderr)."""
    arguments = build_parser().parse_args(join_negative_numbers(sys.argv[1:] if argv is None else argv))
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
        try:
            return arguments.run(arguments) or 0
        except ValueError as error:
            print(f"sam2-jax: error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("sam2-jax: stopped; nothing half-written is left", file=sys.stderr)
            return 130
