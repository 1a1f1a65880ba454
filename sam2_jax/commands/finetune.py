"""The `sam2-jax finetune` command: train a model on a dataset, and see what it gained."""

import argparse
import json
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_jax.atomic import write_text
from sam2_jax.checkpoint.embedded import DEFAULT_MODEL

if TYPE_CHECKING:
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.training.datasets import Dataset

# Evaluating more pictures than this tells little more.
_EVALUATED = 50


def add_finetune(commands: Any) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "finetune",
        help="train a model on pictures with masks",
        description="Train a model on a dataset. Some pictures are held out to see what was gained. Writes "
        "to a folder: the trained model in both layouts, checkpoints, metrics. Given again, the command goes "
        "on where it stopped.",
        epilog="example, COCO's instance annotations:\n"
        "  sam2-jax finetune --data annotations.json --images photos --output tuned --steps 500\n"
        "  sam2-jax segment photo.jpg --point 500,375 --model tuned\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="PATH", help="COCO JSON, or a folder of photos and masks")
    add("--images", type=Path, metavar="FOLDER", help="where the photos are, if not beside the data")
    add("--model", default=DEFAULT_MODEL, help="hub id or folder (default: %(default)s)")
    add("--revision", help="commit, tag or branch of the hub model")
    add("--output", type=Path, required=True, metavar="FOLDER", help="where results go")
    add("--steps", type=int, default=500, help="how many (default: %(default)s)")
    add("--batch-size", type=int, default=2, metavar="N", help="pictures in a step (default: %(default)s)")
    add("--objects", type=int, default=4, metavar="N", help="objects of a picture (default: %(default)s)")
    add("--corrections", type=int, default=3, metavar="N", help="clicks that correct (default: %(default)s)")
    add("--learning-rate", type=float, default=5e-5, metavar="R", help="the highest (default: %(default)s)")
    add("--accumulate", type=int, default=1, metavar="N", help="steps for one update (default: %(default)s)")
    add(
        "--train",
        action="append",
        metavar="PATTERN",
        help="parameters to train (default: all but the backbone)",
    )
    add("--lora", action="append", metavar="PATTERN", help="matrices to train by low-rank updates")
    add("--lora-rank", type=int, default=4, metavar="N", help="rank of these (default: %(default)s)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="computing type (%(default)s)")
    add("--remat", action="store_true", help="less memory for the encoder's gradients, more time")
    add("--processes", type=int, default=0, metavar="N", help="to read photos with (default: %(default)s)")
    add("--image-size", type=int, metavar="N", help="side of the network's input (default: the model's)")
    add(
        "--held-out",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="pictures held out (default: %(default)s)",
    )
    add("--checkpoint-every", type=int, default=100, metavar="N", help="steps (default: %(default)s)")
    add("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    parser.set_defaults(run=finetune)


def finetune(arguments: argparse.Namespace) -> int:
    """Run the command. What can be wrong with the input is found before the model is loaded."""
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.training.batches import Shuffled
    from sam2_jax.training.datasets import open_dataset, split
    from sam2_jax.training.evaluate import evaluate
    from sam2_jax.training.optimizer import OptimizerOptions
    from sam2_jax.training.prompts import PromptOptions
    from sam2_jax.training.trainer import TRAINED, TrainingOptions, train

    if arguments.corrections < 0:
        raise ValueError(f"--corrections must be 0 or more; got {arguments.corrections}")
    options = TrainingOptions(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        objects=arguments.objects,
        seed=arguments.seed,
        trained=tuple(arguments.train or (() if arguments.lora else TRAINED)),
        lora=tuple(arguments.lora or ()),
        lora_rank=arguments.lora_rank,
        dtype=arguments.dtype,
        remat=arguments.remat,
        optimizer=OptimizerOptions(
            learning_rate=arguments.learning_rate,
            warmup_steps=min(100, arguments.steps // 10),
            accumulate=arguments.accumulate,
        ),
        prompts=PromptOptions(correction_rounds=arguments.corrections),
    )
    dataset = open_dataset(arguments.data, arguments.images)
    training, held_out = split(dataset, arguments.held_out, arguments.seed)
    _describe(dataset, len(training), len(held_out))
    model = Sam2Model.from_pretrained(arguments.model, revision=arguments.revision)
    if arguments.image_size is not None:
        model = model.with_image_size(arguments.image_size)

    def judge(model: "Sam2Model", when: str) -> dict[str, Any]:
        found = evaluate(model, islice(held_out.readable(), _EVALUATED), clicks=3, progress=True)
        print(f"{when}: {found}", flush=True)
        return found._asdict()

    source = Shuffled(training, arguments.seed)
    go_on = partial(train, model, source, options, arguments.output, processes=arguments.processes)
    # No step yet, but all checks: before the minutes that judging may take.
    go_on(stop_at=0, progress=False)
    report = {"model": str(arguments.model), "before": judge(model, "before")}
    tuned, _ = go_on(checkpoint_every=arguments.checkpoint_every)
    tuned.save_pretrained(arguments.output)
    tuned.processor.save_pretrained(arguments.output)
    tuned.save_pretrained(arguments.output / "transformers", layout="transformers")
    tuned.processor.save_pretrained(arguments.output / "transformers")
    report["after"] = judge(tuned, "after")
    write_text(arguments.output / "report.json", json.dumps(report, indent=2) + "\n")
    print(f"{arguments.output}: the trained model; in transformers/ the same for transformers")
    return 0


def _describe(dataset: "Dataset", training: int, held_out: int) -> None:
    """Say what there is, and on stderr what was left out."""
    print(f"{training} pictures to train on, {held_out} held out")
    for what, count in dataset.left_out.items():
        print(f"left out: {count} {what}")
    for problem in dataset.problems[:10]:
        print(f"note: left out: {problem}", file=sys.stderr)
    if len(dataset.problems) > 10:
        print(f"note: ... and {len(dataset.problems) - 10} more", file=sys.stderr)
