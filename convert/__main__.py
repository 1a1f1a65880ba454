"""Convert SAM 2 checkpoints: `sam2-jax convert`, whose --verify here also compares with transformers."""

import argparse
import sys
from collections.abc import Sequence

from convert.verify import comparison
from sam2_jax.commands.convert import EXAMPLES, add_arguments, convert


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 after an error or 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description=__doc__,
        epilog=EXAMPLES.replace("sam2-jax convert", "python -m convert"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        convert(options, comparison)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
