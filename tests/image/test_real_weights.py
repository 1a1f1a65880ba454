"""Real SAM 2 weights on real photos: every stored case of the reference, from picture file to mask."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close

from sam2_jax import Sam2ImageSegmentationOutput, Sam2Model, Sam2Processor

CASES = [
    "truck_one_point",
    "truck_one_point_single",
    "truck_two_points",
    "truck_positive_negative",
    "truck_box",
    "truck_box_and_point",
    "truck_two_objects",
    "truck_refine",
    "batch_one_point_each",
    "batch_ragged_padded",
    "batch_boxes",
]
PROMPTS = ("input_points", "input_labels", "input_boxes")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pixels_encoded_once")]


class Runner:
    """Runs the stored cases; each set of photos is encoded once."""

    def __init__(self, reference: Path, model: Sam2Model, compatible: Sam2Model) -> None:
        self.reference = reference
        self.model, self.compatible = model, compatible
        self.processor = Sam2Processor.from_pretrained(reference / "weights" / "sam2-hiera-tiny-image")
        self.cases = json.loads((reference / "reference" / "cases.json").read_text())
        self.encode = cache(self._encode)

    def expected(self, name: str) -> Any:
        return np.load(self.reference / "reference" / f"{name}.npz")

    def _encode(self, photos: tuple[str, ...]) -> tuple[dict[str, np.ndarray], Any]:
        inputs = self.processor(images=[self.reference / "images" / f"{photo}.jpg" for photo in photos])
        return inputs, self.model.get_image_embeddings(inputs["pixel_values"])

    def inputs(self, name: str) -> dict[str, Any]:
        case = self.cases[name]
        pictures, embeddings = self.encode(tuple(case["images"]))
        prompts = {key: case[key] for key in PROMPTS if key in case}
        inputs = self.processor(original_sizes=pictures["original_sizes"], **prompts)
        return inputs | {"image_embeddings": embeddings, "multimask_output": case["multimask_output"]}

    def run(self, name: str) -> Sam2ImageSegmentationOutput:
        inputs = self.inputs(name)
        if source := self.cases[name].get("refine_from"):
            earlier = self.run(source)
            best = int(np.argmax(earlier.iou_scores[0, 0]))
            inputs["input_masks"] = earlier.pred_masks[:, :, best]
        # Stored with the reference's unmasked padding, which only the ragged case has any of.
        model = self.compatible if name == "batch_ragged_padded" else self.model
        return model(**inputs)


@pytest.fixture(scope="module")
def runner(reference_dir: Path, tiny_model: Sam2Model) -> Runner:
    compatible = Sam2Model(tiny_model.config, tiny_model.params, padding="transformers")
    return Runner(reference_dir, tiny_model, compatible)


def test_every_stored_case_is_run(runner: Runner) -> None:
    assert sorted(CASES) == sorted(runner.cases)


@pytest.mark.parametrize("photos", [("truck",), ("truck", "groceries")])
def test_pixels_are_exact(runner: Runner, photos: tuple[str, ...]) -> None:
    name = "truck_one_point" if photos == ("truck",) else "batch_boxes"
    pixels = runner.encode(photos)[0]["pixel_values"]
    expected = runner.expected(name)
    np.testing.assert_allclose(
        pixels.sum(axis=(1, 2, 3), dtype=np.float64), expected["pixel_values_sum"], rtol=1e-7
    )
    patch = np.moveaxis(expected["pixel_values_patch"], 1, -1)
    np.testing.assert_allclose(pixels[:, 500:508, 500:508], patch, rtol=1e-6)


def test_features_are_the_reference_s(runner: Runner) -> None:
    embeddings = runner.encode(("truck",))[1]
    stored = runner.expected("truck_one_point_features")
    for (name, stride), ours in zip({"s0": 8, "s1": 4, "s2": 2}.items(), embeddings, strict=True):
        sampled = np.moveaxis(np.asarray(ours), -1, 1)[..., ::stride, ::stride]
        assert_close("features", f"real weights, {name}", sampled, stored[name].reshape(sampled.shape))


@pytest.mark.parametrize("name", CASES)
def test_scores_and_masks_are_the_reference_s(runner: Runner, name: str) -> None:
    outputs, expected = runner.run(name), runner.expected(name)
    for key in PROMPTS:
        if key in expected:
            np.testing.assert_allclose(runner.inputs(name)[key], expected[key], rtol=1e-6, err_msg=key)
    assert_close("scores", "real weights, IoU", outputs.iou_scores, expected["iou_scores"])
    assert_close("masks", "real weights, logits", outputs.pred_masks, expected["pred_masks"])
    masks = runner.processor.post_process_masks(outputs.pred_masks, expected["original_sizes"])
    for i, ours in enumerate(masks):
        stored = np.unpackbits(expected[f"mask_bits_{i}"], axis=-1, count=ours.shape[-1]).astype(bool)
        union = (ours | stored).sum(axis=(-2, -1))
        iou = np.where(union > 0, (ours & stored).sum(axis=(-2, -1)) / np.maximum(union, 1), 1)
        assert (iou >= 0.999).all(), f"image {i}: {iou}"


def test_masked_padding_gives_each_object_its_result_alone(runner: Runner) -> None:
    inputs = runner.inputs("batch_ragged_padded")
    together = runner.model(**inputs)
    for b in range(2):
        alone_embeddings = tuple(level[b : b + 1] for level in inputs["image_embeddings"])
        for p in range(2):
            labels = inputs["input_labels"][b, p]
            alone = runner.model(
                image_embeddings=alone_embeddings,
                input_points=inputs["input_points"][b, p][None, None, labels != -10],
                input_labels=labels[None, None, labels != -10],
                multimask_output=False,
            )
            np.testing.assert_allclose(together.iou_scores[b, p], alone.iou_scores[0, 0], atol=1e-5)
            assert_close("masks", "masked padding", together.pred_masks[b, p], alone.pred_masks[0, 0])
    unmasked = runner.compatible(**inputs)
    assert np.abs(unmasked.iou_scores - together.iou_scores).max() > 1e-4  # the defect that masking mends
