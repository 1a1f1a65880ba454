"""SAM 2 (Segment Anything 2) in JAX/Flax."""

from sam2_jax.batch import predict_batch
from sam2_jax.compilation import use_compilation_cache
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
from sam2_jax.generate import AutomaticMaskGenerator
from sam2_jax.outputs import (
    Sam2HieraDetModelOutput,
    Sam2ImageSegmentationOutput,
    Sam2VisionEncoderOutput,
)
from sam2_jax.pipelines import pipeline
from sam2_jax.predict import Sam2Model
from sam2_jax.predictor import ImagePredictor
from sam2_jax.processing.image_processor import Sam2ImageProcessor, Sam2ImageProcessorFast
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.vision import Sam2HieraDetModel, Sam2VisionModel

__all__ = [
    "RELEASED_MODELS",
    "AutomaticMaskGenerator",
    "ImagePredictor",
    "Sam2Config",
    "Sam2HieraDetConfig",
    "Sam2HieraDetModel",
    "Sam2HieraDetModelOutput",
    "Sam2ImageProcessor",
    "Sam2ImageProcessorFast",
    "Sam2ImageSegmentationOutput",
    "Sam2MaskDecoderConfig",
    "Sam2Model",
    "Sam2Processor",
    "Sam2PromptEncoderConfig",
    "Sam2VideoConfig",
    "Sam2VisionConfig",
    "Sam2VisionEncoderOutput",
    "Sam2VisionModel",
    "pipeline",
    "predict_batch",
    "released_config",
    "use_compilation_cache",
]
