"""SAM 2 (Segment Anything 2) in JAX/Flax."""

from sam2_jax.config import (
    RELEASED_MODELS,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VisionConfig,
    released_config,
)
from sam2_jax.predict import Sam2ImageSegmentationOutput, Sam2Model
from sam2_jax.processing.processor import Sam2Processor

__all__ = [
    "RELEASED_MODELS",
    "Sam2Config",
    "Sam2HieraDetConfig",
    "Sam2ImageSegmentationOutput",
    "Sam2MaskDecoderConfig",
    "Sam2Model",
    "Sam2Processor",
    "Sam2PromptEncoderConfig",
    "Sam2VideoConfig",
    "Sam2VisionConfig",
    "released_config",
]
