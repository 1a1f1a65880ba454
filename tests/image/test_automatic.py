"""Automatic masks: options, crops, every kind of photo, shortcuts that change nothing, and Meta's result."""

import json
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from scipy import ndimage
from small_models import model_of_its_own, random_tensors, smallest_config
from small_video import small_video_model

from sam2_jax import AutomaticMaskGenerator, Sam2Model, Sam2VideoModel, pipeline
from sam2_jax.checkpoint import names
from sam2_jax.image.generation_options import OPTION_NAMES, MaskGenerationOptions
from sam2_jax.model import mask_decoder
from sam2_jax.model.mask_decoder import NO_MASK
from sam2_jax.processing.boxes import non_maximum_suppression
from sam2_jax.processing.candidates import Candidate
from sam2_jax.processing.masks import stability_score, upscale
from sam2_jax.processing.rle import decode_rle

# Some masks of the network below pass these, and some fail each of them.
LOOSE: dict[str, Any] = {"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    config = smallest_config(128)
    return Discs(config, names.unflatten(names.to_flax(random_tensors(config))))


def photo(height: int = 90, width: int = 140, seed: int = 0) -> np.ndarray:
    """Smooth colours."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return (128 + 90 * smooth / np.abs(smooth).max()).astype(np.uint8)


def same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a.pop("segmentation"), b.pop("segmentation")) and a == b
        for a, b in zip([dict(x) for x in left], [dict(x) for x in right], strict=True)
    )


# --- the shortcuts


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation_to_the_bit")
@pytest.mark.parametrize("one_by_one", [True, False])
def test_masks_of_low_score_are_left_out_and_nothing_else_changes(
    one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if one_by_one:
        monkeypatch.setattr(mask_decoder, "_LARGE_MAP", 1)
    model = model_of_its_own(128)
    pixels = np.random.default_rng(0).standard_normal((1, 128, 128, 3)).astype(np.float32)
    points = np.random.default_rng(1).uniform(0, 128, (1, 32, 1, 2)).astype(np.float32)
    for multimask in (True, False):
        whole = model(pixels, points, multimask_output=multimask)
        best = np.asarray(whole.iou_scores).max(axis=-1)[0]
        least = float(np.median(best))
        some = model(pixels, points, multimask_output=multimask, min_score=least)
        left_out = (np.asarray(some.pred_masks) == NO_MASK).all(axis=(2, 3, 4))[0]
        assert not left_out[best > least].any()
        np.testing.assert_array_equal(some.iou_scores[0][~left_out], whole.iou_scores[0][~left_out])
        if multimask:  # for a single mask all four scores count, of which one is returned
            np.testing.assert_array_equal(some.iou_scores, whole.iou_scores)
            np.testing.assert_array_equal(left_out, best <= least)
        np.testing.assert_array_equal(some.pred_masks[0][~left_out], whole.pred_masks[0][~left_out])


def plainly(model: Sam2Model, picture: np.ndarray, options: MaskGenerationOptions) -> list[tuple]:
    """The same by the book: all masks, all at full size, filtered one step after the other."""
    height, width = picture.shape[:2]
    inputs = model.processor(images=picture.astype(np.float32))
    grid = options.grid(0)
    points = (grid * 128).astype(np.float32)[None, :, None]
    outputs = model(inputs["pixel_values"], input_points=points, multimask_output=options.multimask_output)
    scores = np.asarray(outputs.iou_scores)[0].ravel()
    masks = np.asarray(outputs.pred_masks)[0]
    full = upscale(masks.reshape(-1, *masks.shape[2:]), height, width)
    clicks = np.repeat(grid * (width, height), masks.shape[1], axis=0)
    stability = stability_score(full, options.mask_threshold, options.stability_score_offset)
    good = (scores > options.pred_iou_thresh) & (stability >= options.stability_score_thresh)
    inside = full > options.mask_threshold
    boxes = []
    for mask in inside:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max(), y.max()] if len(x) else [0] * 4)
    index = np.flatnonzero(good)
    kept = index[non_maximum_suppression(np.array(boxes)[index], scores[index], options.box_nms_thresh)]
    return [(inside[i], scores[i], stability[i], clicks[i]) for i in kept]


@pytest.mark.parametrize("multimask_output", [True, False])
def test_it_equals_filtering_all_masks_at_full_size(model: Sam2Model, multimask_output: bool) -> None:
    options = LOOSE | {"stability_score_thresh": 0.4, "multimask_output": multimask_output}
    generator = AutomaticMaskGenerator(model, **options)
    found = generator.find(photo())
    expected = plainly(model, photo(), generator.options)
    assert len(found) == len(expected) > 2
    for ours, (mask, score, stability, click) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.mask, mask)
        assert (ours.predicted_iou, ours.stability_score) == (score, stability)
        np.testing.assert_allclose(ours.point, click)


def test_batches_of_any_size_give_the_same(model: Sam2Model) -> None:
    whole = AutomaticMaskGenerator(model, points_per_batch=None, **LOOSE).generate(photo())
    parts = AutomaticMaskGenerator(model, points_per_batch=5, **LOOSE).generate(photo())
    assert len(whole) == len(parts) > 2
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a["segmentation"], b["segmentation"])
        assert a["predicted_iou"] == pytest.approx(b["predicted_iou"], rel=1e-5)


def test_photos_of_other_sizes_compile_nothing_again(traces: list[str]) -> None:
    generator = AutomaticMaskGenerator(model_of_its_own(128), **LOOSE)
    generator.generate(photo())
    traces.clear()
    for size in ((140, 90), (64, 64), (33, 250)):
        generator.generate(photo(*size))
    assert traces == []


# --- kinds of photos


@pytest.mark.parametrize("size", [(90, 140), (140, 90), (64, 64), (3, 50), (1, 1)])
def test_the_whole_photo_is_clicked_on(model: Sam2Model, size: tuple[int, int]) -> None:
    """Defect 9.A 1: in the reference the grid leaves out part of every photo that is not square."""
    options = {**LOOSE, "pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    found = AutomaticMaskGenerator(model, **options).find(photo(*size))
    clicks = {each.point for each in found}
    columns, rows = ({round(c[i] / size[1 - i] * 8) for c in clicks} for i in (0, 1))
    assert columns == rows == {1, 3, 5, 7}
    assert all(each.mask.shape == size for each in found)


def test_a_photo_with_nothing_in_it_has_no_masks(model: Sam2Model) -> None:
    strict = {**LOOSE, "pred_iou_thresh": 0.999}
    generator = AutomaticMaskGenerator(model, **strict)
    assert generator.generate(np.full((50, 70, 3), 128, np.uint8)) == []
    result = pipeline("mask-generation", model, **strict)(
        np.full((50, 70, 3), 128, np.uint8), output_rle_mask=True, output_bboxes_mask=True
    )
    assert (result["masks"], result["rle_mask"]) == ([], [])
    assert (result["scores"].shape, result["bounding_boxes"].shape) == ((0,), (0, 4))


@pytest.mark.parametrize("value", [0, 1])
def test_a_black_photo_is_a_photo_like_any(model: Sam2Model, value: int) -> None:
    """Without a warning that its values might be parts of 1."""
    black = np.full((50, 70, 3), value, np.uint8)
    assert isinstance(AutomaticMaskGenerator(model, **LOOSE).generate(black), list)


@pytest.mark.slow
def test_a_very_large_photo_takes_no_more_memory_than_its_masks(model: Sam2Model) -> None:
    large = np.kron(photo(400, 600), np.ones((10, 10, 1), np.uint8))
    found = AutomaticMaskGenerator(model, **(LOOSE | {"points_per_side": 2})).find(large)
    assert found
    assert found[0].mask.shape == (4000, 6000)


# --- crops, refinement, cleaning


@pytest.mark.parametrize("layers", [1, 2])
def test_crops_are_searched_too_with_fewer_points(model: Sam2Model, layers: int) -> None:
    options = LOOSE | {"crop_n_layers": layers, "crop_n_points_downscale_factor": 2}
    found = AutomaticMaskGenerator(model, **options).find(photo(200, 300))
    crops = {each.crop_box for each in found}
    assert len(crops) > 1
    for each in found:
        x, y, width, height = (int(v) for v in each.crop_box)
        outside = each.mask.copy()
        outside[y : y + height, x : x + width] = False
        assert not outside.any()
        assert x <= each.point[0] <= x + width


def test_a_mask_at_the_edge_of_a_crop_within_the_photo_is_left_out(model: Sam2Model) -> None:
    options = LOOSE | {"crop_n_layers": 1, "pred_iou_thresh": 0, "stability_score_thresh": 0}
    for each in AutomaticMaskGenerator(model, **options).find(photo(200, 300)):
        x, _, width, _ = each.crop_box
        if x > 0:
            assert each.bbox[0] - x > 20
        if x + width < 300:
            assert x + width - (each.bbox[0] + each.bbox[2]) > 20


def test_grids_of_one_s_own(model: Sam2Model) -> None:
    grid = np.array([[0.25, 0.5], [0.75, 0.5]])
    options = {name: value for name, value in LOOSE.items() if name != "points_per_side"}
    options |= {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    found = AutomaticMaskGenerator(model, point_grids=[grid], **options).find(photo())
    assert {each.point for each in found} == {(35.0, 45.0), (105.0, 45.0)}
    with pytest.raises(ValueError, match="point_grids must be a list of 2, one for each layer"):
        AutomaticMaskGenerator(model, point_grids=[grid], crop_n_layers=1)
    with pytest.raises(ValueError, match=r"point_grids\[0\] must be within 0 and 1"):
        AutomaticMaskGenerator(model, point_grids=[grid * 2])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_refinement_prompts_with_each_mask() -> None:
    model = model_of_its_own(128)
    options = LOOSE | {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    generator = AutomaticMaskGenerator(model, use_m2m=True, **options)
    picture = photo()
    found = {(each.point, each.predicted_iou) for each in generator.find(picture)}
    inputs = model.processor(images=picture.astype(np.float32))
    grid = generator.options.grid(0)
    embeddings = model.get_image_embeddings(inputs["pixel_values"])
    for click in grid[:3]:
        point = (click * 128).astype(np.float32).reshape(1, 1, 1, 2)
        first = model(input_points=point, image_embeddings=embeddings)
        for j in range(3):
            mask = np.clip(np.asarray(first.pred_masks)[:, :, j], -32, 32)
            refined = model(
                input_points=point, input_masks=mask, image_embeddings=embeddings, multimask_output=False
            )
            score = float(refined.iou_scores[0, 0, 0])
            at = tuple(click * (140, 90))
            assert any(p == pytest.approx(at) and s == pytest.approx(score, rel=1e-4) for p, s in found)


def test_small_regions_are_removed(model: Sam2Model) -> None:
    options = LOOSE | {"pred_iou_thresh": 0, "stability_score_thresh": 0}
    picture = photo(200, 300)
    cleaned = AutomaticMaskGenerator(model, min_mask_region_area=150, **options).find(picture)
    untouched = AutomaticMaskGenerator(model, **options).find(picture)

    def smallest(masks: list[Any]) -> int:
        counts = []
        for each in masks:
            for side in (each.mask, ~each.mask):
                labels, _ = ndimage.label(side, np.ones((3, 3)))
                counts += np.bincount(labels.ravel())[1:].tolist()
        return min(counts)

    assert smallest(untouched) < 150 <= smallest(cleaned)


# --- options and outputs


def test_records_are_meta_s(model: Sam2Model) -> None:
    picture = photo()
    modes = ("binary_mask", "uncompressed_rle", "coco_rle")
    plain, lists, strings = (
        AutomaticMaskGenerator(model, output_mode=mode, **LOOSE).generate(picture) for mode in modes
    )
    assert list(plain[0]) == [
        *("segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"),
    ]
    for a, b, c in zip(plain, lists, strings, strict=True):
        mask = a["segmentation"]
        np.testing.assert_array_equal(decode_rle(b["segmentation"]), mask)
        np.testing.assert_array_equal(decode_rle(c["segmentation"]), mask)
        assert isinstance(c["segmentation"]["counts"], str)
        y, x = np.nonzero(mask)
        assert a["bbox"] == [x.min(), y.min(), x.max() - x.min(), y.max() - y.min()]
        assert (a["area"], a["crop_box"]) == (mask.sum(), [0, 0, 140, 90])
    json.dumps(lists + strings)
    scores = [record["predicted_iou"] for record in plain]
    assert scores == sorted(scores, reverse=True)


def test_presets(model: Sam2Model) -> None:
    assert AutomaticMaskGenerator(model).options.pred_iou_thresh == 0.8
    assert AutomaticMaskGenerator(model, preset="transformers").options.pred_iou_thresh == 0.88
    assert AutomaticMaskGenerator(model, "transformers", pred_iou_thresh=0.5).options.pred_iou_thresh == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "preset must be one of meta, transformers; got 'best'"),
        ({"preset": ["meta"]}, "preset must be one of meta, transformers; got"),
        ({"output_mode": "png"}, "output_mode must be one of binary_mask"),
        ({"output_mode": None}, "output_mode must be one of binary_mask"),
        ({"points_per_sid": 3}, "unknown option 'points_per_sid' of .* did you mean points_per_side?"),
        (
            {"xyz": 3},
            "unknown option 'xyz' of automatic mask generation; there are points_per_side, .*in_float",
        ),
        ({"points_per_side": 0}, "points_per_side must be a whole number from 1 to 1024; got 0"),
        ({"points_per_side": 10**30}, "points_per_side must be a whole number from 1 to 1024; got 1000"),
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids must be given"),
        ({"points_per_side": 4, "point_grids": [[(0, 0)]]}, "exactly one of points_per_side and point_grids"),
        ({"point_grids": 5}, "point_grids must be a list of 1, one for each layer of crops; got 5"),
        ({"point_grids": [["a"]]}, r"point_grids\[0\] must be points \[N, 2\]; got"),
        ({"point_grids": [[(float("nan"), 0)]]}, r"point_grids\[0\] must be finite numbers"),
        ({"point_grids": [[(2, 0)]]}, r"point_grids\[0\] must be within 0 and 1"),
        ({"points_per_batch": 2.5}, "points_per_batch must be a whole number of at least 1; got 2.5"),
        ({"crop_n_layers": 9}, "crop_n_layers must be a whole number from 0 to 8; got 9"),
        (
            {"crop_overlap_ratio": 1},
            "crop_overlap_ratio must be a number of at least 0 and less than 1; got 1",
        ),
        (
            {"crop_n_points_downscale_factor": 0.5},
            "crop_n_points_downscale_factor must be a number from 1 to",
        ),
        ({"use_m2m": 1}, "use_m2m must be True or False; got 1"),
        ({"min_mask_region_area": -1}, "min_mask_region_area must be a number of at least 0; got -1"),
        ({"pred_iou_thresh": "high"}, "pred_iou_thresh must be a number of at most 1; got 'high'"),
        ({"pred_iou_thresh": 80}, "pred_iou_thresh must be a number of at most 1; got 80"),
        ({"stability_score_thresh": 2}, "stability_score_thresh must be a number of at most 1; got 2"),
        ({"stability_score_thresh": True}, "stability_score_thresh must be a number"),
        ({"box_nms_thresh": 1.5}, "box_nms_thresh must be a number from 0 to 1; got 1.5"),
        ({"crop_nms_thresh": -0.1}, "crop_nms_thresh must be a number from 0 to 1; got -0.1"),
        ({"mask_threshold": float("inf")}, "mask_threshold must be a number from -10000 to 10000; got inf"),
        ({"processor": "sam2"}, "processor must be a Sam2Processor or None; got 'sam2'"),
    ],
)
def test_what_cannot_be_meant_is_refused(model: Sam2Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutomaticMaskGenerator(model, **options)


# None has a meaning for these alone.
NONE_MEANS = {
    "points_per_batch": None,  # all points together
    "point_grids": None,  # points_per_side, Meta's default
    "max_hole_area": 0,  # transformers' default
    "max_sprinkle_area": 0,
}


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_none_is_the_default_or_refused_at_once(model: Sam2Model, name: str) -> None:
    if name in NONE_MEANS:
        generator = AutomaticMaskGenerator(model, **{name: None})
        assert getattr(generator.options, name) == NONE_MEANS[name]
        assert pipeline(model=model, **{name: None})
        return
    for make in (
        lambda: AutomaticMaskGenerator(model, **{name: None}),
        lambda: pipeline(model=model, **{name: None}),
    ):
        with pytest.raises(
            ValueError, match=f"{name} must not be None: leave it|exactly one of points_per_side"
        ):
            make()


@pytest.mark.parametrize("name", ["pred_iou_thresh", "box_nms_thresh", "crop_overlap_ratio"])
@pytest.mark.parametrize("value", [float("nan"), 10**400, np.float32("inf"), True, np.zeros(2), "0.5", []])
def test_what_is_no_number_is_refused(model: Sam2Model, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number"):
        AutomaticMaskGenerator(model, **{name: value})


def test_numbers_of_numpy_are_numbers(model: Sam2Model) -> None:
    options = AutomaticMaskGenerator(
        model, points_per_side=np.int64(4), pred_iou_thresh=np.float32(0.5)
    ).options
    assert (options.points_per_side, options.pred_iou_thresh) == (4, 0.5)
    assert (type(options.points_per_side), type(options.pred_iou_thresh)) == (int, float)


def test_a_model_is_a_model() -> None:
    with pytest.raises(
        ValueError, match="model must be a Sam2Model; got 'facebook.*from_pretrained loads one"
    ):
        AutomaticMaskGenerator("facebook/sam2.1-hiera-tiny")  # type: ignore[arg-type]


def test_a_model_for_clips_keeps_what_its_folder_brings_for_pictures(tmp_path: Path) -> None:
    model = small_video_model()
    model.save_pretrained(tmp_path / "given")
    (tmp_path / "given" / "mask_generation.json").write_text('{"pred_iou_thresh": 0.3}')
    trained = Sam2VideoModel.from_pretrained(tmp_path / "given").with_params(model.params)
    trained.save_pretrained(tmp_path / "again")
    assert Sam2Model.from_pretrained(tmp_path / "again").generation_options == {"pred_iou_thresh": 0.3}
    model.save_pretrained(tmp_path / "again")  # in place of a model that brought something
    assert Sam2Model.from_pretrained(tmp_path / "again").generation_options == {}


def test_a_model_brings_its_own_defaults(model: Sam2Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    brought = {"pred_iou_thresh": 0.3, "points_per_side": 8}
    (tmp_path / "mask_generation.json").write_text(json.dumps(brought))
    loaded = Sam2Model.from_pretrained(tmp_path)
    options = AutomaticMaskGenerator(loaded).options
    assert (options.pred_iou_thresh, options.points_per_side, options.box_nms_thresh) == (0.3, 8, 0.7)
    assert AutomaticMaskGenerator(loaded, pred_iou_thresh=0.5).options.pred_iou_thresh == 0.5
    assert AutomaticMaskGenerator(loaded, point_grids=[[(0.5, 0.5)]]).options.points_per_side is None
    assert AutomaticMaskGenerator(loaded, "meta").options == MaskGenerationOptions()
    resized = loaded.with_image_size(64)
    assert AutomaticMaskGenerator(resized).options.pred_iou_thresh == 0.3
    loaded.save_pretrained(tmp_path / "again")
    assert Sam2Model.from_pretrained(tmp_path / "again").generation_options == brought
    model.save_pretrained(tmp_path / "again")  # in place of a model that brought something
    assert Sam2Model.from_pretrained(tmp_path / "again").generation_options == {}
    (tmp_path / "mask_generation.json").write_text('{"pred_iou_tresh": 0.3}')
    with pytest.raises(ValueError, match="mask_generation.json: .* did you mean pred_iou_thresh?"):
        AutomaticMaskGenerator(Sam2Model.from_pretrained(tmp_path))
    (tmp_path / "mask_generation.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="mask_generation.json"):
        AutomaticMaskGenerator(Sam2Model.from_pretrained(tmp_path))


def test_chosen_masks_are_kept_as_run_lengths(model: Sam2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn, the 16 masks of a photo of 6 megapixels would take 96 MB."""
    drawn: list[weakref.ref[np.ndarray]] = []
    draw = Candidate.mask

    def draw_and_watch(self: Candidate, *size: Any) -> np.ndarray:
        assert not any(mask() is not None for mask in drawn)
        mask = draw(self, *size)
        drawn.append(weakref.ref(mask))
        return mask

    monkeypatch.setattr(Candidate, "mask", draw_and_watch)
    options = LOOSE | {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    records = AutomaticMaskGenerator(model, output_mode="coco_rle", **options).generate(photo())
    assert len(records) == len(drawn) >= 40
    assert not any(mask() is not None for mask in drawn)
    assert all(isinstance(record["segmentation"]["counts"], str) for record in records)


def test_the_bar_tells_candidates_and_is_for_people_only(
    model: Sam2Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    AutomaticMaskGenerator(model, **LOOSE).generate(photo(), progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    AutomaticMaskGenerator(model, **LOOSE).generate(photo(), progress=True)
    assert "candidates=" in capsys.readouterr().err


# --- real weights


@pytest.mark.slow
@pytest.mark.usefixtures("pixels_encoded_once")
def test_a_real_photo_gives_meta_s_masks(reference_dir: Path, tiny_model: Sam2Model) -> None:
    """All of Meta's defaults, 1024 clicks."""
    found = AutomaticMaskGenerator(tiny_model).generate(reference_dir / "images" / "truck.jpg")
    expected = json.loads((reference_dir / "reference" / "meta_amg_truck.json").read_text())
    assert len(found) == len(expected) == 37
    for ours, theirs in zip(found, expected, strict=True):
        mask = decode_rle(theirs["segmentation"])
        common = np.count_nonzero(mask & ours["segmentation"])
        assert common >= 0.999 * np.count_nonzero(mask | ours["segmentation"])
        assert ours["area"] == pytest.approx(theirs["area"], rel=1e-3)
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=1e-4)
        assert ours["stability_score"] == pytest.approx(theirs["stability_score"], abs=1e-3)
        assert ours["point_coords"] == theirs["point_coords"]
        assert ours["crop_box"] == theirs["crop_box"]
        np.testing.assert_allclose(ours["bbox"], theirs["bbox"], atol=1)


@pytest.mark.slow
@pytest.mark.usefixtures("pixels_encoded_once")
def test_masks_of_low_score_change_nothing_if_they_are_computed(
    reference_dir: Path, tiny_model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = AutomaticMaskGenerator(tiny_model, points_per_side=8)
    found = generator.generate(reference_dir / "images" / "truck.jpg")
    call = Sam2Model.__call__

    def compute_all(self: Sam2Model, *args: Any, min_score: float, **inputs: Any) -> Any:
        outputs = call(self, *args, **inputs)
        assert (np.asarray(outputs.pred_masks) != NO_MASK).any(axis=(2, 3, 4)).all()
        return outputs

    monkeypatch.setattr(Sam2Model, "__call__", compute_all)
    assert same(found, generator.generate(reference_dir / "images" / "truck.jpg"))
