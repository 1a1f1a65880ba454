"""Automatic mask generation: a grid of clicks on a photo and its crops, and the good masks among all found.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix B; Meta's SAM2AutomaticMaskGenerator; transformers'
mask-generation pipeline.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from tqdm import tqdm

from sam2_jax.image.model import Sam2Model
from sam2_jax.image.session import MAX_LOGIT
from sam2_jax.processing.boxes import mask_to_boxes, xyxy_to_xywh
from sam2_jax.processing.candidates import Candidate, best_of_crop, best_of_crops, clean, judge
from sam2_jax.processing.components import fill_holes_and_remove_sprinkles
from sam2_jax.processing.crops import Box, is_near_crop_edge, layer_boxes, layer_grid
from sam2_jax.processing.images import to_rgb
from sam2_jax.processing.inputs import read_numbers
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.rle import encode_rle

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
PRESETS: dict[str, dict[str, Any]] = {
    "meta": {},
    "transformers": {"pred_iou_thresh": 0.88, "resize_in_float": False},
}
"""Options whose defaults are not those of `MaskGenerationOptions`, which are Meta's."""


@dataclass(frozen=True)
class MaskGenerationOptions:
    """How masks are looked for and chosen; the defaults are those of Meta's SAM2AutomaticMaskGenerator.

    points_per_side: the grid's points on a side, or None with point_grids. points_per_batch: points decoded
    together, None for all. pred_iou_thresh: a mask's predicted IoU must exceed it; 0 or less asks nothing.
    stability_score_thresh: its stability must reach it, likewise; stability_score_offset: the change of
    threshold that stability is about. mask_threshold: logits above it are inside. box_nms_thresh: of two
    masks of a crop whose boxes overlap by a greater IoU, the one of lower predicted IoU goes.
    crop_n_layers: layers of crops looked at beside the photo, layer i of 2^i x 2^i. crop_nms_thresh: the same
    between crops, where the mask of the larger crop goes. crop_overlap_ratio: part of the photo's short side
    by which crops of layer 1 overlap. crop_n_points_downscale_factor: by its power i, layer i has fewer
    points on a side. point_grids: in place of points_per_side, points [N, 2] as (x, y) in [0, 1] for each
    layer. min_mask_region_area: holes and islands of fewer pixels of the photo are removed, 0 for none.
    use_m2m: each mask is refined once, with its point, as a prompt for itself. multimask_output: three masks
    for a point, not one. max_hole_area, max_sprinkle_area: as of `post_process_masks`, in pixels of the
    network's masks. resize_in_float: the photo is resized without rounding to 8 bits, as Meta does it and
    transformers does not.
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
        for name in ("use_m2m", "multimask_output", "resize_in_float"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or value is None or field.name == "point_grids":
                continue
            number = read_numbers(field.name, value, 1)[0]
            least = _LEAST.get(field.name, -math.inf)
            if number < least or (field.name in _WHOLE and number != int(number)):
                kind = "a whole number" if field.name in _WHOLE else "a number"
                raise ValueError(f"{field.name} must be {kind} of at least {least}; got {value!r}")
        if self.crop_overlap_ratio >= 1:
            raise ValueError(f"crop_overlap_ratio must be less than 1; got {self.crop_overlap_ratio}")
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", _read_grids(self.point_grids, self.crop_n_layers))

    def grid(self, layer: int) -> np.ndarray:
        """The points of a layer's crops, float64 [N, 2] as (x, y) in [0, 1]."""
        if self.point_grids is not None:
            return self.point_grids[layer]
        assert self.points_per_side is not None
        return layer_grid(self.points_per_side, self.crop_n_points_downscale_factor, layer)


_WHOLE = {"points_per_side", "points_per_batch", "crop_n_layers"}
_LEAST = {
    "points_per_side": 1,
    "points_per_batch": 1,
    "stability_score_offset": 0,
    "crop_n_layers": 0,
    "crop_overlap_ratio": 0,
    "crop_n_points_downscale_factor": 1,
    "min_mask_region_area": 0,
    "max_hole_area": 0,
    "max_sprinkle_area": 0,
}


def _read_grids(grids: Sequence[Any], layers: int) -> tuple[np.ndarray, ...]:
    if isinstance(grids, np.ndarray) or len(grids) != layers + 1:
        raise ValueError(
            f"point_grids must be a list of {layers + 1}, one for each layer of crops; got {len(grids)}"
        )
    read = []
    for layer, grid in enumerate(grids):
        points = np.asarray(grid, np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            raise ValueError(f"point_grids[{layer}] must be points [N, 2]; got shape {points.shape}")
        if not ((points >= 0) & (points <= 1)).all():
            raise ValueError(f"point_grids[{layer}] must be within 0 and 1, parts of width and height")
        read.append(points)
    return tuple(read)


@dataclass(frozen=True)
class GeneratedMask:
    """One mask of a photo. mask: bool [H, W]; the rest as in `record`, boxes as x, y, width, height."""

    mask: np.ndarray
    bbox: tuple[float, float, float, float]
    predicted_iou: float
    point: tuple[float, float]
    stability_score: float
    crop_box: tuple[float, float, float, float]

    def record(self, output_mode: str = "binary_mask") -> dict[str, Any]:
        """The record that Meta's generator gives: segmentation, area, bbox, predicted_iou, point_coords, ...

        bbox ends at the last pixel inside, as there: one pixel has width 0.
        """
        segmentation: Any = self.mask
        if output_mode != "binary_mask":
            segmentation = encode_rle(self.mask, compressed=output_mode == "coco_rle")
        return {
            "segmentation": segmentation,
            "area": int(np.count_nonzero(self.mask)),
            "bbox": list(self.bbox),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(self.point)],
            "stability_score": self.stability_score,
            "crop_box": list(self.crop_box),
        }


class AutomaticMaskGenerator:
    """Finds all masks of a photo.

    model: a Sam2Model. preset: whose defaults the options have, "meta" or "transformers" (see PRESETS).
    output_mode: the records' segmentation as a "binary_mask", bool [H, W], or as run lengths, a list
    ("uncompressed_rle") or a string ("coco_rle"). processor: the model's own by default. options: those of
    `MaskGenerationOptions`. Raises ValueError for unknown options and impossible values.
    """

    def __init__(
        self,
        model: Sam2Model,
        preset: str = "meta",
        output_mode: str = "binary_mask",
        processor: Sam2Processor | None = None,
        **options: Any,
    ) -> None:
        """Nothing is computed yet."""
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode must be one of {', '.join(OUTPUT_MODES)}; got {output_mode!r}")
        known = [field.name for field in fields(MaskGenerationOptions)]
        if unknown := sorted(options.keys() - known):
            raise ValueError(f"unknown option {unknown[0]!r}; the options are {', '.join(known)}")
        if "point_grids" in options:
            options.setdefault("points_per_side", None)
        self.model = model
        self.processor = processor or model.processor
        self.output_mode = output_mode
        self.options = MaskGenerationOptions(**(PRESETS[preset] | options))

    def generate(self, photo: Any, progress: bool = False) -> list[dict[str, Any]]:
        """Find the masks of a photo: a path, PIL image or array; returns a record of each, the best first.

        A record has segmentation (see output_mode), area in pixels, bbox and crop_box as [x, y, width,
        height], predicted_iou, stability_score, and point_coords [[x, y]], the click it came from.
        progress shows a bar. Raises ValueError if the photo cannot be read.
        """
        return [found.record(self.output_mode) for found in self.find(photo, progress)]

    def find(self, photo: Any, progress: bool = False) -> list[GeneratedMask]:
        """As `generate`, with the masks as objects."""
        picture = to_rgb(photo)
        size = picture.shape[:2]
        options = self.options
        layers = [
            layer_boxes(size, layer, options.crop_overlap_ratio) for layer in range(options.crop_n_layers + 1)
        ]
        crops = [(box, options.grid(layer)) for layer, boxes in enumerate(layers) for box in boxes]
        total = sum(len(grid) for _, grid in crops)
        chosen: list[Candidate] = []
        with tqdm(total=total, desc="masks", unit="point", leave=None, disable=not progress) as bar:
            for box, grid in crops:
                found = []
                for candidates, points in self._candidates(picture, box, grid):
                    found += candidates
                    bar.update(points)
                    bar.set_postfix(found=len(chosen) + len(found), refresh=False)
                chosen += best_of_crop(found, options.box_nms_thresh)
        if len(crops) > 1:
            chosen = best_of_crops(chosen, options.crop_nms_thresh)
        return self._finish(chosen, size)

    def _candidates(
        self, picture: np.ndarray, crop: Box, grid: np.ndarray
    ) -> Iterator[tuple[list[Candidate], int]]:
        """The masks good enough of a crop, and for how many of its points, batch by batch.

        While one batch is judged the network is at the next.
        """
        x0, y0, x1, y1 = crop
        dtype = np.float32 if self.options.resize_in_float else np.uint8
        pixels = self.processor(images=picture[y0:y1, x0:x1].astype(dtype))["pixel_values"]
        embeddings = self.model.get_image_embeddings(pixels)
        scale = np.array(pixels.shape[2:0:-1])
        waiting: deque[tuple[np.ndarray, Any, Any]] = deque()
        for points in self._batches(grid):
            waiting.append((points, *self._decode(embeddings, points * scale)))
            if len(waiting) > 1:
                yield self._judge(picture, crop, *waiting.popleft())
        while waiting:
            yield self._judge(picture, crop, *waiting.popleft())

    def _batches(self, grid: np.ndarray) -> list[np.ndarray]:
        """The grid in the fewest batches allowed, as equal as can be, since few sizes are compiled."""
        count = math.ceil(len(grid) / (self.options.points_per_batch or len(grid)))
        return np.array_split(grid, count)

    def _decode(self, embeddings: Any, points: np.ndarray) -> tuple[Any, Any]:
        """Logits [N, M, h, w] and predicted IoU [N, M] for points in the network's pixels, on the device."""
        options = self.options
        least = options.pred_iou_thresh if options.pred_iou_thresh > 0 else None
        clicks = points.astype(np.float32)[None, :, None]
        outputs = self.model(
            input_points=clicks,
            image_embeddings=embeddings,
            multimask_output=options.multimask_output,
            min_score=None if options.use_m2m else least,
        )
        logits, scores = outputs.pred_masks[0], outputs.iou_scores[0]
        if not options.use_m2m:
            return logits, scores
        masks = logits.clip(-MAX_LOGIT, MAX_LOGIT).reshape(1, -1, *logits.shape[2:])
        refined = self.model(
            input_points=clicks.repeat(logits.shape[1], axis=1),
            input_masks=masks,
            image_embeddings=embeddings,
            multimask_output=False,
            min_score=least,
        )
        return refined.pred_masks[0].reshape(logits.shape), refined.iou_scores[0].reshape(scores.shape)

    def _judge(
        self, picture: np.ndarray, crop: Box, points: np.ndarray, logits: Any, scores: Any
    ) -> tuple[list[Candidate], int]:
        """Of a batch's masks, those of enough score and stability whose box the crop does not cut off."""
        options = self.options
        logits, scores = np.asarray(logits), np.asarray(scores)
        x0, y0, x1, y1 = crop
        height, width = picture.shape[:2]
        corner = np.array([x0, y0, x0, y0])
        least = options.pred_iou_thresh if options.pred_iou_thresh > 0 else -np.inf
        found = []
        for i, j in zip(*np.nonzero(scores > least), strict=True):
            mask = fill_holes_and_remove_sprinkles(
                logits[i, j], options.mask_threshold, options.max_hole_area, options.max_sprinkle_area
            )
            stability, box = judge(
                mask, (y1 - y0, x1 - x0), options.mask_threshold, options.stability_score_offset
            )
            if options.stability_score_thresh > 0 and stability < options.stability_score_thresh:
                continue
            box = box + corner
            if is_near_crop_edge(box, crop, (0, 0, width, height)):
                continue
            x, y = points[i] * (x1 - x0, y1 - y0) + (x0, y0)
            found.append(Candidate(mask, float(scores[i, j]), (float(x), float(y)), stability, box, crop))
        return found, len(points)

    def _finish(self, chosen: list[Candidate], size: tuple[int, int]) -> list[GeneratedMask]:
        """Draw what was chosen, the best first, and clean it of small regions."""
        options = self.options
        masks = [(i, candidate.mask(size, options.mask_threshold)) for i, candidate in enumerate(chosen)]
        if options.min_mask_region_area > 0:
            threshold = max(options.box_nms_thresh, options.crop_nms_thresh)
            masks = clean([mask for _, mask in masks], options.min_mask_region_area, threshold)
        return [
            GeneratedMask(
                mask=mask,
                bbox=_floats(xyxy_to_xywh(mask_to_boxes(mask))),
                predicted_iou=chosen[i].score,
                point=chosen[i].point,
                stability_score=chosen[i].stability,
                crop_box=_floats(xyxy_to_xywh(chosen[i].crop)),
            )
            for i, mask in masks
        ]


def _floats(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return float(x), float(y), float(width), float(height)
