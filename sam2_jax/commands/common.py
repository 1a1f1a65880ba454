"""What the commands share: which model, and how they tell what they do."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sam2_jax.checkpoint.embedded import DEFAULT_MODEL, EMBEDDED, default_model

if TYPE_CHECKING:
    from sam2_jax.image.model import Sam2Model


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        help=f"hub id or folder, or {EMBEDDED} for the small one that comes with sam2_jax (default: "
        f"{DEFAULT_MODEL}, or {EMBEDDED} if that cannot be had)",
    )
    command.add_argument("--revision", help="commit, tag or branch of the hub model")


def load_model(arguments: argparse.Namespace) -> "Sam2Model":
    """Load the model asked for or the default one; arguments.model then is its name for reports."""
    from sam2_jax.image.model import Sam2Model

    note = None
    if arguments.model is None:
        arguments.model, note = default_model(arguments.revision)
    if note:
        print(f"note: {note}", file=sys.stderr, flush=True)
    with step(f"load {arguments.model}"):
        return Sam2Model.from_pretrained(arguments.model, revision=arguments.revision)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done and, once done, how long it took."""
    print(f"{what} ...", end=" ", flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.perf_counter() - start:.2f} s", flush=True)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
