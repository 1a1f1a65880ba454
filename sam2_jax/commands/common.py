"""What the commands share: which model, how options are read, and how they tell what they do."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sam2_jax.checkpoint.embedded import DEFAULT_MODEL, EMBEDDED, default_model
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.checks import read_number, read_whole, shown
from sam2_jax.processing.images import MAX_PIXELS

if TYPE_CHECKING:
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.video.model import Sam2VideoModel

    Model = TypeVar("Model", Sam2Model, Sam2VideoModel)

DTYPES = ("float32", "bfloat16")
# A network for pictures of more pixels on a side would need more memory than any machine has.
_LARGEST_INPUT = 16384


def add_model(
    command: argparse.ArgumentParser,
    *,
    dtype: str = "computing type (default: float32)",
    default: str | None = None,
) -> None:
    """Which model a command loads, and for what inputs. default: if it is not that of most commands."""
    usual = default or f"{DEFAULT_MODEL}, or {EMBEDDED} if that cannot be had"
    command.add_argument(
        "--model",
        default=default,
        help=f"hub id or folder, or {EMBEDDED} for the small one that comes with sam2_jax (default: {usual})",
    )
    command.add_argument("--revision", help="commit, tag or branch of the hub model")
    command.add_argument(
        "--image-size", type=whole, metavar="N", help="side of the network's input (default: the model's)"
    )
    command.add_argument("--dtype", choices=DTYPES, default="float32", help=dtype)


def add_max_pixels(command: argparse.ArgumentParser) -> None:
    """How large photos may be."""
    command.add_argument(
        "--max-pixels",
        type=whole,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse photos of more pixels, which take memory and time (default: %(default)s)",
    )


def add_quiet(command: argparse.ArgumentParser) -> None:
    """Silence: see `main`."""
    command.add_argument("--quiet", action="store_true", help="say only what goes wrong or is worth a note")


def add_hosts(command: argparse.ArgumentParser) -> None:
    """Whether several processes share the work."""
    command.add_argument(
        "--multihost",
        action="store_true",
        help="one of several processes, on one host or many, of which each does its share; all are given the "
        "same command, and write to a folder that all of them see. Slurm, Open MPI, Kubernetes and TPUs tell "
        "which processes there are; elsewhere also give:",
    )
    command.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 runs, and a free port")
    command.add_argument("--processes", type=whole, metavar="N", help="how many there are")
    command.add_argument("--process", type=whole, metavar="N", help="which one this is, from 0")


def join_hosts(arguments: argparse.Namespace) -> tuple[int, int]:
    """Join the other processes, if there are any; returns which one this is, and how many there are.

    Then JAX takes SIGTERM, for a training to stop by: see `end_at_sigterm`.
    """
    if not arguments.multihost:
        for name in ("coordinator", "processes", "process"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} is for --multihost: give that as well")
        return 0, 1
    from sam2_jax.scale.hosts import initialize

    return initialize(arguments.coordinator, arguments.processes, arguments.process)


def end_at_sigterm() -> None:
    """Let SIGTERM end the process again, as it does any."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_model(arguments: argparse.Namespace) -> None:
    """Refuse what no model can be, before anything is read or downloaded."""
    if arguments.model is not None:
        HubFolder(arguments.model, revision=arguments.revision)
    if arguments.image_size is not None:
        read_whole("--image-size", arguments.image_size, 1, _LARGEST_INPUT)
    if "max_pixels" in arguments:
        read_whole("--max-pixels", arguments.max_pixels, 1)


def load_model(arguments: argparse.Namespace, dtype: str = "float32") -> "Sam2Model":
    """Load the model asked for or the default one; arguments.model then is its name for reports."""
    from sam2_jax.image.model import Sam2Model

    return _load(Sam2Model, arguments, dtype)


def load_video_model(arguments: argparse.Namespace, dtype: str = "float32") -> "Sam2VideoModel":
    """The same of the model for clips. Raises ValueError for one that is for pictures only."""
    from sam2_jax.video.model import Sam2VideoModel

    try:
        return _load(Sam2VideoModel, arguments, dtype)
    except ValueError as error:
        if arguments.model == EMBEDDED or not _is_for_pictures(arguments):  # the embedded one is for both
            raise
        raise ValueError(
            f"{arguments.model} is a model for pictures; clips need one with a memory: {DEFAULT_MODEL} say"
        ) from error


def load_any_model(arguments: argparse.Namespace, dtype: str = "float32") -> "Sam2Model | Sam2VideoModel":
    """The same of either kind: for clips, unless the one asked for is for pictures only."""
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.video.model import Sam2VideoModel

    name_model(arguments)
    if _is_for_pictures(arguments):
        return _load(Sam2Model, arguments, dtype)
    return _load(Sam2VideoModel, arguments, dtype)


def _is_for_pictures(arguments: argparse.Namespace) -> bool:
    from sam2_jax.auto import AutoConfig
    from sam2_jax.config import Sam2Config

    with suppress(ValueError):
        return isinstance(
            AutoConfig.from_pretrained(arguments.model, revision=arguments.revision), Sam2Config
        )
    return False


def _load(kind: "type[Model]", arguments: argparse.Namespace, dtype: str) -> "Model":
    check_model(arguments)
    name_model(arguments)
    with step(f"load {arguments.model}"):
        model = kind.from_pretrained(arguments.model, revision=arguments.revision, dtype=dtype)
    if arguments.image_size is not None:
        model = model.with_image_size(arguments.image_size)
    if "max_pixels" in arguments:
        processor = model.processor
        processor.image_processor = processor.image_processor.replace(max_pixels=arguments.max_pixels)
    return model


def name_model(arguments: argparse.Namespace) -> None:
    """If no model was asked for, take the default one."""
    if arguments.model is None:
        arguments.model, note = default_model(arguments.revision)
        if note:
            print(f"note: {note}", file=sys.stderr, flush=True)


def training_options(arguments: argparse.Namespace, trained: tuple[str, ...]) -> dict[str, Any]:
    """Options of training that pictures and clips share; trained: the parameters if none are named."""
    from sam2_jax.training.optimizer import OptimizerOptions

    return {
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "objects": arguments.objects,
        "seed": arguments.seed,
        "trained": tuple(arguments.train or (() if arguments.lora else trained)),
        "lora": tuple(arguments.lora or ()),
        "lora_rank": arguments.lora_rank,
        "dtype": arguments.dtype,
        "remat": arguments.remat,
        "optimizer": OptimizerOptions(
            learning_rate=arguments.learning_rate,
            warmup_steps=min(100, arguments.steps // 10),
            accumulate=arguments.accumulate,
        ),
    }


def whole(text: str) -> int:
    """A whole number of the command line; what number it may be is for whoever uses it to say."""
    try:
        return read_whole("it", int(text) if text.strip().lstrip("+-").isdecimal() else float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number; got {shown(text)}") from error


def number(text: str) -> float:
    """A number of the command line."""
    try:
        return read_number("it", float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number; got {shown(text)}") from error


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


def count(many: int, noun: str) -> str:
    """So many of a thing, in words."""
    return f"{many} {noun}{'' if many == 1 else 's'}"


def check_paths(arguments: argparse.Namespace) -> None:
    """Refuse paths that the system does not take, ones that are too long say."""
    for name, value in vars(arguments).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) or (name in ("model", "source") and isinstance(path, str)):
                check_path(name, path)


def check_path(name: str, path: str | Path) -> None:
    """Refuse a path that the system does not take; one where nothing is, or nothing may be read, passes."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever needs it finds better words
    except (OSError, ValueError) as error:  # ValueError: characters that no path can have
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} {shown(str(path))} cannot be used: {reason}") from error
