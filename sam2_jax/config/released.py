"""The released models: what differs between their sizes and versions."""

from dataclasses import replace
from typing import Any

from sam2_jax.checkpoint.hub import RELEASED_MODELS as RELEASED_MODELS
from sam2_jax.config.image import Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig
from sam2_jax.config.video import Sam2VideoConfig

# What differs between the released sizes (Meta's sam2_hiera_{t,s,b+,l}.yaml); everything else is a default.
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": (1, 2, 11, 2), "global_attention_blocks": (7, 10, 13)},
    "base-plus": {
        "hidden_size": 112,
        "embed_dim_per_stage": (112, 224, 448, 896),
        "num_attention_heads_per_stage": (2, 4, 8, 16),
        "blocks_per_stage": (2, 3, 16, 3),
        "global_attention_blocks": (12, 16, 20),
        "window_positional_embedding_background_size": (14, 14),
    },
    "large": {
        "hidden_size": 144,
        "embed_dim_per_stage": (144, 288, 576, 1152),
        "num_attention_heads_per_stage": (2, 4, 8, 16),
        "blocks_per_stage": (2, 6, 36, 4),
        "global_attention_blocks": (23, 33, 43),
        "window_size_per_stage": (8, 4, 16, 8),
    },
}
# What SAM 2.0 lacks of 2.1; the image network is the same.
_VERSIONS: dict[str, dict[str, Any]] = {
    "2.0": {
        "enable_occlusion_spatial_embedding": False,
        "enable_temporal_pos_encoding_for_object_pointers": False,
    },
    "2.1": {},
}


def released_size(backbone: Sam2HieraDetConfig) -> str | None:
    """Name the released size, "tiny" say, that a backbone is of at any image size; None for others."""
    for size, options in _SIZES.items():
        if replace(backbone, image_size=Sam2HieraDetConfig().image_size) == Sam2HieraDetConfig(**options):
            return size
    return None


def released_video_config(name: str) -> Sam2VideoConfig:
    """Configuration of a released checkpoint, which holds the whole video model, by its hub id.

    Raises ValueError, listing the known names, for any other name.
    """
    if name not in RELEASED_MODELS:
        raise ValueError(f"unknown model {name!r}; the released models are {', '.join(RELEASED_MODELS)}")
    version, size = RELEASED_MODELS[name]
    backbone = Sam2HieraDetConfig(**_SIZES[size])
    vision = Sam2VisionConfig(backbone, backbone_channel_list=tuple(reversed(backbone.embed_dim_per_stage)))
    return Sam2VideoConfig(vision, **_VERSIONS[version])


def released_config(name: str) -> Sam2Config:
    """Configuration of a released checkpoint's image model, by its hub id, `facebook/sam2.1-hiera-tiny` say.

    Raises ValueError, listing the known names, for any other name.
    """
    return released_video_config(name).image_config
