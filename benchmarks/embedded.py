"""The embedded model: how it is trained, and how well it does on scenes it has not seen.

python benchmarks/embedded.py train --stem MODEL --output RUN      # resumable; about an hour and a half
python benchmarks/embedded.py evaluate --model FOLDER
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import table
from sam2_jax import Sam2Config, Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import cast, write_checkpoint
from sam2_jax.embedded import EMBEDDED_MODEL
from sam2_jax.training.batches import Scenes
from sam2_jax.training.evaluate import evaluate
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train

IMAGE_SIZE = 256
TRAINING_SEED, HELD_OUT_SEED = 1, 2
# The first two stages are hiera-tiny's own: what they see, edges and textures, is the same at any size.
STEM = ("patch_embed.", "pos_embed", "blocks_0.", "blocks_1.", "blocks_2.")
TRAINED = (
    *("vision_encoder.backbone.blocks_3.*", "vision_encoder.backbone.blocks_4.*", "vision_encoder.neck.*"),
    *("no_memory_embedding", "prompt_encoder.*", "mask_decoder.*"),
)


def phase(steps: int, learning_rate: float, warmup_steps: int, rounds: int, objects: int) -> TrainingOptions:
    """Options of a phase of training."""
    return TrainingOptions(
        steps=steps,
        batch_size=8,
        objects=objects,
        seed=rounds,
        trained=TRAINED,
        optimizer=OptimizerOptions(
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            final_share=0.02,
            weight_decay=0.05,
            layer_decay=1.0,
            clip_norm=1.0,
        ),
        prompts=PromptOptions(point=0.6, box=0.35, mask=0.05, correction_rounds=rounds),
        weights=LossWeights(dice=2.0),
    )


# Corrections teach nothing while the first mask is still poor, and cost most of a step.
PHASES = {"first prompts": phase(1500, 1e-3, 200, 0, 6), "corrections": phase(600, 4e-4, 30, 3, 4)}


def embedded_config() -> Sam2Config:
    """SAM 2 with three stages, of 3 million parameters, for pictures of 256 x 256."""
    widths = [96, 192, 224]
    backbone = {
        "hidden_size": widths[0],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 2, 4],
        "blocks_per_stage": [1, 2, 2],
        "window_size_per_stage": [8, 4, 16],
        "global_attention_blocks": [3, 4],
        "num_query_pool_stages": 2,
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "fpn_hidden_size": 128,
        "fpn_top_down_levels": [2],
    }
    decoder = {"hidden_size": 128, "mlp_dim": 256, "num_attention_heads": 4, "iou_head_hidden_dim": 128}
    prompt = {"hidden_size": 128, "mask_input_channels": 16}
    return Sam2Config(vision, prompt, decoder).with_image_size(IMAGE_SIZE)


def first_model(stem: str) -> Sam2Model:
    """The model before training: random, except for the stages it takes from another one."""
    model = Sam2Model(embedded_config(), seed=TRAINING_SEED)
    given = names.flatten(Sam2Model.from_pretrained(stem).params)
    flat = names.flatten(model.params)
    backbone = "vision_encoder.backbone."
    rng = np.random.default_rng(TRAINING_SEED)
    flat = {name: first_values(rng, name, value) for name, value in flat.items()}
    taken = {name: given[name] for name in flat if name.startswith(tuple(backbone + part for part in STEM))}
    return Sam2Model(model.config, names.unflatten(flat | taken))


def first_values(rng: np.random.Generator, name: str, value: Any) -> Any:
    """Values to begin with: wider than those for fine-tuning, under which a fresh decoder hardly moves."""
    if name.endswith(".kernel"):
        return (rng.standard_normal(value.shape) * (3 * np.prod(value.shape[:-1])) ** -0.5).astype(np.float32)
    if name.endswith(".embedding"):
        return rng.standard_normal(value.shape).astype(np.float32)
    return value


def train_model(arguments: argparse.Namespace) -> None:
    """The `train` command: all phases, each from its last checkpoint if there is one."""
    model = first_model(arguments.stem)
    first = 0
    for name, options in PHASES.items():
        source = Scenes(TRAINING_SEED, IMAGE_SIZE, first)
        folder = arguments.output / name.replace(" ", "_")
        model, _ = train(model, source, options, folder, checkpoint_every=100)
        first += options.steps * options.batch_size
    half = {name: np.asarray(value) for name, value in names.flatten(model.params).items()}
    write_checkpoint(arguments.output / "model", cast(half, np.float16), model.config)


def evaluate_model(arguments: argparse.Namespace) -> None:
    """The `evaluate` command: the card's table."""
    model = Sam2Model.from_pretrained(arguments.model)
    scenes = Scenes(HELD_OUT_SEED, IMAGE_SIZE)
    examples = (scenes.example(index) for index in range(arguments.scenes))
    found = evaluate(model, examples, progress=True)
    values = found.clicks[0], found.best_of_three, found.box, found.clicks[-1]
    head = ["", "one click", "best of its three masks", "box", f"{len(found.clicks)} clicks"]
    print(f"{found.objects} objects of {arguments.scenes} scenes:\n")
    print(table(head, [["mean IoU", *(f"{value:.3f}" for value in values)]]))


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train it, from the last checkpoint if there is one")
    training.add_argument(
        "--stem", required=True, help="model that gives the first two stages, a hub id or folder"
    )
    training.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
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
