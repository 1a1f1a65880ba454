"""The embedded model: how it is trained, and how well it does on scenes it has not seen.

    python benchmarks/embedded.py train --stem MODEL --output RUN      # resumable; about an hour and a half
    python benchmarks/embedded.py evaluate --model FOLDER
"""

import argparse
from pathlib import Path

import jax.numpy as jnp

from sam2_jax import Sam2Config, Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.training.batches import Scenes
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train

IMAGE_SIZE = 256
TRAINING_SEED, HELD_OUT_SEED = 1, 2
# The first two stages are hiera-tiny's own: what they see, edges and textures, is the same at any size.
STEM = ("patch_embed.", "pos_embed", "blocks_0.", "blocks_1.", "blocks_2.")
OPTIONS = TrainingOptions(
    steps=3000,
    batch_size=8,
    objects=4,
    trained=("vision_encoder.backbone.blocks_3.*", "vision_encoder.backbone.blocks_4.*",
             "vision_encoder.neck.*", "no_memory_embedding", "prompt_encoder.*", "mask_decoder.*"),
    optimizer=OptimizerOptions(
        learning_rate=1e-3, warmup_steps=150, final_share=0.01, weight_decay=0.05, layer_decay=1.0, clip_norm=1.0
    ),
    prompts=PromptOptions(point=0.6, box=0.3, mask=0.1, correction_rounds=3),
    weights=LossWeights(),
)  # fmt: skip


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
    taken = {name: given[name] for name in flat if name.startswith(tuple(backbone + part for part in STEM))}
    return Sam2Model(model.config, names.unflatten(flat | taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stem", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model, _ = train(
        first_model(arguments.stem), Scenes(TRAINING_SEED, IMAGE_SIZE), OPTIONS, arguments.output,
        checkpoint_every=100,
    )
    model.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
