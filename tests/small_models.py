"""Small networks with well-spread random weights, the same on every machine, for tests and goldens."""

from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from sam2_jax import Sam2Config, Sam2Model, Sam2VideoConfig
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.pretrained import parameter_shapes


def small_config(image_size: int | tuple[int, int] = 128) -> Sam2Config:
    """A four-stage network far cheaper than hiera-tiny, with every special case of the sizes.

    Windows that do not divide the grid (padding), a global block, pooling, and a 14 x 14 background.
    """
    backbone = {
        "hidden_size": 16,
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "blocks_per_stage": [1, 2, 3, 2],
        "window_size_per_stage": [8, 4, 6, 3],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [14, 14],
    }
    vision = {"backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16], "fpn_hidden_size": 32}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    prompt = {"hidden_size": 32, "mask_input_channels": 8}
    return Sam2Config(vision, prompt, decoder).with_image_size(image_size)


def smallest_config(
    image_size: int | tuple[int, int] = 64, width: int = 8, hidden_size: int = 16
) -> Sam2Config:
    """A network of five blocks, narrow unless it is to learn, for tests that compile many programs."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    backbone = {
        "hidden_size": width,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [8, 4, 6, 3],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "fpn_hidden_size": hidden_size,
    }
    sizes = {"hidden_size": hidden_size, "mlp_dim": 2 * hidden_size, "iou_head_hidden_dim": hidden_size}
    decoder = {**sizes, "num_attention_heads": 2}
    prompt = {"hidden_size": hidden_size, "mask_input_channels": 16}
    return Sam2Config(vision, prompt, decoder).with_image_size(image_size)


def smallest_video_config(
    version: str = "2.1", image_size: int | tuple[int, int] = 64, **changes: Any
) -> Sam2VideoConfig:
    """The smallest network with a memory as narrow, of two layers; pointers are two tokens each."""
    widths = (
        "memory_attention_hidden_size",
        "memory_encoder_hidden_size",
        "mask_downsampler_embed_dim",
        "memory_fuser_embed_dim",
    )
    values = smallest_config().to_dict() | dict.fromkeys(widths, 16) | {"model_type": "sam2_video"}
    values |= {
        "image_size": 64,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_num_layers": 2,
        "memory_encoder_output_channels": 8,
        "memory_fuser_intermediate_dim": 32,
        "enable_occlusion_spatial_embedding": version == "2.1",
        "enable_temporal_pos_encoding_for_object_pointers": version == "2.1",
    }
    return Sam2VideoConfig.from_dict(values | changes).with_image_size(image_size)


def random_tensors(config: Sam2Config | Sam2VideoConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors under transformers' names, the Fourier copies equal.

    Norm scales lie around 1 and nothing is zero, so that no term can hide; kernels keep activations near 1.
    """
    rng = np.random.default_rng(seed)
    flat = {}
    for name, shape in sorted(parameter_shapes(config).items()):
        noise = rng.standard_normal(shape)
        fan_in = np.prod(shape[:-1]) if name.endswith("kernel") else 1
        scale = {"kernel": fan_in**-0.5, "scale": 0.2, "bias": 0.2}.get(name.rpartition(".")[2], 0.5)
        noise *= scale  # in place: the largest network has 200 million numbers
        noise += name.endswith("scale")
        flat[name] = noise.astype(np.float32)
    return names.to_torch(flat)


def model_of(config: Sam2Config, **options: Any) -> Sam2Model:
    """A model with random weights; options are Sam2Model's."""
    return Sam2Model(config, names.unflatten(names.to_flax(random_tensors(config))), **options)


_own_widths = count(100, 4)


def model_of_its_own(image_size: int = 64) -> Sam2Model:
    """The smallest model, but of a width for which nothing can have been traced before."""
    config = smallest_config(image_size)
    return model_of(
        replace(config, mask_decoder_config=replace(config.mask_decoder_config, mlp_dim=next(_own_widths)))
    )
