"""`pipeline("mask-generation")`: transformers' names, call forms and results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from PIL import Image
from scipy import ndimage
from small_models import random_tensors, smallest_config

from sam2_jax import AutomaticMaskGenerator, MaskGenerationPipeline, Sam2ImageProcessor, Sam2Model, pipeline
from sam2_jax.checkpoint import names
from sam2_jax.processing.rle import decode_rle

LOOSE: dict[str, Any] = {"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    config = smallest_config(128)
    return Discs(config, names.unflatten(names.to_flax(random_tensors(config))))


@pytest.fixture(scope="module")
def generate(model: Sam2Model) -> MaskGenerationPipeline:
    return pipeline("mask-generation", model, **LOOSE)


def photo(height: int = 90, width: int = 140, seed: int = 0) -> np.ndarray:
    """Smooth colours."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return (128 + 90 * smooth / np.abs(smooth).max()).astype(np.uint8)


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return np.array_equal(left["masks"], right["masks"]) and np.array_equal(left["scores"], right["scores"])


def test_the_pipeline_takes_transformers_names(model: Sam2Model, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(photo()).save(tmp_path / "a.png")
    generate = pipeline("mask-generation", model=model, points_per_crop=4, stability_score_thresh=0.6)
    options = {"pred_iou_thresh": 0.5, "crops_nms_thresh": 0.7, "crops_n_layers": 0, "points_per_batch": 8}
    result = generate(str(tmp_path / "a.png"), output_rle_mask=True, output_bboxes_mask=True, **options)
    expected = AutomaticMaskGenerator(model, "transformers", points_per_batch=8, **LOOSE).find(photo())
    np.testing.assert_array_equal(result["masks"], [each.mask for each in expected])
    assert set(result) == {"masks", "scores", "rle_mask", "bounding_boxes"}
    np.testing.assert_array_equal(decode_rle(result["rle_mask"][0]), result["masks"][0])
    x, y, width, height = expected[0].bbox
    assert result["bounding_boxes"][0].tolist() == [x, y, x + width, y + height]
    assert set(generate(Image.fromarray(photo()))) == {"masks", "scores"}


def test_masks_do_not_depend_on_the_photos_beside_them(model: Sam2Model) -> None:
    generate = pipeline("mask-generation", model, **LOOSE)
    alone = [generate(photo(seed=seed)) for seed in range(2)]
    together = generate([photo(seed=0), photo(seed=1)])
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a["masks"], b["masks"])
        np.testing.assert_array_equal(a["scores"], b["scores"])


# --- call forms


def test_a_photo_goes_by_several_names(generate: MaskGenerationPipeline) -> None:
    expected = generate(photo())
    assert len(expected["masks"]) > 2
    assert same(generate(image=photo()), expected)
    assert same(generate(images=photo()), expected)
    assert same(generate(inputs=photo()), expected)
    with pytest.raises(ValueError, match="a photo or several must be given, once; got 0"):
        generate()
    with pytest.raises(ValueError, match="a photo or several must be given, once; got 2"):
        generate(photo(), image=photo())


def test_a_list_gives_a_list_and_a_generator_an_iterator(generate: MaskGenerationPipeline) -> None:
    expected = [generate(photo(seed=seed)) for seed in range(2)]
    taken: list[int] = []

    def photos() -> Iterator[np.ndarray]:
        for seed in range(2):
            taken.append(seed)
            yield photo(seed=seed)

    results = generate(photos(), num_workers=2, batch_size=4, timeout=3)
    assert taken == []
    assert same(next(results), expected[0])
    assert taken == [0]
    assert same(next(results), expected[1])
    assert next(results, None) is None
    listed = generate([photo(seed=0), photo(seed=1)])
    assert isinstance(listed, list)
    assert all(map(same, listed, expected))
    assert generate([]) == []
    assert list(generate(x for x in ())) == []


def test_a_dataset_is_taken_as_it_goes(generate: MaskGenerationPipeline) -> None:
    class Dataset:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> np.ndarray:
            if index >= len(self):
                raise IndexError
            return photo(seed=index)

    with pytest.raises(ValueError, match="an image must be a path, a PIL image or an array"):
        generate({"image": photo()})  # one dictionary is no dataset
    results = generate(Dataset())
    assert all(map(same, results, [generate(photo(seed=0)), generate(photo(seed=1))]))


def test_options_of_a_stream_are_checked_before_it_is_taken_from(generate: MaskGenerationPipeline) -> None:
    with pytest.raises(ValueError, match="did you mean pred_iou_thresh?"):
        generate((photo() for _ in range(2)), pred_iou_tresh=0.5)


def test_photos_are_turned_upright(generate: MaskGenerationPipeline, tmp_path: Path) -> None:
    """As transformers' pipeline does; the generator takes a PIL image as it lies, like the processor."""
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    of_path = generate(str(tmp_path / "turned.png"))
    with Image.open(tmp_path / "turned.png") as opened:
        of_image = generate(opened)
        lying = AutomaticMaskGenerator(generate.model, **LOOSE).find(opened)
    assert of_path["masks"][0].shape == of_image["masks"][0].shape == (140, 90)
    assert same(of_path, of_image)
    assert lying[0].mask.shape == (90, 140)


def test_broken_exif_data_is_a_sentence(generate: MaskGenerationPipeline) -> None:
    image = Image.fromarray(photo())
    image.info["exif"] = b"Exif\x00\x00broken!!"
    with pytest.raises(ValueError, match="the photo's EXIF data cannot be read .*: remove it"):
        generate(image)


def test_an_address_is_refused(generate: MaskGenerationPipeline) -> None:
    with pytest.raises(ValueError, match="there is no picture https://.*: download it first"):
        generate("https://example.org/a.jpg")


# --- how it is made


def test_it_is_made_in_all_of_transformers_ways(model: Sam2Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    for made in (
        pipeline(model=model),
        pipeline("mask-generation", model=model, image_processor=model.processor.image_processor),
        pipeline(task="mask-generation", model=model, processor=model.processor, device=-1),
        pipeline(model=tmp_path, image_processor=str(tmp_path), revision=None, use_fast=True),
        pipeline(model=str(tmp_path), local_files_only=True, model_kwargs={"cache_dir": tmp_path}),
        MaskGenerationPipeline(model=model, image_processor=model.processor.image_processor),
        # As transformers' own tests make it.
        MaskGenerationPipeline(
            model=model,
            tokenizer=None,
            feature_extractor=None,
            image_processor=model.processor.image_processor,
            processor=model.processor,
        ),
        pipeline(model=model, tokenizer=None, feature_extractor=None),
    ):
        assert made.image_processor.size == {"height": 128, "width": 128}
        assert made.task == "mask-generation"
    for name in ("dtype", "torch_dtype"):
        assert pipeline(model=tmp_path, **{name: "bfloat16"}).model.module.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "image-segmentation"}, 'task must be "mask-generation"; got'),
        (
            {"output_bbox_mask": True},
            "unknown option 'output_bbox_mask' of .* did you mean output_bboxes_mask?",
        ),
        ({"output_rle_masks": True}, "did you mean output_rle_mask?"),  # a name that transformers ignores
        ({"points_per_corp": 8}, "did you mean points_per_crop?"),
        ({"crop_nms_tresh": 8}, "did you mean crop_nms_thresh?"),
        ({"torch_dtyp": "bfloat16"}, "did you mean torch_dtype?"),
        (
            {"xyz": 1},
            "there are output_rle_mask, output_bboxes_mask, points_per_crop, .*points_per_side.*dtype",
        ),
        (
            {"points_per_crop": 4, "points_per_side": 8},
            "points_per_crop and points_per_side are two names of",
        ),
        (
            {"points_per_side": 8, "points_per_crop": 4},
            "points_per_side and points_per_crop are two names of",
        ),
        (
            {"crops_nms_thresh": 0.7, "box_nms_thresh": 0.7},
            "crops_nms_thresh and box_nms_thresh are two names",
        ),
        (
            {"crop_nms_thresh": 0.7, "crops_nms_thresh": 0.7},
            "crop_nms_thresh and crops_nms_thresh are two nam",
        ),
        ({"crops_n_layers": 1, "crop_n_layers": 1}, "crops_n_layers and crop_n_layers are two names"),
        ({"crops_nms_thresh": None}, "crops_nms_thresh must be a number from 0 to 1; got None"),
        ({"points_per_crop": None}, "points_per_crop must be a whole number from 1 to 1024; got None"),
        ({"crops_n_layers": -1}, "crops_n_layers must be a whole number from 0 to 8; got -1"),
        ({"pred_iou_thresh": 88}, "pred_iou_thresh must be a number of at most 1; got 88"),
        ({"output_rle_mask": "yes"}, "output_rle_mask must be True or False; got 'yes'"),
        ({"dtype": "bfloat16", "torch_dtype": "bfloat16"}, "dtype and torch_dtype are one thing; give one"),
        ({"dtype": "int8"}, "dtype must be float32 or bfloat16"),
        ({"dtype": "bfloat16", "model_kwargs": {"dtype": "float32"}}, "dtype is given twice"),
        ({"feature_extractor": "no/where"}, "unknown option 'feature_extractor'"),
        ({"model_kwargs": 3}, "model_kwargs must be a dictionary or None; got 3"),
        (
            {"processor": 3},
            "processor must be a Sam2Processor, a Sam2ImageProcessor, a hub id or a folder; got",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**{"model": "no/such-model-is-asked-for"} | options)


def test_a_model_that_is_loaded_is_not_loaded_in_another_way(model: Sam2Model) -> None:
    with pytest.raises(ValueError, match="revision is for a model that is loaded by name"):
        pipeline(model=model, revision="main")
    with pytest.raises(ValueError, match="processor and image_processor must not both be given"):
        pipeline(model=model, processor=model.processor, image_processor=Sam2ImageProcessor(size=64))


def test_a_call_s_options_go_before_those_for_all_calls(model: Sam2Model) -> None:
    few, many = pipeline(model=model, **LOOSE), pipeline(model=model, **LOOSE | {"points_per_side": 8})
    assert same(few(photo(), points_per_crop=8), many(photo()))
    assert same(many(photo(), points_per_side=4), few(photo()))
    grid = [[(0.25, 0.5), (0.75, 0.5)]]
    alone = pipeline(model=model, point_grids=grid, pred_iou_thresh=0.5, stability_score_thresh=0.6)
    assert same(few(photo(), point_grids=grid), alone(photo()))
    assert same(alone(photo(), points_per_side=4), few(photo()))


def test_none_for_an_area_is_transformers_default(generate: MaskGenerationPipeline) -> None:
    expected = generate(photo(), output_rle_mask=None, output_bboxes_mask=None)
    assert same(generate(photo(), max_hole_area=None, max_sprinkle_area=None, point_grids=None), expected)
    assert set(expected) == {"masks", "scores"}


def test_results_have_the_same_types_with_and_without_masks(generate: MaskGenerationPipeline) -> None:
    ask = {"output_rle_mask": True, "output_bboxes_mask": True}
    some, none = generate(photo(), **ask), generate(photo(), pred_iou_thresh=0.999, **ask)
    assert some.keys() == none.keys()
    assert (len(none["masks"]), len(none["rle_mask"])) == (0, 0)
    for result in (some, none):
        assert (type(result["masks"]), type(result["rle_mask"])) == (list, list)
        assert (result["scores"].dtype, result["scores"].ndim) == (np.float32, 1)
        assert (result["bounding_boxes"].dtype, result["bounding_boxes"].shape[1:]) == (np.int64, (4,))


def test_a_model_s_own_thresholds_go_before_transformers(model: Sam2Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "mask_generation.json").write_text('{"pred_iou_thresh": 0.25}')
    loaded = Discs.from_pretrained(tmp_path)
    made = pipeline(model=loaded, points_per_side=4, stability_score_thresh=0.6)
    least, lower, higher = (made(photo(), pred_iou_thresh=value)["scores"] for value in (0.25, 0.1, 0.5))
    np.testing.assert_array_equal(made(photo())["scores"], least)
    assert len(lower) > len(least) > len(higher)
