"""The classes that users of Meta's repository know, with its arguments, array forms and results.

Thin fronts: the network is `Sam2Model` or `Sam2VideoModel`, all masks are found by `AutomaticMaskGenerator`,
clips are tracked by `VideoTracker`. Source: facebookresearch/sam2, build_sam.py, sam2_image_predictor.py,
automatic_mask_generator.py and sam2_video_predictor.py.
"""

from sam2_jax.meta.build import build_sam2, build_sam2_hf
from sam2_jax.meta.generator import SAM2AutomaticMaskGenerator
from sam2_jax.meta.predictor import SAM2ImagePredictor
from sam2_jax.meta.video_predictor import (
    SAM2VideoPredictor,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)

__all__ = [
    "SAM2AutomaticMaskGenerator",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
]
