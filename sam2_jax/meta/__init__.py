"""The classes that users of Meta's repository know, with its arguments, array forms and results.

Thin fronts: the network is `Sam2Model`, all masks are found by `AutomaticMaskGenerator`. Source:
facebookresearch/sam2, build_sam.py, sam2_image_predictor.py and automatic_mask_generator.py.
"""

from sam2_jax.meta.build import build_sam2, build_sam2_hf
from sam2_jax.meta.generator import SAM2AutomaticMaskGenerator
from sam2_jax.meta.predictor import SAM2ImagePredictor

__all__ = ["SAM2AutomaticMaskGenerator", "SAM2ImagePredictor", "build_sam2", "build_sam2_hf"]
