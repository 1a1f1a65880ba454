"""`SAM2AutomaticMaskGenerator`: all masks of a photo, with Meta's arguments in Meta's order."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.generation_options import MaskGenerationOptions
from sam2_jax.image.model import Sam2Model
from sam2_jax.meta.build import build_sam2_hf, split_options
from sam2_jax.processing.crops import read_option


class SAM2AutomaticMaskGenerator:
    """Finds all masks of a photo: Meta's class, by `AutomaticMaskGenerator` with Meta's arguments.

    Their defaults are Meta's for every model. min_mask_region_area: as Meta's code does it, holes and islands
    of up to so many pixels of the network's masks are removed; `AutomaticMaskGenerator` counts pixels of the
    photo, as Meta's documentation says. All else as of `MaskGenerationOptions`.
    """

    def __init__(
        self,
        model: Sam2Model,
        points_per_side: int | None = 32,
        points_per_batch: int | None = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: float = 1,
        point_grids: Sequence[Any] | None = None,
        min_mask_region_area: float = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
    ) -> None:
        """Nothing is computed yet. Raises ValueError for what cannot be meant."""
        area = read_option("min_mask_region_area", min_mask_region_area)
        self.generator = AutomaticMaskGenerator(
            model,
            "meta",
            output_mode,
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            mask_threshold=mask_threshold,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            max_hole_area=area,
            max_sprinkle_area=area,
            use_m2m=use_m2m,
            multimask_output=multimask_output,
        )

    def __repr__(self) -> str:
        return f"SAM2AutomaticMaskGenerator({self.generator.model!r}, {self.generator.options!r})"

    @classmethod
    def from_pretrained(cls, model_id: str | Path, **options: Any) -> Self:
        """Load a model by its hub id or from a folder; options of `build_sam2` and of the generator."""
        own = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "model")]
        building, given = split_options(options, own)
        MaskGenerationOptions(
            **{name: given[name] for name in given if name != "output_mode"}
        )  # first of all
        return cls(build_sam2_hf(model_id, **building), **given)

    def generate(self, image: Any) -> list[dict[str, Any]]:
        """Records of a photo's masks, the best first, see `AutomaticMaskGenerator.generate`."""
        return self.generator.generate(image)
