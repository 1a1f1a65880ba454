"""Meta's SAM2ImagePredictor: every cell of its notebook, array forms, errors, the network's numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from PIL import Image
from scipy import ndimage
from small_models import model_of, random_tensors, smallest_config
from tolerances import assert_close

from sam2_jax import Sam2Model, Sam2Processor
from sam2_jax.checkpoint import names
from sam2_jax.meta import SAM2ImagePredictor

SIZE = HEIGHT, WIDTH = 90, 140


def photo(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colours."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return (128 + 90 * smooth / np.abs(smooth).max()).astype(np.uint8)


@pytest.fixture(scope="module")
def discs() -> Sam2Model:
    """Masks without a network: of shape and kind as the network's."""
    config = smallest_config(128)
    return Discs(config, names.unflatten(names.to_flax(random_tensors(config))))


@pytest.fixture
def predictor(discs: Sam2Model) -> SAM2ImagePredictor:
    made = SAM2ImagePredictor(discs)
    made.set_image(photo())
    return made


# --- the notebook, cell by cell: notebooks/image_predictor_example.ipynb


def test_one_point_gives_three_masks_to_sort(predictor: SAM2ImagePredictor) -> None:
    input_point, input_label = np.array([[50, 37]]), np.array([1])
    masks, scores, logits = predictor.predict(
        point_coords=input_point, point_labels=input_label, multimask_output=True
    )
    sorted_ind = np.argsort(scores)[::-1]
    masks, scores, logits = masks[sorted_ind], scores[sorted_ind], logits[sorted_ind]
    assert masks.shape == (3, *SIZE)  # (number_of_masks) x H x W
    assert scores.shape == (3,)
    assert logits.shape == (3, 32, 32)
    assert scores[0] >= scores[1] >= scores[2]
    assert all(array.dtype == np.float32 for array in (masks, scores, logits))
    assert set(np.unique(masks)) == {0, 1}


def test_more_points_and_the_best_mask_before(predictor: SAM2ImagePredictor) -> None:
    _, scores, logits = predictor.predict(np.array([[50, 37]]), np.array([1]))
    mask_input = logits[np.argmax(scores), :, :]
    for labels in ([1, 1], [1, 0]):
        masks, scores, _ = predictor.predict(
            point_coords=np.array([[50, 37], [112, 62]]),
            point_labels=np.array(labels),
            mask_input=mask_input[None, :, :],
            multimask_output=False,
        )
        assert masks.shape == (1, *SIZE)
        assert scores.shape == (1,)


def test_a_box_as_a_row_and_with_a_point(predictor: SAM2ImagePredictor) -> None:
    input_box = np.array([42, 30, 70, 87])
    rows = predictor.predict(
        point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
    )
    assert rows[0].shape == (1, *SIZE)
    for one, other in zip(rows, predictor.predict(box=input_box, multimask_output=False), strict=True):
        np.testing.assert_array_equal(one, other)
    masks, _, _ = predictor.predict(
        point_coords=np.array([[57, 75]]), point_labels=np.array([0]), box=input_box, multimask_output=False
    )
    assert masks.shape == (1, *SIZE)


def test_boxes_of_several_objects(predictor: SAM2ImagePredictor) -> None:
    input_boxes = np.array([[7, 27, 130, 85], [42, 60, 70, 87], [90, 55, 135, 80], [85, 67, 120, 75]])
    masks, scores, logits = predictor.predict(
        point_coords=None, point_labels=None, box=input_boxes, multimask_output=False
    )
    assert masks.shape == (4, 1, *SIZE)  # (batch_size) x (num_predicted_masks_per_input) x H x W
    assert scores.shape == (4, 1)
    assert logits.shape == (4, 1, 32, 32)
    for i, box in enumerate(input_boxes):
        alone = predictor.predict(box=box, multimask_output=False)
        for all_of_them, one in zip((masks, scores, logits), alone, strict=True):
            np.testing.assert_array_equal(all_of_them[i], one)
    assert [mask.squeeze(0).shape for mask in masks] == [SIZE] * 4


def test_boxes_on_several_images(discs: Sam2Model) -> None:
    images = [photo(0), photo(1, 60, 80)]
    boxes = [np.array([[7, 27, 130, 85], [42, 60, 70, 87]]), np.array([[5, 7, 52, 35], [35, 19, 45, 35]])]
    predictor = SAM2ImagePredictor(discs)
    predictor.set_image_batch(images)
    masks_batch, scores_batch, logits_batch = predictor.predict_batch(
        None, None, box_batch=boxes, multimask_output=False
    )
    assert [masks.shape for masks in masks_batch] == [(2, 1, 90, 140), (2, 1, 60, 80)]
    for image, box, masks, scores, logits in zip(
        images, boxes, masks_batch, scores_batch, logits_batch, strict=True
    ):
        alone = SAM2ImagePredictor(discs)
        alone.set_image(image)
        for ours, expected in zip(
            (masks, scores, logits), alone.predict(box=box, multimask_output=False), strict=True
        ):
            np.testing.assert_array_equal(ours, expected)


def test_points_on_several_images_and_the_best_mask_of_each_object(discs: Sam2Model) -> None:
    points = [np.array([[[50, 37]], [[65, 75]]]), np.array([[[40, 30]], [[63, 30]]])]  # Bx1x2
    labels = [np.array([[1], [1]]), np.array([[1], [1]])]
    predictor = SAM2ImagePredictor(discs)
    predictor.set_image_batch([photo(0), photo(1)])
    masks_batch, scores_batch, _ = predictor.predict_batch(
        points, labels, box_batch=None, multimask_output=True
    )
    best_masks = [
        masks[range(len(masks)), np.argmax(scores, axis=-1)]
        for masks, scores in zip(masks_batch, scores_batch, strict=True)
    ]
    assert [masks.shape for masks in best_masks] == [(2, *SIZE)] * 2
    one_each = predictor.predict_batch([p[:1] for p in points], [k[:1] for k in labels])
    assert one_each[0][0].shape == (3, *SIZE)  # of one object, squeezed
    np.testing.assert_array_equal(one_each[0][1], masks_batch[1][0])


# --- arguments


def test_logits_are_the_masks_before_the_threshold(discs: Sam2Model) -> None:
    made = SAM2ImagePredictor(discs, mask_threshold=0.5)
    made.set_image(photo())
    logits, *_ = made.predict([[50, 37]], [1], return_logits=True)
    masks, *_ = made.predict([[50, 37]], [1])
    assert len(np.unique(logits)) > 100
    np.testing.assert_array_equal(masks, logits > 0.5)


def test_coordinates_in_parts_of_the_photo(predictor: SAM2ImagePredictor) -> None:
    expected = predictor.predict([[35, 45]], [1])
    found = predictor.predict([[0.25, 0.5]], [1], normalize_coords=False)
    boxes = (
        predictor.predict(box=[14, 9, 70, 90]),
        predictor.predict(box=[0.1, 0.1, 0.5, 1], normalize_coords=False),
    )
    for one, other in (*zip(expected, found, strict=True), *zip(*boxes, strict=True)):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_small_regions_change_sides(discs: Sam2Model) -> None:
    areas = {"plain": (0.0, 0.0), "none": (None, None), "filled": (2000, 0), "removed": (0, 2000)}
    results = {}
    for name, (holes, sprinkles) in areas.items():
        made = SAM2ImagePredictor(discs, 0.0, holes, sprinkles)
        made.set_image(photo())
        results[name], _, logits = made.predict([[50, 37]], [1])
        assert len(np.unique(logits)) > 100  # the low-resolution logits are as they were
    np.testing.assert_array_equal(results["plain"], results["none"])
    assert 0 < results["plain"].mean() < 1
    assert (results["filled"].min(), results["removed"].max()) == (1, 0)


def test_low_resolution_logits_are_clamped(discs: Sam2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SAM2ImagePredictor(discs)
    made.set_image(photo())
    _, _, logits = made.predict([[1, 1]], [1])
    assert (logits.min(), logits.max()) >= (-32, logits.max())
    full, *_ = made.predict([[1, 1]], [1], return_logits=True)
    assert full.min() < -32 == logits.min()


def test_lists_and_pictures_do_as_well(
    predictor: SAM2ImagePredictor, discs: Sam2Model, tmp_path: Path
) -> None:
    expected = predictor.predict(np.array([[50, 37]]), np.array([1]))
    Image.fromarray(photo()).save(tmp_path / "a.png")
    for image in (Image.fromarray(photo()), tmp_path / "a.png"):
        made = SAM2ImagePredictor(predictor.model)
        made.set_image(image)
        for one, other in zip(made.predict([[50, 37]], [True]), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_results_may_be_written_to(predictor: SAM2ImagePredictor) -> None:
    for array in predictor.predict([[50, 37]], [1]):
        array[...] = 0


# --- state


def test_nothing_is_predicted_before_a_photo_is_set(discs: Sam2Model) -> None:
    made = SAM2ImagePredictor(discs)
    for ask in (made.predict, made.get_image_embedding):
        with pytest.raises(RuntimeError, match="an image must be set with set_image before"):
            ask()
    with pytest.raises(RuntimeError, match="several images must be set with set_image_batch"):
        made.predict_batch()
    made.set_image(photo())
    with pytest.raises(RuntimeError, match="several images must be set with set_image_batch"):
        made.predict_batch()
    made.set_image_batch([photo()])
    with pytest.raises(RuntimeError, match="several images are set: predict_batch predicts on them"):
        made.predict([[1, 1]], [1])
    made.reset_predictor()
    with pytest.raises(RuntimeError, match="an image must be set"):
        made.predict([[1, 1]], [1])
    assert made._features is None


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"point_coords": [[1, 1]]}, "point_labels must be given with point_coords"),
        ({"point_labels": [1]}, "point_labels are given without point_coords"),
        (
            {"point_coords": [1, 1], "point_labels": [1]},
            r"points \[n, 2\].*got shape \(2,\)",
        ),
        ({"point_coords": "here", "point_labels": [1]}, "point_coords must be points .* got 'here'"),
        ({"point_coords": [[1, float("nan")]], "point_labels": [1]}, "point_coords must be finite numbers"),
        ({"point_coords": [[1, 1]], "point_labels": [1, 1]}, r"one for each point, \(1,\); got shape \(2,\)"),
        ({"point_coords": [[1, 1]], "point_labels": [7]}, "point_labels must be 1 .* or 0 .*; got"),
        (
            {"point_coords": [[141, 1]], "point_labels": [1]},
            r"which is 140 x 90 pixels; got \(141",
        ),
        (
            {"point_coords": [[5, 5]], "point_labels": [1], "normalize_coords": False},
            "are 1 with normal",
        ),
        ({"box": [1, 2, 3]}, r"box must be \[4\], \[1, 4\] or \[objects, 4\]; got shape \(3,\)"),
        ({"box": [[[1, 2], [3, 4]]]}, r"box must be \[4\]"),
        ({"box": [30, 20, 10, 40]}, "x0 < x1 and y0 < y1; got"),
        ({"box": [200, 20, 300, 40]}, "box must cover a part of the photo, which is 140 x 90 pixels"),
        ({"box": [0, 0, 1e9, 40]}, "box must cover a part of the photo"),
        (
            {"box": [[1, 2, 3, 4]] * 2, "point_coords": [[1, 1]], "point_labels": [1]},
            "got 1 and 2",
        ),
        ({"mask_input": np.zeros((3, 32, 32))}, r"mask_input must be logits \[1, h, w\].*choose one of"),
        ({"mask_input": np.full((1, 32, 32), np.nan)}, "mask_input must be finite numbers"),
        ({"mask_input": np.eye(32)[None]}, r"20.0 \* mask - 10 of a binary mask; got 0 and 1"),
        ({"mask_input": np.zeros((32, 32))}, r"mask_input must be logits \[1, h, w\]"),
        ({"mask_input": np.zeros((1, 32, 32), bool)}, r"mask_input must be logits \[1, h, w\]"),
        ({"multimask_output": None}, "multimask_output must be True or False; got None"),
        ({"return_logits": "yes"}, "return_logits must be True or False; got 'yes'"),
        ({"normalize_coords": 2}, "normalize_coords must be True or False; got 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    predictor: SAM2ImagePredictor, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**prompts)


def test_a_batch_names_the_image_at_fault(discs: Sam2Model) -> None:
    made = SAM2ImagePredictor(discs)
    made.set_image_batch([photo(), photo(1)])
    with pytest.raises(ValueError, match="box_batch must have an entry for each of 2 images; got"):
        made.predict_batch(box_batch=[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"image 1: box must be \[4\]"):
        made.predict_batch(box_batch=[[1, 2, 3, 4], [1]])
    for images in ([], photo(), None, "a.jpg"):
        with pytest.raises(ValueError, match="image_list must be a list of photos; got"):
            made.set_image_batch(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_threshold": None}, "mask_threshold must be a number"),
        ({"max_hole_area": -1}, "max_hole_area must be a number of at least 0; got -1"),
        ({"max_sprinkle_area": "all"}, "max_sprinkle_area must be a number"),
        ({"sam_model": "facebook/sam2-hiera-tiny"}, "sam_model must be a Sam2Model; got"),
    ],
)
def test_wrong_options_are_refused(discs: Sam2Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAM2ImagePredictor(**{"sam_model": discs} | options)


# --- the network


@pytest.mark.usefixtures("quick_compilation")
def test_numbers_are_the_model_s_own() -> None:
    model = model_of(smallest_config(64))
    made = SAM2ImagePredictor(model)
    made.set_image(photo())
    pixels = model.processor(images=photo().astype(np.float32))["pixel_values"]
    embeddings = model.get_image_embeddings(pixels)
    scale = np.array([64 / WIDTH, 64 / HEIGHT])
    points, boxes = np.array([[[50.0, 37.0]]]), np.array([[42.0, 30.0, 70.0, 87.0]])
    for prompts, expected_prompts, multimask in (
        (
            {"point_coords": points[0], "point_labels": [1], "box": boxes[0]},
            {"input_points": [points * scale], "input_boxes": [boxes * np.tile(scale, 2)]},
            True,
        ),
        (
            {"box": np.repeat(boxes, 2, 0)},
            {"input_boxes": np.repeat(boxes * np.tile(scale, 2), 2, 0)[None]},
            False,
        ),
    ):
        masks, scores, logits = made.predict(**prompts, multimask_output=multimask)
        outputs = model(**expected_prompts, image_embeddings=embeddings, multimask_output=multimask)
        at = 0 if multimask else slice(None)
        np.testing.assert_array_equal(scores, outputs.iou_scores[0][at])
        np.testing.assert_array_equal(logits, np.clip(outputs.pred_masks[0][at], -32, 32))
        expected = model.processor.post_process_masks(outputs.pred_masks, [SIZE])[0][at]
        np.testing.assert_array_equal(masks, expected)
    shapes = [level.shape for level in (made.get_image_embedding(), *made._features["high_res_feats"])]
    assert shapes == [(1, 16, 4, 4), (1, 2, 16, 16), (1, 4, 8, 8)]
    # The cell that looks into the predictor.
    assert made._features["image_embed"].shape == (1, 16, 4, 4)
    assert made._features["image_embed"][-1].shape == (16, 4, 4)
    np.testing.assert_array_equal(made.get_image_embedding(), np.moveaxis(embeddings[2], -1, 1))
    assert made.device in model.params["no_memory_embedding"].devices()


@pytest.mark.slow
@pytest.mark.usefixtures("pixels_encoded_once")
def test_a_real_photo_gives_the_reference_s_masks(reference_dir: Path, tiny_model: Sam2Model) -> None:
    """The reference's photo was resized in 8 bits, as Meta's is not, so its embeddings are set by hand."""
    cases = json.loads((reference_dir / "reference" / "cases.json").read_text())
    truck = reference_dir / "images" / "truck.jpg"
    predictor = SAM2ImagePredictor(tiny_model)
    predictor._orig_hw, predictor._is_image_set = [(1200, 1800)], True
    pixels = Sam2Processor.from_pretrained(reference_dir / "weights" / "sam2-hiera-tiny-image")(images=truck)
    predictor._embeddings = [tiny_model.get_image_embeddings(pixels["pixel_values"])]
    of_truck = [name for name, case in cases.items() if case["images"] == ["truck"]]
    assert len(of_truck) == 8
    for name in of_truck:
        case, expected = cases[name], np.load(reference_dir / "reference" / f"{name}.npz")
        points, labels, boxes = (
            case.get(f"input_{kind}", [None])[0] for kind in ("points", "labels", "boxes")
        )
        mask = None
        if source := case.get("refine_from"):
            before = np.load(reference_dir / "reference" / f"{source}.npz")
            mask = before["pred_masks"][0, :, np.argmax(before["iou_scores"])]
        multimask = case["multimask_output"]
        masks, scores, logits = predictor.predict(points, labels, boxes, mask, multimask)
        assert_close("scores", "real weights, IoU", scores, expected["iou_scores"].reshape(scores.shape))
        stored = expected["pred_masks"].reshape(logits.shape).clip(-32, 32)
        assert_close("masks", "real weights, logits", logits, stored)
        stored = np.unpackbits(expected["mask_bits_0"], axis=-1, count=masks.shape[-1]).astype(bool)
        stored, inside = stored.reshape(masks.shape), masks > 0
        common, union = (x.sum(axis=(-2, -1)) for x in (stored & inside, stored | inside))
        assert (common >= 0.999 * union).all(), name
