"""The `sam2-jax finetune` command: train a model on a dataset, and see what it gained."""

import argparse
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_jax.atomic import check_writable
from sam2_jax.checks import read_number, read_whole
from sam2_jax.commands.common import (
    add_hosts,
    add_model,
    add_quiet,
    check_model,
    count,
    join_hosts,
    load_model,
    number,
    training_options,
    whole,
)
from sam2_jax.commands.finetune_run import one_of, tell_problems, train_and_judge
from sam2_jax.commands.finetune_videos import finetune_videos

if TYPE_CHECKING:
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.training.examples import Dataset

# Evaluating more pictures than this tells little more.
_EVALUATED = 50
_HELD_OUT = 0.1
_DATA = "COCO JSON, a folder of photos and masks, or one of videos, JPEGImages/ and Annotations/"
_WHOLE: tuple[tuple[str, int, int, int, str], ...] = (
    ("steps", 500, 1, 2**31 - 1, "how many"),
    ("batch_size", 2, 1, 4096, "pictures, or clips, in a step"),
    ("objects", 4, 1, 4096, "objects of a picture or clip"),
    ("frames", 8, 2, 1024, "frames of a clip, of videos"),
    ("corrections", 3, 0, 100, "clicks that correct"),
    ("accumulate", 1, 1, 2**20, "steps for one update"),
    ("lora_rank", 4, 1, 4096, "rank of low-rank updates"),
    ("workers", 0, 0, 256, "processes of Grain that read photos"),
    ("checkpoint_every", 100, 1, 2**31 - 1, "steps between checkpoints"),
    ("seed", 0, 0, 2**32 - 1, "of all that is random"),
)
"""Options that are whole numbers: default, least, most, meaning."""


def add_finetune(commands: Any) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "finetune",
        help="train a model on pictures with masks",
        description="Train a model on a dataset, of pictures or of videos. Some are held out to see what was "
        "gained. Writes to a folder: the trained model in both layouts, checkpoints, metrics. Given again, "
        "the command goes on where it stopped, with more --steps beyond that.",
        epilog="example, COCO's instance annotations:\n"
        "  sam2-jax finetune --data annotations.json --images photos --output tuned --steps 500\n"
        "  sam2-jax segment photo.jpg --point 500,375 --model tuned\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="PATH", help=_DATA)
    add("--images", type=Path, metavar="FOLDER", help="where the photos are, if not beside the data")
    add("--output", type=Path, required=True, metavar="FOLDER", help="where results go")
    add_model(parser, dtype="computing type of the training (default: float32)")
    for name, default, _, _, meaning in _WHOLE:
        help_text = f"{meaning} (default: {default})"
        add(_option(name), type=whole, default=default, metavar="N", help=help_text)
    add("--learning-rate", type=number, default=5e-5, metavar="R", help="the highest (default: %(default)s)")
    add(
        "--train",
        action="append",
        metavar="PATTERN",
        help="parameters to train (default: all but the backbone)",
    )
    add("--lora", action="append", metavar="PATTERN", help="matrices to train by low-rank updates")
    add("--remat", action="store_true", help="less memory for the encoder's gradients, more time")
    add(
        "--held-out",
        type=number,
        metavar="SHARE",
        help=f"share of the pictures to judge by, 0 for none (default: {_HELD_OUT}, 0 with --validation)",
    )
    add("--validation", type=Path, metavar="PATH", help="pictures to judge by of their own, as --data")
    add("--validation-images", type=Path, metavar="FOLDER", help="where the photos of these are")
    add("--one-object", action="store_true", help="each annotation is of one object, bright on black")
    add_hosts(parser)
    add_quiet(parser)
    parser.set_defaults(run=finetune)


def finetune(arguments: argparse.Namespace) -> int:
    """Run the command, as one of several processes if there are to be more."""
    _check(arguments)
    with one_of(*join_hosts(arguments)):
        return _finetune(arguments)


def _finetune(arguments: argparse.Namespace) -> int:
    """Run it. What can be wrong with the input is found before the model is loaded."""
    from sam2_jax.training.batches import Shuffled
    from sam2_jax.training.evaluate import evaluate
    from sam2_jax.training.prompts import PromptOptions
    from sam2_jax.training.trainer import TRAINED, TrainingOptions, train
    from sam2_jax.training.video_folders import is_video_dataset

    if is_video_dataset(arguments.data):
        check_writable(arguments.output, is_folder=True)
        return finetune_videos(arguments)
    options = TrainingOptions(
        **training_options(arguments, TRAINED),
        prompts=PromptOptions(correction_rounds=arguments.corrections),
    )
    check_writable(arguments.output, is_folder=True)
    training, judged = _open(arguments)
    model = load_model(arguments)
    go_on = partial(
        train,
        model,
        Shuffled(training, arguments.seed),
        options,
        arguments.output,
        data=training.fingerprint(),
        workers=arguments.workers,
    )

    def judge(model: "Sam2Model", pictures: "Dataset") -> Any:
        examples = islice(pictures.readable(), _EVALUATED)
        return evaluate(model, examples, clicks=3, progress=not arguments.quiet)

    train_and_judge(arguments, model, go_on, None if judged is None else partial(judge, pictures=judged))
    return 0


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that cannot be meant, and options that do not go together."""
    for name, _, least, most, _ in _WHOLE:
        read_whole(_option(name), getattr(arguments, name), least, most)
    read_number("--learning-rate", arguments.learning_rate, above=0, most=1000)
    if arguments.held_out is not None:
        read_number("--held-out", arguments.held_out, least=0, below=1)
        if arguments.held_out and arguments.validation:
            raise ValueError("--validation judges by pictures of its own; leave out --held-out, or give it 0")
    if arguments.validation_images and not arguments.validation:
        raise ValueError("--validation-images says where the photos of --validation are; give that, too")
    check_model(arguments)


def _open(arguments: argparse.Namespace) -> tuple["Dataset", "Dataset | None"]:
    """The pictures to train on, and those to judge by if there are to be any; says what there is."""
    from sam2_jax.training.datasets import open_dataset
    from sam2_jax.training.examples import split

    one_object = arguments.one_object
    training, judged = open_dataset(arguments.data, arguments.images, one_object=one_object), None
    _tell_left_out(training)
    if arguments.validation:
        where = arguments.validation, arguments.validation_images
        judged = open_dataset(*where, one_object=one_object and arguments.validation.is_dir())
        _tell_left_out(judged)
    elif share := _HELD_OUT if arguments.held_out is None else arguments.held_out:
        training, judged = split(training, share, arguments.seed)
    how = "to judge by" if arguments.validation else "held out"
    print(f"{count(len(training), 'picture')} to train on, {0 if judged is None else len(judged)} {how}")
    return training, judged


def _tell_left_out(dataset: "Dataset") -> None:
    """Say what was left out of a dataset, what is damaged on stderr."""
    for what, many in dataset.left_out.items():
        print(f"left out: {many} {what}")
    tell_problems(dataset.problems)
