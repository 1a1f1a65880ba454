"""The embedded video model: how it is made of the embedded image model, and how well it tracks.

python benchmarks/embedded_video.py train --output run    # goes on where it was if stopped, at any time
python benchmarks/embedded_video.py evaluate --model run/model
python benchmarks/embedded_video.py package --model run/model

The image model stays as it is: its encoder and its prompts are shared. A small memory is trained beside it on
synthetic clips, with parts of a copy of the decoder, most from small pictures, at last from 384 x 384. What
is packaged is what differs from the image model, in half precision.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import table
from benchmarks.embedded import HELD_OUT_SEED, IMAGE_SIZE, SMALL_SIZE, TRAINING_SEED, first_values
from sam2_jax import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import cast, write_checkpoint
from sam2_jax.checkpoint.hub import EMBEDDED, EMBEDDED_VIDEO_MODEL
from sam2_jax.processing.boxes import mask_to_boxes
from sam2_jax.training.batches import Scenes
from sam2_jax.training.clip_batches import ClipExample, SyntheticClips
from sam2_jax.training.clip_trainer import ClipTrainingOptions, train_on_clips
from sam2_jax.training.evaluate_clips import ClipEvaluation, Point, evaluate_clips, evaluate_tracker
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.video.policies import POLICIES

FRAMES = 24
# The memory, and what of the decoder reads it: a frame without a prompt is new to the image model.
LEARNED = (
    "memory_*",
    "*object_pointer*",
    "mask_downsample.*",
    "*occlusion*",
    "temporal_*",
    "mask_decoder.transformer.*cross_attn*",
    "mask_decoder.transformer.*norm*",
    "mask_decoder.transformer.*mlp*",
    "mask_decoder.transformer.final_attn*",
    "mask_decoder.*_token*",
    "mask_decoder.output_hypernetworks_mlps_0.*",
    "mask_decoder.iou_prediction_head.*",
    "mask_decoder.pred_obj_score_head.*",
)


def phase(
    steps: int, learning_rate: float, objects: int, mask: float, corrected: int = 0, rounds: int = 0
) -> ClipTrainingOptions:
    """Options of a phase. mask: how often an object begins with its mask, and not with a click or a box."""
    return ClipTrainingOptions(
        steps=steps,
        batch_size=1,
        objects=objects,
        trained=LEARNED,
        corrected_frames=corrected,
        optimizer=OptimizerOptions(
            learning_rate=learning_rate,
            warmup_steps=steps // 20,
            final_share=0.05,
            weight_decay=0.02,
            layer_decay=1.0,
            clip_norm=1.0,
        ),
        prompts=PromptOptions(
            point=0.7 * (1 - mask), box=0.3 * (1 - mask), mask=mask, correction_rounds=rounds, deepest=0.8
        ),
        weights=LossWeights(dice=2.0, iou=0.5),
    )


# (image size, frames of a clip, strides, options): masks first, so that memories are of the right thing; then
# strides at which as many objects are gone as in clips of 24 frames.
PHASES: dict[str, tuple[int, int, tuple[int, ...], ClipTrainingOptions]] = {
    "first": (SMALL_SIZE, 4, (1, 2), phase(2000, 4e-4, 4, 0.8)),
    "longer": (SMALL_SIZE, 8, (2, 3), phase(1000, 3e-4, 3, 0.4)),
    "larger": (IMAGE_SIZE, 8, (1, 2, 3), phase(300, 2e-4, 3, 0.2, corrected=1, rounds=1)),
    "again": (IMAGE_SIZE, 8, (2, 3), phase(300, 2e-4, 3, 0.2, corrected=1, rounds=1)),
}


def embedded_video_config(given: Sam2Config) -> Sam2VideoConfig:
    """A memory that fits 4 MB with what else is trained: two narrow layers, three recent frames."""
    width = given.vision_config.fpn_hidden_size
    memory = dict.fromkeys(
        (
            "memory_attention_hidden_size",
            "memory_encoder_hidden_size",
            "mask_downsampler_embed_dim",
            "memory_fuser_embed_dim",
        ),
        width,
    )
    memory |= {
        "num_maskmem": 4,
        "max_object_pointers_in_encoder": 8,
        "memory_attention_num_layers": 2,
        "memory_attention_downsample_rate": 4,
        "memory_attention_feed_forward_hidden_size": 192,
        "memory_fuser_num_layers": 1,
        "memory_fuser_intermediate_dim": 192,
        "memory_fuser_layer_scale_init_value": 0.1,
        # One mask, always the same token's, on frames without a prompt: each frame teaches it.
        "multimask_min_pt_num": 1,
    }
    decoder = replace(given.mask_decoder_config, dynamic_multimask_via_stability=False).to_dict()
    values = given.to_dict() | memory | {"mask_decoder_config": decoder, "model_type": "sam2_video"}
    return Sam2VideoConfig.from_dict(values).with_image_size(given.image_size)


def first_model(image: Sam2Model) -> Sam2VideoModel:
    """The image model with a memory of random values, under which its features pass almost as they are."""
    config = embedded_video_config(image.config)
    rng = np.random.default_rng(TRAINING_SEED)
    given = names.flatten(image.params)
    flat = {
        name: given[name] if name in given else _first_values(rng, name, value)
        for name, value in names.flatten(Sam2VideoModel(config, seed=TRAINING_SEED).params).items()
    }
    # The last norm of the memory attention gives each channel the mean and spread that the decoder knows.
    pictures = [Scenes(TRAINING_SEED, IMAGE_SIZE).example(i).image for i in range(16)]
    known = np.asarray(image.get_image_embeddings(image.processor(pictures)["pixel_values"])[2])
    flat["memory_attention.layer_norm.scale"] = known.std(axis=(0, 1, 2))
    flat["memory_attention.layer_norm.bias"] = known.mean(axis=(0, 1, 2))
    return Sam2VideoModel(config, names.unflatten(flat))


def _first_values(rng: np.random.Generator, name: str, value: Any) -> Any:
    """Values to begin with; what a layer adds to its input is small at first."""
    found = first_values(rng, name, value)
    adds = name.startswith("memory_attention.") and (".o_proj." in name or ".linear2." in name)
    return 0.2 * found if adds else found


def with_fresh_presence(model: Sam2VideoModel) -> Sam2VideoModel:
    """The model with a presence head of random values: the image model's is dead, objects being always there.

    It begins with what is mostly true, that an object is there.
    """
    rng = np.random.default_rng(TRAINING_SEED)
    head = "mask_decoder.pred_obj_score_head."
    flat = {
        name: first_values(rng, name, np.asarray(value)) if name.startswith(head) else value
        for name, value in names.flatten(model.params).items()
    }
    flat[f"{head}proj_out.bias"] = np.full(1, 2.0, np.float32)
    return Sam2VideoModel(model.config, names.unflatten(flat))


def train_model(arguments: argparse.Namespace) -> None:
    """The `train` command: all phases, each from its last checkpoint if there is one."""
    output = arguments.output
    image = Sam2Model.from_pretrained(EMBEDDED)
    model = first_model(image)
    first = 0
    for name, (size, frames, strides, options) in PHASES.items():
        if name == "longer":  # the first whose clips have objects that go
            model = with_fresh_presence(model)
        source = SyntheticClips(TRAINING_SEED, size, frames, strides, first)
        model, _ = train_on_clips(
            model.with_image_size(size), source, options, output / name, checkpoint_every=25, log_every=10
        )
        first += options.steps * options.batch_size
        save(model.with_image_size(IMAGE_SIZE), output / "model")


def save(model: Sam2VideoModel, folder: Path) -> None:
    """Write the whole model in half precision."""
    flat = {name: np.asarray(value) for name, value in names.flatten(model.params).items()}
    write_checkpoint(folder, cast(flat, np.float16), model.config)


def package(arguments: argparse.Namespace) -> None:
    """The `package` command: write what differs from the image model."""
    model, image = Sam2VideoModel.from_pretrained(arguments.model), Sam2Model.from_pretrained(EMBEDDED)
    given, flat = names.flatten(image.params), names.flatten(model.params)
    own = {n: np.asarray(x) for n, x in flat.items() if n not in given or not np.array_equal(x, given[n])}
    write_checkpoint(arguments.output, cast(own, np.float16), model.config)


def held_out(count: int, first: int) -> Iterator[ClipExample]:
    """Clips of the stream that nothing was trained on."""
    source = SyntheticClips(HELD_OUT_SEED, IMAGE_SIZE, FRAMES, strides=(1,))
    return map(source.example, range(first, first + count))


def without_memory(model: Sam2Model) -> Any:
    """Track by the image model alone: a click first, then the box of each object's last mask.

    An object of which no mask is left is prompted with the box of the last one there was. It is taken to be
    there if its mask is not empty and the predicted IoU is at least 0.5.
    """

    def track(images: np.ndarray, points: list[Point]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        boxes: list[list[float]] = []
        for image in images:
            prompts = [{"boxes": boxes}] if boxes else [{"points": [[point] for point in points]}]
            work = [{"photo": image, **prompts[0]}]
            (found,) = model.predict_batch(work, multimask_output=not boxes, progress=False)
            if found.masks is None or found.iou_scores is None:
                raise ValueError(f"a frame cannot be segmented: {found.error}")
            best = np.arange(len(points)), found.iou_scores.argmax(axis=1)
            masks, scores = found.masks[best], found.iou_scores[best]
            new = mask_to_boxes(masks).tolist()
            last = boxes or [[*point, *point] for point in points]
            boxes = [box if mask.any() else old for mask, box, old in zip(masks, new, last, strict=True)]
            yield masks, masks.any(axis=(1, 2)) & (scores >= 0.5)

    return track


def evaluate_model(arguments: argparse.Namespace) -> None:
    """The `evaluate` command: the model beside the image model without a memory."""
    model = Sam2VideoModel.from_pretrained(arguments.model)
    rows = []
    for policy in arguments.memory:
        clips = held_out(arguments.clips, arguments.first)
        tracked = evaluate_clips(model, clips, progress=True, memory=policy)
        name = "embedded video model" if policy == "released" else f'with memory="{policy}"'
        rows.append([name, *cells(tracked)])
    if not arguments.alone:
        image = Sam2Model.from_pretrained(EMBEDDED)
        alone = evaluate_tracker(
            without_memory(image), held_out(arguments.clips, arguments.first), progress=True
        )
        rows.append(["image model, the last mask's box as prompt", *cells(alone)])
    head = ["one click on the first frame", "J&F", "J", "F", "J of the first frame", "presence", "returning"]
    print(
        f"{tracked.objects} objects of {tracked.clips} clips of {FRAMES} frames, {tracked.returning_objects} "
        "of which go away and come back:\n"
    )
    print(table(head, rows))


def cells(found: ClipEvaluation) -> list[str]:
    """What the table says of an evaluation."""
    values = found.both, found.region, found.contour, found.first, found.presence, found.returning
    return [f"{value:.3f}" for value in values]


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train it, from the last checkpoint if there is one")
    training.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
    training.set_defaults(run=train_model)
    evaluation = commands.add_parser("evaluate", help="print the card's table")
    evaluation.add_argument("--model", default=EMBEDDED, help="folder (default: the one in the package)")
    evaluation.add_argument("--clips", type=int, default=60, help="how many (default: %(default)s)")
    evaluation.add_argument("--first", type=int, default=0, help="number of the first (default: %(default)s)")
    evaluation.add_argument(
        "--memory", nargs="+", choices=list(POLICIES), default=["released"], help="a row for each policy"
    )
    evaluation.add_argument("--alone", action="store_true", help="leave the image model without memory out")
    evaluation.set_defaults(run=evaluate_model)
    packaging = commands.add_parser("package", help="write what the package needs beside the image model")
    packaging.add_argument("--model", required=True, help="folder")
    packaging.add_argument("--output", type=Path, default=EMBEDDED_VIDEO_MODEL, help="default: the package's")
    packaging.set_defaults(run=package)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
