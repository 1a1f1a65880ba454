"""Automatic mask generation: a grid of clicks on a photo and its crops, and the good masks among all found.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix B; Meta's SAM2AutomaticMaskGenerator; transformers'
mask-generation pipeline.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from sam2_jax.checks import check_options, read_flag, shown
from sam2_jax.image.arguments import check_processor
from sam2_jax.image.batch import read_batch_size, read_readers
from sam2_jax.image.clicks import batches_of_clicks, clicks_of_each, decode_clicks
from sam2_jax.image.generation_options import OPTION_NAMES, PRESETS, MaskGenerationOptions, merge_options
from sam2_jax.image.model import Sam2Model
from sam2_jax.image.views import Search, View, batches_of_views
from sam2_jax.processing.boxes import xyxy_to_xywh
from sam2_jax.processing.candidates import Candidate, best_of_crop, best_of_crops, clean, judge
from sam2_jax.processing.components import fill_holes_and_remove_sprinkles
from sam2_jax.processing.crops import Box, is_near_crop_edge, layer_boxes
from sam2_jax.processing.images import in_float
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.read_ahead import Stopwatch, read_ahead
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


class _Run(NamedTuple):
    """What a run of the decoder brought.

    searches: the photos that were clicked on; is_first: none of them was before. clicks: so many; candidates:
    masks that are good enough so far. found: the masks of photos that are now done, to be taken at once.
    """

    searches: list[Search]
    is_first: bool
    clicks: int
    candidates: int
    found: Iterator[list[GeneratedMask]]


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
        # How long threads were opening and resizing photos.
        self.reading = Stopwatch()

    def __repr__(self) -> str:
        return f"AutomaticMaskGenerator({self.model!r}, {self.options!r}, {self.output_mode!r})"

    def compile(self, progress: bool = False, batch_size: int | None = None) -> dict[str, float]:
        """Compile ahead of time what `generate` will run with these options; as `Sam2Model.compile`."""
        sizes = read_batch_size(batch_size, self.model.device_count)
        return self.model.compile(sizes, uses="generate", progress=progress, generator_options=self.options)

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
        (found,) = self.find_each([photo], progress=progress)
        return found

    def generate_each(self, photos: Iterable[Any], **options: Any) -> Iterator[list[dict[str, Any]]]:
        """As `generate`, of many photos, in order; options as of `find_each`."""
        return (
            [each.record(self.output_mode) for each in found] for found in self.find_each(photos, **options)
        )

    def find_each(
        self,
        photos: Iterable[Any],
        *,
        batch_size: int | None = None,
        readers: int | None = None,
        progress: bool = False,
    ) -> Iterator[list[GeneratedMask]]:
        """Find the masks of many photos; yields those of each, in order.

        photos: as of `generate`, taken as they are needed. batch_size: how many of them, or of their crops,
        are encoded together, and clicked on together with points_per_batch clicks on a device; raised to a
        multiple of the model's devices (`Sam2Model.on_devices`), and by default one for each. readers:
        threads that open and resize photos, by default one for each core. progress shows a bar of the photos
        at work. Raises ValueError for a photo that cannot be read.
        """
        progress = read_flag("progress", progress)
        size = read_batch_size(batch_size, self.model.device_count)
        return self._find_each(photos, size, min(read_readers(readers), size), progress)

    def find_in_steps(self, photo: Any) -> Iterator[float | list[GeneratedMask]]:
        """As `find`, for whoever shares the device: yields the part that is done, above 0 and up to 1, after
        each run of the decoder, and the masks in the end.
        """
        done = 0
        for run in self._runs([photo], read_batch_size(None, self.model.device_count), 1):
            done += run.clicks
            yield done / self._clicks_on(run.searches)
            yield from run.found

    def _find_each(
        self, photos: Iterable[Any], size: int, readers: int, progress: bool
    ) -> Iterator[list[GeneratedMask]]:
        bar = None
        try:
            for run in self._runs(photos, size, readers):
                if bar is None or run.is_first:
                    if bar is not None:
                        bar.close()
                    total = self._clicks_on(run.searches)
                    bar = progress_bar(total=total, desc="masks", unit="point", leave=None, show=progress)
                bar.update(run.clicks)
                bar.set_postfix(candidates=run.candidates, refresh=False)
                yield from run.found
        finally:
            if bar is not None:
                bar.close()

    def _runs(self, photos: Iterable[Any], size: int, readers: int) -> Iterator[_Run]:
        open_photo = self.reading.times(self.processor.image_processor.read_8_bits)
        read = read_ahead(open_photo, photos, threads=readers)
        pixels = self.reading.times(self._pixels)
        batches = batches_of_views(map(self.search, read), size, pixels, readers)
        with closing(read), closing(batches):
            for views, points, decoded, is_last in _one_late(self._decoded(batches)):
                searches = list({view.search: None for view in views})
                is_first = not any(search.is_begun for search in searches)
                self._judge(views, points, decoded)
                # Good enough so far; of those that overlap, one will be chosen.
                candidates = [*(search.chosen for search in searches), *(view.found for view in views)]
                yield _Run(
                    searches,
                    is_first,
                    len(points) * len(views),
                    sum(map(len, candidates)),
                    self._finish(views) if is_last else iter(()),
                )

    def _clicks_on(self, searches: Iterable[Search]) -> int:
        """Clicks on photos and their crops, in all."""
        return sum(
            len(boxes) * len(self.options.grid(layer))
            for search in searches
            for layer, boxes in enumerate(search.layers)
        )

    def search(self, picture: np.ndarray) -> Search:
        """The crops of a picture, uint8 [H, W, 3]. Raises ValueError if it is too small for the layers."""
        layers = range(self.options.crop_n_layers + 1)
        ratio = self.options.crop_overlap_ratio
        return Search(picture, [layer_boxes(picture.shape[:2], layer, ratio) for layer in layers])

    def _pixels(self, view: View) -> np.ndarray:
        """A view as the network takes it, [H, W, 3]."""
        x0, y0, x1, y1 = view.box
        cut = view.search.picture[y0:y1, x0:x1]
        inputs = self.processor(images=in_float(cut) if self.options.resize_in_float else cut)
        pixels: np.ndarray = inputs["pixel_values"][0]
        return pixels

    def _decoded(
        self, batches: Iterable[tuple[list[View], np.ndarray]]
    ) -> Iterator[tuple[list[View], np.ndarray, tuple[Any, Any], bool]]:
        """Views, points [N, 2] clicked on in each, masks and scores of these, whether they are the last."""
        for views, pixels in batches:
            embeddings = self.model.get_image_embeddings(pixels)
            scale = np.array(pixels.shape[2:0:-1])
            most = clicks_of_each(self.options.points_per_batch, len(pixels), self.model.device_count)
            clicks = batches_of_clicks(self.options.grid(views[0].layer), most)
            for i, points in enumerate(clicks, 1):
                decoded = decode_clicks(self.model, embeddings, points * scale, **self.options.of_decoder())
                yield views, points, decoded, i == len(clicks)

    def _judge(self, views: list[View], points: np.ndarray, decoded: tuple[Any, Any]) -> None:
        """Keep what is good enough of the masks of a run of the decoder."""
        options = self.options
        count = self.model.config.mask_decoder_config.num_multimask_outputs if options.multimask_output else 1
        masks, scores = (np.asarray(x) for x in decoded)
        for view, logits, predicted in zip(views, masks, scores, strict=False):  # the rest fills the batch up
            logits = logits.reshape(-1, count, *logits.shape[2:])[: len(points)]
            view.found += self._good(view, points, logits, predicted.reshape(-1, count)[: len(points)])
            view.search.is_begun = True

    def _good(
        self, view: View, points: np.ndarray, logits: np.ndarray, scores: np.ndarray
    ) -> list[Candidate]:
        """The masks of enough score and stability whose box the crop does not cut off.

        points [N, 2] in parts of the view, logits [N, M, h, w], scores [N, M].
        """
        options = self.options
        x0, y0, x1, y1 = view.box
        height, width = view.search.picture.shape[:2]
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
            if is_near_crop_edge(box, view.box, (0, 0, width, height)):
                continue
            x, y = points[i] * (x1 - x0, y1 - y0) + (x0, y0)
            # A copy, for otherwise the few good masks would keep all of a run in memory.
            found.append(
                Candidate(mask.copy(), float(scores[i, j]), (float(x), float(y)), stability, box, view.box)
            )
        return found

    def _finish(self, views: list[View]) -> Iterator[list[GeneratedMask]]:
        """Choose among what was found in views; yields the masks of the photos that are then done."""
        for view in views:
            search = view.search
            best = best_of_crop(view.found, self.options.box_nms_thresh)
            search.chosen += [self._draw(candidate, search.picture.shape[:2]) for candidate in best]
            view.found = []
            search.left -= 1
            if search.left == 0:
                chosen: list[GeneratedMask] = search.chosen
                if len(search.layers) > 1:
                    chosen = best_of_crops(chosen, self.options.crop_nms_thresh)
                yield self._clean(chosen) if self.options.min_mask_region_area > 0 else chosen

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


def _one_late(items: Iterable[Any]) -> Iterator[Any]:
    """The same, each when the next one is under way."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _floats(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return float(x), float(y), float(width), float(height)
