"""Configurations of SAM 2, named and defaulted as transformers documents them, and the released sizes.

Every configuration is a frozen, hashable dataclass: lists become tuples, nested dictionaries become
configurations, None for a sequence is its default, and a wrong value raises `ValueError` when the object is
built.
"""

from sam2_jax.config.files import read_config_of
from sam2_jax.config.image import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)
from sam2_jax.config.reading import read_config
from sam2_jax.config.released import RELEASED_MODELS, released_config, released_video_config
from sam2_jax.config.video import Sam2VideoConfig, Sam2VideoMaskDecoderConfig, Sam2VideoPromptEncoderConfig

__all__ = [
    "RELEASED_MODELS",
    "Sam2Config",
    "Sam2HieraDetConfig",
    "Sam2MaskDecoderConfig",
    "Sam2PromptEncoderConfig",
    "Sam2VideoConfig",
    "Sam2VideoMaskDecoderConfig",
    "Sam2VideoPromptEncoderConfig",
    "Sam2VisionConfig",
    "read_config",
    "read_config_of",
    "released_config",
    "released_video_config",
]
