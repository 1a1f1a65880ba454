"""SAM 2 (Segment Anything 2) in JAX/Flax."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_jax.auto import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForMaskGeneration,
        AutoProcessor,
    )
    from sam2_jax.clips.reading import open_clip
    from sam2_jax.compilation import use_compilation_cache
    from sam2_jax.config import (
        RELEASED_MODELS,
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VideoConfig,
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
        Sam2VisionConfig,
        released_config,
    )
    from sam2_jax.image.automatic import AutomaticMaskGenerator
    from sam2_jax.image.batch import predict_batch
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.image.outputs import (
        Sam2HieraDetModelOutput,
        Sam2ImageSegmentationOutput,
        Sam2VisionEncoderOutput,
    )
    from sam2_jax.image.pipeline import MaskGenerationPipeline, pipeline
    from sam2_jax.image.session import ImagePredictor
    from sam2_jax.image.vision import Sam2HieraDetModel, Sam2VisionModel
    from sam2_jax.processing.batch_feature import BatchFeature
    from sam2_jax.processing.image_processor import Sam2ImageProcessor, Sam2ImageProcessorFast
    from sam2_jax.processing.processor import Sam2Processor
    from sam2_jax.video.model import Sam2VideoModel
    from sam2_jax.video.outputs import Sam2VideoSegmentationOutput
    from sam2_jax.video.processor import Sam2VideoProcessor
    from sam2_jax.video.results import FrameMasks
    from sam2_jax.video.session import Sam2VideoInferenceSession
    from sam2_jax.video.tracker import VideoTracker
    from sam2_jax.video.video_processor import Sam2VideoVideoProcessor

__version__ = version("sam2_jax")

# Imported when they are asked for: the command's help needs none of them, and JAX takes most of a second.
_HOMES = {
    "open_clip": "clips.reading",
    "use_compilation_cache": "compilation",
    "RELEASED_MODELS": "config",
    "Sam2Config": "config",
    "Sam2HieraDetConfig": "config",
    "Sam2MaskDecoderConfig": "config",
    "Sam2PromptEncoderConfig": "config",
    "Sam2VideoConfig": "config",
    "Sam2VideoMaskDecoderConfig": "config",
    "Sam2VideoPromptEncoderConfig": "config",
    "Sam2VisionConfig": "config",
    "released_config": "config",
    "AutoConfig": "auto",
    "AutoImageProcessor": "auto",
    "AutoModel": "auto",
    "AutoModelForMaskGeneration": "auto",
    "AutoProcessor": "auto",
    "AutomaticMaskGenerator": "image.automatic",
    "predict_batch": "image.batch",
    "Sam2Model": "image.model",
    "Sam2HieraDetModelOutput": "image.outputs",
    "Sam2ImageSegmentationOutput": "image.outputs",
    "Sam2VisionEncoderOutput": "image.outputs",
    "MaskGenerationPipeline": "image.pipeline",
    "pipeline": "image.pipeline",
    "ImagePredictor": "image.session",
    "Sam2HieraDetModel": "image.vision",
    "Sam2VisionModel": "image.vision",
    "BatchFeature": "processing.batch_feature",
    "Sam2ImageProcessor": "processing.image_processor",
    "Sam2ImageProcessorFast": "processing.image_processor",
    "Sam2Processor": "processing.processor",
    "Sam2VideoModel": "video.model",
    "Sam2VideoSegmentationOutput": "video.outputs",
    "Sam2VideoProcessor": "video.processor",
    "FrameMasks": "video.results",
    "Sam2VideoInferenceSession": "video.session",
    "VideoTracker": "video.tracker",
    "Sam2VideoVideoProcessor": "video.video_processor",
}

__all__ = [
    "RELEASED_MODELS",
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForMaskGeneration",
    "AutoProcessor",
    "AutomaticMaskGenerator",
    "BatchFeature",
    "FrameMasks",
    "ImagePredictor",
    "MaskGenerationPipeline",
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
    "Sam2VideoInferenceSession",
    "Sam2VideoMaskDecoderConfig",
    "Sam2VideoModel",
    "Sam2VideoProcessor",
    "Sam2VideoPromptEncoderConfig",
    "Sam2VideoSegmentationOutput",
    "Sam2VideoVideoProcessor",
    "Sam2VisionConfig",
    "Sam2VisionEncoderOutput",
    "Sam2VisionModel",
    "VideoTracker",
    "open_clip",
    "pipeline",
    "predict_batch",
    "released_config",
    "use_compilation_cache",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
