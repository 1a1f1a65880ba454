"""Automatic mask generation: a grid of clicks on a photo and its crops, and the good masks among all found.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix B; Meta's SAM2AutomaticMaskGenerator; transformers'
mask-generation pipeline.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam2_jax.checks import check_options, read_flag, shown
from sam2_jax.image.arguments import check_processor
from sam2_jax.image.clicks import batches_of_clicks, decode_clicks
from sam2_jax.image.generation_options import OPTION_NAMES, PRESETS, MaskGenerationOptions, merge_options
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.boxes import xyxy_to_xywh
from sam2_jax.processing.candidates import Candidate, best_of_crop, best_of_crops, clean, judge
from sam2_jax.processing.components import fill_holes_and_remove_sprinkles
from sam2_jax.processing.crops import Box, is_near_crop_edge, layer_boxes
from sam2_jax.processing.images import in_float
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.rle import convert_rle, decode_rle, rle_area
from sam2_jax.progress import progress_bar

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclass(frozen=True, eq=False)
class GeneratedMask:
    """One mask of a photo, held as run lengths: drawn, a mask of 24 megapixels takes 24 megabytes.

    rle: compressed run lengths, as `encode_rle` makes them. box: int64 [4], x0, y0, x1, y1, inclusive.
    predicted_iou and stability_score: 0 to 1. point: the click (x, y) it came from. crop: x0, y0, x1, y1 of
    the crop it was found in, the whole photo without crops.
    """

    rle: dict[str, Any] = field(repr=False)
    box: np.ndarray
    predicted_iou: float
    point: tuple[float, float]
    stability_score: float
    crop: Box

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool [H, W], drawn each time it is asked for."""
        return decode_rle(self.rle)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """x, y, width, height. It ends at the last pixel inside, as Meta's: one pixel has width 0."""
        return _floats(xyxy_to_xywh(self.box))

    @property
    def crop_box(self) -> tuple[float, float, float, float]:
        """The crop as x, y, width, height."""
        return _floats(xyxy_to_xywh(self.crop))

    def record(self, output_mode: str = "binary_mask") -> dict[str, Any]:
        """The record that Meta's generator gives, see `AutomaticMaskGenerator.generate`."""
        segmentation: Any
        if output_mode == "binary_mask":
            segmentation = self.mask
        else:
            segmentation = convert_rle(self.rle, compressed=output_mode == "coco_rle")
        return {
            "segmentation": segmentation,
            "area": rle_area(self.rle),
            "bbox": list(self.bbox),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(self.point)],
            "stability_score": self.stability_score,
            "crop_box": list(self.crop_box),
        }


class AutomaticMaskGenerator:
    """Finds all masks of a photo.

    model: a Sam2Model. preset: whose defaults the options have, "meta" or "transformers" (see PRESETS); None
    for Meta's, or those that lie beside the model's weights for it (`Sam2Model.generation_options`).
    output_mode: the records' segmentation as a "binary_mask", bool [H, W], or as run lengths, a list
    ("uncompressed_rle") or a string ("coco_rle"). processor: the model's own by default. options: those of
    `MaskGenerationOptions`, which go before all defaults. Raises ValueError for unknown options and
    impossible values.
    """

    def __init__(
        self,
        model: Sam2Model,
        preset: str | None = None,
        output_mode: str = "binary_mask",
        processor: Sam2Processor | None = None,
        **options: Any,
    ) -> None:
        """Nothing is computed yet."""
        if not isinstance(model, Sam2Model):
            raise ValueError(
                f"model must be a Sam2Model; got {shown(model)}: Sam2Model.from_pretrained loads one"
            )
        if preset is not None and preset not in list(PRESETS):
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {shown(preset)}")
        if output_mode not in list(OUTPUT_MODES):
            raise ValueError(
                f"output_mode must be one of {', '.join(OUTPUT_MODES)}; got {shown(output_mode)}"
            )
        check_options(options, OPTION_NAMES, "automatic mask generation")
        defaults = model.generation_options if preset is None else PRESETS[preset]
        self.model = model
        self.processor = model.processor if processor is None else check_processor(processor)
        self.output_mode = output_mode
        self.options = MaskGenerationOptions(**merge_options(defaults, options))

    def __repr__(self) -> str:
        return f"AutomaticMaskGenerator({self.model!r}, {self.options!r}, {self.output_mode!r})"

    def compile(self, progress: bool = False) -> dict[str, float]:
        """Compile ahead of time what `generate` will run with these options; as `Sam2Model.compile`."""
        return self.model.compile(uses="generate", progress=progress, generator_options=self.options)

    def generate(self, photo: Any, progress: bool = False) -> list[dict[str, Any]]:
        """Find the masks of a photo: a path, PIL image or array; returns a record of each, the best first.

        A record has segmentation (see output_mode), area in pixels, bbox and crop_box as [x, y, width,
        height], predicted_iou, stability_score, and point_coords [[x, y]], the click it came from. A path is
        opened upright by its EXIF orientation, a PIL image taken as it lies. progress shows a bar on a
        terminal. Raises ValueError if the photo cannot be read.
        """
        return [found.record(self.output_mode) for found in self.find(photo, progress)]

    def find(self, photo: Any, progress: bool = False) -> list[GeneratedMask]:
        """As `generate`, with the masks as objects."""
        progress = read_flag("progress", progress)
        picture = self.processor.image_processor.read_8_bits(photo)
        size = picture.shape[:2]
        options = self.options
        layers = [
            layer_boxes(size, layer, options.crop_overlap_ratio) for layer in range(options.crop_n_layers + 1)
        ]
        grids = [options.grid(layer) for layer in range(len(layers))]
        crops = [(box, grid) for boxes, grid in zip(layers, grids, strict=True) for box in boxes]
        total = sum(len(grid) for _, grid in crops)
        chosen: list[GeneratedMask] = []
        with progress_bar(total=total, desc="masks", unit="point", leave=None, show=progress) as bar:
            for box, grid in crops:
                found: list[Candidate] = []
                for candidates, points in self._candidates(picture, box, grid):
                    found += candidates
                    bar.update(points)
                    # Good enough so far; of those that overlap, one will be chosen.
                    bar.set_postfix(candidates=len(chosen) + len(found), refresh=False)
                best = best_of_crop(found, options.box_nms_thresh)
                chosen += [self._draw(candidate, size) for candidate in best]
        if len(crops) > 1:
            chosen = best_of_crops(chosen, options.crop_nms_thresh)
        return self._clean(chosen) if options.min_mask_region_area > 0 else chosen

    def _candidates(
        self, picture: np.ndarray, crop: Box, grid: np.ndarray
    ) -> Iterator[tuple[list[Candidate], int]]:
        """The masks good enough of a crop, and for how many of its points, batch by batch.

        While one batch is judged the network is at the next.
        """
        x0, y0, x1, y1 = crop
        cut = picture[y0:y1, x0:x1]
        pixels = self.processor(images=in_float(cut) if self.options.resize_in_float else cut)["pixel_values"]
        embeddings = self.model.get_image_embeddings(pixels)
        scale = np.array(pixels.shape[2:0:-1])
        waiting: deque[tuple[np.ndarray, Any]] = deque()
        for points in batches_of_clicks(grid, self.options.points_per_batch):
            decoded = decode_clicks(self.model, embeddings, points * scale, **self.options.of_decoder())
            waiting.append((points, decoded))
            if len(waiting) > 1:
                yield self._judge(picture, crop, *waiting.popleft())
        while waiting:
            yield self._judge(picture, crop, *waiting.popleft())

    def _judge(
        self, picture: np.ndarray, crop: Box, points: np.ndarray, decoded: tuple[Any, Any]
    ) -> tuple[list[Candidate], int]:
        """Of a batch's masks, those of enough score and stability whose box the crop does not cut off."""
        options = self.options
        count = self.model.config.mask_decoder_config.num_multimask_outputs if options.multimask_output else 1
        logits, scores = (np.asarray(x) for x in decoded)
        logits = logits.reshape(-1, count, *logits.shape[3:])[: len(points)]
        scores = scores.reshape(-1, count)[: len(points)]
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

    def _draw(self, candidate: Candidate, size: tuple[int, int]) -> GeneratedMask:
        """What was chosen in a crop, in a photo of (height, width)."""
        return GeneratedMask(
            rle=candidate.rle(size, self.options.mask_threshold),
            box=candidate.box,
            predicted_iou=candidate.score,
            point=candidate.point,
            stability_score=candidate.stability,
            crop=candidate.crop,
        )

    def _clean(self, chosen: list[GeneratedMask]) -> list[GeneratedMask]:
        """Clean masks of small regions, and leave out those that are then doubles."""
        options = self.options
        threshold = max(options.box_nms_thresh, options.crop_nms_thresh)
        cleaned = clean([each.rle for each in chosen], options.min_mask_region_area, threshold)
        return [replace(chosen[i], rle=rle, box=box) for i, rle, box in cleaned]


def _floats(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return float(x), float(y), float(width), float(height)
