"""The options of automatic mask generation: defaults, presets, and what a model brings along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checks import check_options, read_flag, read_numbers, shown
from sam2_jax.json_files import read_json_object
from sam2_jax.processing.crops import layer_grid, read_option

PRESETS: dict[str, dict[str, Any]] = {
    "meta": {},
    "transformers": {"pred_iou_thresh": 0.88, "resize_in_float": False},
}
"""Options whose defaults are not those of `MaskGenerationOptions`, which are Meta's."""


@dataclass(frozen=True)
class MaskGenerationOptions:
    """How masks are looked for and chosen; the defaults are those of Meta's SAM2AutomaticMaskGenerator.

    points_per_side: the grid's points on a side, or None with point_grids. points_per_batch: points decoded
    together, None for all. pred_iou_thresh: a mask's predicted IoU must exceed it, at most 1; 0 or less asks
    nothing. stability_score_thresh: its stability must reach it, likewise; stability_score_offset: the change
    of threshold that stability is about. mask_threshold: logits above it are inside. box_nms_thresh: of two
    masks of a crop whose boxes overlap by a greater IoU, the one of lower predicted IoU goes; 1 for none.
    crop_n_layers: layers of crops looked at beside the photo, layer i of 2^i x 2^i. crop_nms_thresh: the same
    between crops, where the mask of the larger crop goes. crop_overlap_ratio: part of the photo's short side
    by which crops of layer 1 overlap. crop_n_points_downscale_factor: by its power i, layer i has fewer
    points on a side. point_grids: in place of points_per_side, points [N, 2] as (x, y) in [0, 1] for each
    layer. min_mask_region_area: holes and islands of fewer pixels of the photo are removed, 0 for none.
    use_m2m: each mask is refined once, with its point, as a prompt for itself. multimask_output: three masks
    for a point, not one. max_hole_area, max_sprinkle_area: as of `post_process_masks`, in pixels of the
    network's masks, None as 0. resize_in_float: the photo is resized without rounding to 8 bits, as Meta does
    it and transformers does not.
    """

    points_per_side: int | None = 32
    points_per_batch: int | None = 64
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: float = 1
    point_grids: Sequence[Any] | None = None
    min_mask_region_area: float = 0
    use_m2m: bool = False
    multimask_output: bool = True
    max_hole_area: float = 0
    max_sprinkle_area: float = 0
    resize_in_float: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be meant."""
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ValueError("exactly one of points_per_side and point_grids must be given, the other None")
        for field in fields(self):
            if field.name != "point_grids":
                object.__setattr__(self, field.name, _read(field, getattr(self, field.name)))
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", _read_grids(self.point_grids, self.crop_n_layers))

    def of_decoder(self) -> dict[str, Any]:
        """What concerns the decoding of clicks: arguments of `decode_clicks`."""
        return {
            "multimask_output": self.multimask_output,
            "min_score": self.pred_iou_thresh if self.pred_iou_thresh > 0 else None,
            "use_m2m": self.use_m2m,
        }

    def grid(self, layer: int) -> np.ndarray:
        """The points of a layer's crops, float64 [N, 2] as (x, y) in [0, 1]."""
        if self.point_grids is not None:
            return self.point_grids[layer]
        assert self.points_per_side is not None
        return layer_grid(self.points_per_side, self.crop_n_points_downscale_factor, layer)


_WITHOUT = {"points_per_side", "points_per_batch"}  # None has a meaning of its own
_AREAS = {"max_hole_area", "max_sprinkle_area"}  # None is transformers' default of these


def _read(field: Any, value: Any) -> Any:
    """The value of an option, but of point_grids."""
    if value is None and field.name in _WITHOUT:
        return None
    if value is None and field.name in _AREAS:
        return 0
    if value is None:
        raise ValueError(
            f"{field.name} must not be None: leave it out for the default, {shown(field.default)}"
        )
    if isinstance(field.default, bool):
        return read_flag(field.name, value)
    return read_option(field.name, value)


def _read_grids(grids: Any, layers: int) -> tuple[np.ndarray, ...]:
    if not isinstance(grids, (list, tuple)) or len(grids) != layers + 1:
        raise ValueError(
            f"point_grids must be a list of {layers + 1}, one for each layer of crops; got {shown(grids)}"
        )
    read = []
    for layer, grid in enumerate(grids):
        points = read_numbers(f"point_grids[{layer}]", grid, "points [N, 2]")
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            raise ValueError(f"point_grids[{layer}] must be points [N, 2]; got {shown(grid)}")
        if not ((points >= 0) & (points <= 1)).all():
            raise ValueError(f"point_grids[{layer}] must be within 0 and 1, parts of width and height")
        read.append(points)
    return tuple(read)


OPTION_NAMES = tuple(field.name for field in fields(MaskGenerationOptions))


def merge_options(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one layer over those of the ones before it; what the grid is made of goes as one."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer.get("point_grids") is not None:
            merged["points_per_side"] = None
        elif layer.get("points_per_side") is not None:
            merged["point_grids"] = None
        merged |= layer
    return merged


def read_generation_options(path: Path) -> dict[str, Any]:
    """The options that a model's GENERATION_FILE holds. Raises ValueError if it is broken."""
    values = read_json_object(path, "remove it or mend it")
    try:
        check_options(values, OPTION_NAMES, "mask generation")
        MaskGenerationOptions(**merge_options(values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return values
