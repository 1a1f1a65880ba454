"""`python -m sam2_jax` is the `sam2-jax` command."""

import sys

from sam2_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())
