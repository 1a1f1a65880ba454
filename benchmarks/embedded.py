"""The embedded model: how it is made of hiera-tiny, and how well it does on scenes it has not seen.

python benchmarks/embedded.py train --model facebook/sam2-hiera-tiny --output run    # goes on if stopped
python benchmarks/embedded.py evaluate --model run/model

Hiera-tiny is taken to 256 x 256 and its decoder trained on synthetic scenes: the teacher. Of it, the first
two stages are kept, without the second's second block; the decoder is made smaller (smaller_decoder.py); and
behind the two stages a small third one learns to imitate what the teacher's third and fourth make of scenes.
Then all but the first two stages is trained on masks, at last of pictures of 384 x 384.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import table
from benchmarks.smaller_decoder import compress_decoder
from sam2_jax import Sam2Config, Sam2Model
from sam2_jax.atomic import write_together
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.embedded import EMBEDDED_MODEL
from sam2_jax.checkpoint.files import cast, write_checkpoint
from sam2_jax.model.sam2 import Sam2
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.training.batches import Scenes, batches
from sam2_jax.training.evaluate import Evaluation, evaluate
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.parameters import merge_parameters, split_parameters
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TRAINED, TrainingOptions, train

IMAGE_SIZE = 384
# Most is learnt from smaller pictures, of which a step costs less.
SMALL_SIZE = 256
TRAINING_SEED, HELD_OUT_SEED = 1, 2
# The first two stages are hiera-tiny's own: what they see, edges and textures, is the same at any size.
STEM_BLOCKS = 2
NEW = ("vision_encoder.backbone.blocks_[234].*", "vision_encoder.neck.convs_0.*")
IMITATION_SCENES, IMITATION_EPOCHS, IMITATION_BATCH = 3000, 4, 16


def phase(
    steps: int,
    learning_rate: float,
    rounds: int,
    objects: int,
    trained: tuple[str, ...],
    deepest: float = 0.0,
    iou: float = 1.0,
) -> TrainingOptions:
    """Options of a phase of training on masks."""
    return TrainingOptions(
        steps=steps,
        batch_size=4,
        objects=objects,
        seed=rounds,
        trained=trained,
        optimizer=OptimizerOptions(
            learning_rate=learning_rate,
            warmup_steps=steps // 20,
            final_share=0.02,
            weight_decay=0.05,
            layer_decay=1.0,
            clip_norm=1.0,
        ),
        prompts=PromptOptions(point=0.6, box=0.35, mask=0.05, correction_rounds=rounds, deepest=deepest),
        weights=LossWeights(dice=2.0, iou=iou),
    )


# The teacher learns what things and parts are in scenes; its backbone stays as it is.
TEACHING = phase(250, 2e-4, 0, 6, TRAINED)
LEARNED = (*NEW, *TRAINED)
# Corrections teach little while the first mask is still poor, and cost most of a step.
PHASES = {
    "first_prompts": (SMALL_SIZE, phase(1400, 1.5e-4, 0, 8, LEARNED, deepest=0.5)),
    "corrections": (SMALL_SIZE, phase(450, 1e-4, 2, 8, LEARNED, deepest=0.5)),
    "larger": (IMAGE_SIZE, phase(1200, 1.2e-4, 0, 8, LEARNED, deepest=0.75)),
    "larger_corrections": (IMAGE_SIZE, phase(550, 1e-4, 2, 6, LEARNED, deepest=0.75)),
    "last_prompts": (IMAGE_SIZE, phase(500, 1e-4, 0, 8, LEARNED, deepest=0.75)),
    "more_prompts": (IMAGE_SIZE, phase(1500, 1.2e-4, 0, 8, LEARNED, deepest=0.9, iou=2.0)),
    "more_corrections": (IMAGE_SIZE, phase(600, 1e-4, 2, 6, LEARNED, deepest=0.9, iou=2.0)),
    "end_prompts": (IMAGE_SIZE, phase(350, 6e-5, 0, 8, LEARNED, deepest=0.9, iou=2.0)),
}


def embedded_config(given: Sam2Config) -> Sam2Config:
    """Hiera-tiny's first two stages, one block each, a small third one, and a decoder that fits 6 MB."""
    widths = [96, 192, 112]
    backbone = {
        "hidden_size": widths[0],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 2, 4],
        "blocks_per_stage": [1, 1, 3],
        "window_size_per_stage": [8, 4, 16],
        "global_attention_blocks": [3, 4],
        "num_query_pool_stages": 2,
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "fpn_top_down_levels": [2],
    }
    decoder = replace(
        given.mask_decoder_config, mlp_dim=128, attention_downsample_rate=4, iou_head_hidden_dim=64
    )
    return Sam2Config(vision, given.prompt_encoder_config, decoder).with_image_size(SMALL_SIZE)


def first_model(teacher: Sam2Model) -> Sam2Model:
    """The model before training: the teacher's parts, made smaller, and a random third stage."""
    config = embedded_config(teacher.config)
    given = names.flatten(teacher.params)
    rng = np.random.default_rng(TRAINING_SEED)
    flat = {
        name: first_values(rng, name, value)
        for name, value in names.flatten(Sam2Model(config, seed=TRAINING_SEED).params).items()
    }
    fresh = split_parameters(names.unflatten(flat), NEW).trained
    flat |= {name: given[name] for name in flat if name not in fresh and not name.startswith("mask_decoder.")}
    # Levels of the pyramid are numbered from deep to shallow, and here is one fewer.
    for level in (1, 2):
        for kind in ("kernel", "bias"):
            neck = "vision_encoder.neck.convs_{}.{}".format
            flat[neck(level, kind)] = given[neck(level + 1, kind)]
    processor = Sam2ImageProcessor.for_config(teacher.config)
    lessons = batches(Scenes(TRAINING_SEED, SMALL_SIZE), processor, 8, 6, TRAINING_SEED, range(8))
    flat |= compress_decoder(teacher, config.mask_decoder_config, (batch for batch, _ in lessons))
    return Sam2Model(config, names.unflatten(flat))


def first_values(rng: np.random.Generator, name: str, value: Any) -> Any:
    """Values to begin with: wider than those for fine-tuning, under which fresh layers hardly move."""
    if name.endswith(".kernel"):
        return (rng.standard_normal(value.shape) * (3 * np.prod(value.shape[:-1])) ** -0.5).astype(np.float32)
    return value


def _second_stage(module: Sam2, pixel_values: jax.Array) -> jax.Array:
    return module.vision_encoder.backbone(pixel_values)[1]


def _behind(module: Sam2, x: jax.Array) -> jax.Array:
    """The image embedding from the second stage's map."""
    for block in module.vision_encoder.backbone.blocks[STEM_BLOCKS:]:
        x = block(x)
    return module.vision_encoder.neck.convs[0](x) + module.no_memory_embedding[None]


def _lessons(student: Sam2Model, teacher: Sam2Model, scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the second stage, and what the teacher embeds the pictures as: both float16 [N, h, w, C]."""

    @jax.jit
    def lesson(stem: Any, params: Any, pixel_values: jax.Array) -> Any:
        x: Any = student.module.apply({"params": stem}, pixel_values, method=_second_stage)
        embeddings: Any = teacher.module.apply({"params": params}, pixel_values, method="encode_image")
        target = embeddings[2]
        return x.astype(jnp.float16), target.astype(jnp.float16)

    source, count = Scenes(TRAINING_SEED, SMALL_SIZE), 8
    processor = Sam2ImageProcessor.for_config(student.config)
    groups = batches(source, processor, count, 1, TRAINING_SEED, range(scenes // count))
    made = [
        jax.device_get(lesson(student.params, teacher.params, batch.pixel_values))
        for batch, _ in tqdm(groups, desc="lessons", total=scenes // count, unit="batch")
    ]
    inputs, targets = (np.concatenate(parts) for parts in zip(*made, strict=True))
    return inputs, targets


def _save_arrays(path: Path, arrays: tuple[np.ndarray, ...]) -> None:
    with path.open("wb") as file:
        np.savez(file, *arrays)


def imitate(
    student: Sam2Model, inputs: np.ndarray, targets: np.ndarray, epochs: int, batch_size: int
) -> Sam2Model:
    """Train the third stage to make of the second one's maps what the teacher makes of the pictures."""
    scenes = len(inputs)
    deviation = targets.std(axis=(0, 1, 2), dtype=np.float32).reshape(1, 1, 1, -1)
    split = split_parameters(student.params, NEW)
    steps = epochs * (scenes // batch_size)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 3e-3), weight_decay=0.01)
    params, state = split.trained, optimizer.init(split.trained)

    def loss(params: Any, frozen: Any, x: jax.Array, target: jax.Array) -> jax.Array:
        merged = merge_parameters(params, frozen)
        found: Any = student.module.apply({"params": merged}, x, method=_behind)
        return jnp.square((found - target) / deviation).mean()

    @jax.jit
    def step(params: Any, state: Any, *given: Any) -> tuple[Any, Any, jax.Array]:
        error, gradients = jax.value_and_grad(loss)(params, *given)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, error

    rng = np.random.default_rng(TRAINING_SEED)
    order = [rng.permutation(scenes)[: scenes // batch_size * batch_size] for _ in range(epochs)]
    groups = np.concatenate(order).reshape(-1, batch_size)
    for chosen in (bar := tqdm(groups, desc="imitating", unit="step")):
        x, target = (part[chosen].astype(np.float32) for part in (inputs, targets))
        params, state, error = step(params, state, split.frozen, x, target)
        bar.set_postfix(unexplained=f"{error:.3f}", refresh=False)
    return Sam2Model(student.config, merge_parameters(params, split.frozen))


def train_model(arguments: argparse.Namespace) -> None:
    """The `train` command: teacher, imitation, all phases, each from its last checkpoint if there is one."""
    output = arguments.output
    given = Sam2Model.from_pretrained(arguments.model).with_image_size(SMALL_SIZE)
    train_on = partial(train, workers=arguments.workers)
    teacher, _ = train_on(given, Scenes(TRAINING_SEED, SMALL_SIZE), TEACHING, output / "teacher")
    model = imitation(teacher, output / "imitation", output / "lessons.npz")
    first = 0
    for name, (size, options) in PHASES.items():
        source = Scenes(TRAINING_SEED, size, first)
        model = model.with_image_size(size)
        model, _ = train_on(model, source, options, output / name, checkpoint_every=100)
        first += options.steps * options.batch_size
    half = {name: np.asarray(value) for name, value in names.flatten(model.params).items()}
    write_checkpoint(output / "model", cast(half, np.float16), model.config)


def imitation(teacher: Sam2Model, folder: Path, lessons: Path) -> Sam2Model:
    """The model that imitates the teacher, as saved in folder; if it is not, made of lessons and saved."""
    if folder.exists():
        return Sam2Model.from_pretrained(str(folder))
    model = first_model(teacher)
    if not lessons.exists():
        made = _lessons(model, teacher, IMITATION_SCENES)
        write_together({lessons: lambda aside: _save_arrays(aside, made)})
    with np.load(lessons) as file:
        inputs, targets = (file[name] for name in file.files)
    model = imitate(model, inputs, targets, IMITATION_EPOCHS, IMITATION_BATCH)
    model.save_pretrained(folder)
    return model


def evaluate_model(arguments: argparse.Namespace) -> None:
    """The `evaluate` command: the card's table."""
    model = Sam2Model.from_pretrained(arguments.model)
    scenes = Scenes(HELD_OUT_SEED, IMAGE_SIZE)
    examples = (scenes.example(index) for index in range(arguments.scenes))
    found = evaluate(model, examples, progress=True)
    head = ["", "one click", "best of its three masks", "box", f"{len(found.clicks)} clicks"]
    print(f"{found.objects} objects of {arguments.scenes} scenes:\n")
    print(table(head, [["mean IoU", *cells(found)]]))


def cells(found: Evaluation) -> list[str]:
    """What tables say of an evaluation: one click, the best of its three masks, a box, all clicks."""
    values = found.clicks[0], found.best_of_three, found.box, found.clicks[-1]
    return [f"{value:.3f}" for value in values]


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train it, from the last checkpoint if there is one")
    training.add_argument("--model", required=True, help="hiera-tiny, a hub id or folder")
    training.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
    workers = "processes of Grain that paint scenes for a fast device (default: %(default)s)"
    training.add_argument("--workers", type=int, default=0, metavar="N", help=workers)
    training.set_defaults(run=train_model)
    evaluation = commands.add_parser("evaluate", help="print the card's table")
    evaluation.add_argument(
        "--model", default=EMBEDDED_MODEL, help="folder (default: the one in the package)"
    )
    evaluation.add_argument("--scenes", type=int, default=200, help="how many (default: %(default)s)")
    evaluation.set_defaults(run=evaluate_model)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
