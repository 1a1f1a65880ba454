"""The image processor: options, files, label maps, and a sentence for each mistake."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_models import small_config

from sam2_jax import Sam2ImageProcessor, Sam2ImageProcessorFast, Sam2Processor

processor = Sam2ImageProcessor(size=16, mask_size=4)
photo = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)


def test_pixels_are_normalised_and_channels_last() -> None:
    inputs = processor(np.full((6, 9, 3), 51, np.uint8))
    assert inputs["pixel_values"].shape == (1, 16, 16, 3)
    assert inputs["pixel_values"].dtype == np.float32
    expected = (0.2 - np.array(processor.image_mean)) / np.array(processor.image_std)
    np.testing.assert_allclose(inputs["pixel_values"][0, 3, 4], expected, rtol=1e-5)
    assert inputs["original_sizes"].tolist() == [[6, 9]]


def test_paths_pictures_arrays_and_batches(tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    alone = processor(photo)["pixel_values"]
    for images in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo), [photo]):
        np.testing.assert_array_equal(processor(images)["pixel_values"], alone)
    for images in ([photo, photo], (Image.fromarray(photo), photo), np.stack([photo, photo])):
        np.testing.assert_array_equal(processor(images)["pixel_values"], np.concatenate([alone, alone]))
    assert processor(photo[..., 0])["pixel_values"].shape == (1, 16, 16, 3)


@settings(max_examples=20)
@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4))
def test_a_batch_equals_its_pictures_alone(sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    together = processor(photos)
    assert together["original_sizes"].tolist() == [list(size) for size in sizes]
    for picture, pixels in zip(photos, together["pixel_values"], strict=True):
        np.testing.assert_array_equal(processor(picture)["pixel_values"][0], pixels)


@pytest.mark.parametrize("size", [(32, 64), [32, 64], {"height": 32, "width": 64}])
def test_sizes_in_every_form(size: Any) -> None:
    assert Sam2ImageProcessor(size=size).size == {"height": 32, "width": 64}
    assert processor(photo, size=size)["pixel_values"].shape == (1, 32, 64, 3)


def test_options_of_a_call_are_for_that_call() -> None:
    processor(photo, size=32, do_normalize=False)
    assert processor(photo)["pixel_values"].shape == (1, 16, 16, 3)
    assert processor.preprocess(photo, size=32)["pixel_values"].shape == (1, 32, 32, 3)
    assert processor(photo, size=None)["pixel_values"].shape == (1, 16, 16, 3)


def test_the_old_name_is_the_same_class() -> None:
    assert Sam2ImageProcessorFast is Sam2ImageProcessor


def test_label_maps_take_the_label_under_the_centre() -> None:
    labels = np.arange(54).reshape(6, 9)
    for given_map in (labels, labels.astype(np.uint8), Image.fromarray(labels.astype(np.uint8))):
        out = processor(photo, given_map)["labels"]
        assert (out.shape, out.dtype) == ((1, 4, 4), np.int64)
        assert out[0, 0].tolist() == [1, 3, 5, 7]
    assert processor(photo, labels > 30, mask_size=(2, 3))["labels"].shape == (1, 2, 3)


def test_label_maps_from_files_keep_their_indices(tmp_path: Path) -> None:
    palette = Image.new("P", (9, 6), 7)
    palette.putpalette([0] * 21 + [255, 0, 0])
    palette.save(tmp_path / "labels.png")
    assert np.unique(processor(photo, tmp_path / "labels.png")["labels"]).tolist() == [7]


def test_defect_4_1_label_maps_need_no_return_tensors() -> None:
    assert set(processor([photo, photo], [photo[..., 0]] * 2)) == {"pixel_values", "original_sizes", "labels"}


def test_arrays_for_jax_and_for_numpy() -> None:
    assert isinstance(processor(photo, return_tensors="np")["pixel_values"], np.ndarray)
    for value in processor(photo, photo[..., 0], return_tensors="jax").values():
        assert isinstance(value, jax.Array)
    with pytest.raises(ValueError, match='must be None, "np" or "jax"; got \'pt\': leave it out'):
        processor(photo, return_tensors="pt")


def test_floats_within_0_and_1_are_asked_about() -> None:
    picture = photo.astype(np.float32) / 255
    with pytest.warns(UserWarning, match="within 0 and 1.*pass do_rescale=False"):
        processor(picture)
    np.testing.assert_allclose(
        processor(picture, do_rescale=False)["pixel_values"],
        processor(photo.astype(np.float32))["pixel_values"],
        atol=1e-5,
    )
    processor(np.zeros((4, 4, 3), np.float32))  # black is black in either range


def test_what_was_passed_is_not_altered() -> None:
    given_photo, labels = photo.copy(), photo[..., 0].copy()
    processor(given_photo, labels, do_center_crop=True, crop_size=8)
    np.testing.assert_array_equal(given_photo, photo)
    np.testing.assert_array_equal(labels, photo[..., 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 5}, "unknown option 'sise' of the image processor: did you mean size?"),
        ({"qqq": "cuda"}, "unknown option 'qqq' of the image processor; there are do_resize, .*max_pixels"),
        ({"do_padd": True}, "did you mean do_pad?"),
        ({"do_pad": True}, "do_pad must be false: SAM 2 pads nothing; leave out do_pad, True"),
        ({"pad_size": 2000}, "do_pad must be false: SAM 2 pads nothing; leave out pad_size, 2000"),
        ({"data_format": "channels_first"}, 'data_format must be "channels_last".*moveaxis'),
        ({"size": 1_000_000_000}, r"each at most 8192; got 1000000000"),
        ({"size": {32, 64}}, "size must be .height, width. in pixels"),
        ({"size": 10**40}, "size must be .height, width. in pixels"),
        ({"mask_size": (8193, 1)}, "mask_size must be .*each at most 8192"),
        ({"resample": np.arange(2)}, "one of Pillow's filters"),
        ({"image_std": 1e-320}, "image_std must be a number from 1e-09 to 1e.09; got"),
        ({"image_std": [10**59, 1, 1]}, "image_std must be numbers of at most 1e.09 in size"),
        ({"image_std": [True] * 3}, "image_std must be"),
        ({"image_mean": float("nan")}, "image_mean must be finite"),
        ({"image_mean": "0.5"}, "image_mean must be three numbers, for red, green and blue, or one for all"),
        ({"image_mean": [[1, 2, 3]]}, "image_mean must be three numbers"),
        ({"image_mean": [1] * 4}, "other channels need do_convert_rgb=False"),
        ({"image_mean": [1] * 4, "do_convert_rgb": False}, "must be for as many channels; got .*4.*3"),
        ({"rescale_factor": 1e300}, "rescale_factor must be a number from 1e-09 to 1e.09; got 1e.300"),
        ({"max_pixels": 53}, "too large to be a photo: 9 x 6 pixels are more than the limit of 53"),
        ({"max_pixels": 0}, "max_pixels must be a whole number of at least 1"),
        ({"return_tensors": ["np"]}, "return_tensors must be None"),
        ({"size": {"shortest_edge": 5}}, r"size must be .height, width. in pixels.*got {'shortest_edge': 5}"),
        ({"size": 0}, "size must be .height, width. in pixels"),
        ({"size": (1.5, 2)}, "size must be .height, width. in pixels"),
        ({"size": "ab"}, "size must be .height, width. in pixels"),
        ({"mask_size": -1}, "mask_size must be"),
        ({"do_center_crop": True}, "crop_size must be given if do_center_crop is True"),
        ({"do_center_crop": True, "crop_size": (1, 2, 3)}, "crop_size must be"),
        ({"resample": 5}, r"one of Pillow's filters \(0, 1, 2, 3\).*got 5"),
        ({"resample": "bilinear"}, "got 'bilinear'"),
        ({"do_resize": "no"}, "do_resize must be True or False; got 'no'"),
        ({"image_mean": [1, 2]}, "image_mean must be three numbers, for red, green and blue; got"),
        ({"image_std": [1, 0, 1]}, "image_std must be positive"),
        ({"rescale_factor": 0}, "rescale_factor must be positive; got 0"),
        ({"rescale_factor": "a"}, "rescale_factor must be a number; got 'a'"),
        ({"input_data_format": "first"}, "input_data_format must be one of"),
    ],
)
def test_an_option_that_cannot_be_meant_is_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(photo, **options)


@pytest.mark.parametrize(
    ("images", "maps", "message"),
    [
        ([], None, "images must not be an empty list"),
        (photo, [photo[..., 0]] * 2, "segmentation_maps must be as many as the images, 1; got 2"),
        (photo, [photo], "must be label pictures or arrays .*"),
        (photo, photo[..., 0] / 2, "of integers, one for each image; got ndarray .* float64"),
        (photo, Image.fromarray(photo), "got Image of shape .6, 9, 3."),
    ],
)
def test_pictures_that_cannot_be_meant_are_a_sentence(images: Any, maps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(images, maps)


def test_numbers_that_pass_give_finite_pixels() -> None:
    for std, mean, factor, value in product((1e-9, 1e9), (-1e9, 1e9), (1e-9, 1e9), (0, 255, 1e9)):
        options = {"image_std": std, "image_mean": mean, "rescale_factor": factor, "size": 4}
        assert np.isfinite(processor(np.full((2, 2, 3), value, np.float32), **options).pixel_values).all()


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cuda", "disable_grouping": True, "default_to_square": False, "image_seq_length": 3},
        {"data_format": "channels_last", "do_pad": False},
        dict.fromkeys(
            ("device", "disable_grouping", "data_format", "default_to_square", "do_pad", "pad_size")
        ),
        {"input_data_format": "channels_last"},
    ],
)
def test_options_of_transformers_that_change_nothing_are_taken(
    options: dict[str, Any], tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    expected = processor(photo)["pixel_values"]
    for made in (
        Sam2ImageProcessor(size=16, mask_size=4, **options),
        Sam2ImageProcessor.from_dict(processor.to_dict(), **options),
        Sam2ImageProcessor.from_pretrained(tmp_path, **options),
        Sam2Processor.from_pretrained(tmp_path, **options),
        processor,
    ):
        np.testing.assert_array_equal(made(photo)["pixel_values"], expected)
        np.testing.assert_array_equal(made(photo, **options)["pixel_values"], expected)


def test_rows_of_a_picture_are_no_pictures() -> None:
    """Nested lists are the array that they write down; a list of arrays that look like rows is refused."""
    for nested in (photo.tolist(), tuple(map(tuple, photo.tolist()))):
        np.testing.assert_array_equal(processor(nested).pixel_values, processor(photo).pixel_values)
    two = processor([photo.tolist(), photo.tolist()])
    np.testing.assert_array_equal(two.pixel_values, processor([photo, photo]).pixel_values)
    labels = photo[..., 0]
    np.testing.assert_array_equal(processor(photo, labels.tolist()).labels, processor(photo, labels).labels)
    with pytest.raises(
        ValueError, match=r"arrays of shape \(9, 3\), which look like the rows of one picture"
    ):
        processor(list(photo))
    with pytest.raises(ValueError, match="images must be a path, a PIL image"):
        processor([photo.tolist()[0], photo.tolist()[1][:2]])


def test_a_layout_may_be_an_option_of_the_processor() -> None:
    narrow = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    first = Sam2ImageProcessor(size=16, mask_size=4, input_data_format="channels_first")
    expected = processor(narrow, input_data_format="channels_first").pixel_values
    np.testing.assert_array_equal(first(narrow).pixel_values, expected)
    assert Sam2ImageProcessor.from_dict(first.to_dict()) == first
    assert (first(narrow, input_data_format="channels_last").pixel_values != expected).any()


def test_four_channels_go_through(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    options = {"do_convert_rgb": False, "image_mean": [0.1, 0.2, 0.3, 0.4], "image_std": [1, 2, 3, 4]}
    four = processor.replace(**options)
    expected = (image / 255 - options["image_mean"]) / options["image_std"]
    for picture in (image, Image.fromarray(image), np.moveaxis(image, -1, 0)):
        np.testing.assert_allclose(four(picture, do_resize=False).pixel_values[0], expected, rtol=1e-5)
    assert four(image).pixel_values.shape == (1, 16, 16, 4)
    np.testing.assert_array_equal(four.read_8_bits(Image.fromarray(image)), image)
    with pytest.raises(ValueError, match="must have integers, 0 to 255, here; got float64"):
        four.read_8_bits(image / 255)
    four.save_pretrained(tmp_path)
    assert Sam2ImageProcessor.from_pretrained(tmp_path) == four
    with pytest.raises(ValueError, match="must have 4 channels if do_convert_rgb is False; got 3"):
        four(photo)
    config = small_config()
    backbone = replace(config.vision_config.backbone_config, num_channels=4)
    config = replace(config, vision_config=replace(config.vision_config, backbone_config=backbone))
    own = Sam2ImageProcessor.for_config(config)
    np.testing.assert_allclose(own(image, do_resize=False).pixel_values[0], image / 127.5 - 1, atol=1e-5)


def test_unequal_pictures_that_are_not_resized_form_no_batch() -> None:
    with pytest.raises(ValueError, match="images must be of one size to form a batch.*leave do_resize on"):
        processor([photo, photo[:3]], do_resize=False)


def test_options_cannot_be_assigned_unchecked() -> None:
    with pytest.raises(AttributeError):
        processor.size = 7  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Sam2ImageProcessor, Sam2Processor])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "preprocessor_config.json is not valid JSON"),
        ("[" * 200_000, "preprocessor_config.json is not valid JSON"),
        ('{"image_std": ' + "[" * 200_000, "preprocessor_config.json is not valid JSON"),
        (f'{{"size": 64, "image_std": 1{"0" * 59}}}', "image_std must be numbers of at most 1e.09"),
        (f'{{"size": 64, "image_std": "{"x" * 10_000}"}}', "preprocessor_config.json: image_std must be"),
        ('{"size": 64, "image_std": NaN}', "image_std must be finite"),
        ('{"size": 64, "rescale_factor": Infinity}', "rescale_factor must be a number; got inf"),
        ('{"size": 1000000000}', "size must be .height, width. in pixels"),
        ("[]", "preprocessor_config.json must hold a JSON object; got"),
        ('{"image_processor": 5}', "image_processor must be an object; got 5"),
        ('{"size": {"longest_edge": 5}}', "preprocessor_config.json: size must be .height, width. in pixels"),
        ('{"size": {"height": "a", "width": 5}}', "size must be .height, width. in pixels"),
        ('{"size": {"height": 5, "width": 5}, "do_pad": true}', "do_pad must be false"),
        ('{"size": {"height": 5, "width": 5}, "resample": 4}', "resample must be one of"),
        ('{"size": {"height": 5, "width": 5}, "image_std": [1, 0, 1]}', "image_std must be positive"),
    ],
)
def test_a_wrong_configuration_is_named(kind: Any, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as found:
        kind.from_pretrained(tmp_path)
    assert len(str(found.value)) < 500


SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")


@pytest.mark.parametrize("name", SWITCHES)
def test_null_of_a_step_is_off_as_in_transformers(name: str, tmp_path: Path) -> None:
    off = Sam2ImageProcessor(**{name: False})
    assert Sam2ImageProcessor(**{name: None}) == off
    assert Sam2ImageProcessor.from_dict({name: None}) == off
    Path(tmp_path / "preprocessor_config.json").write_text(
        f'{{"image_processor_type": "Sam2ImageProcessor", "{name}": null}}'
    )
    assert Sam2ImageProcessor.from_pretrained(tmp_path) == off
    # In a call, and for options that go first, None is as if it were not given.
    assert Sam2ImageProcessor().replace(**{name: None}) == Sam2ImageProcessor()
    assert Sam2ImageProcessor.from_pretrained(tmp_path, **{name: None}) == off


def test_other_nulls_in_a_configuration_mean_the_default(tmp_path: Path) -> None:
    """The released models' files are full of them."""
    (tmp_path / "preprocessor_config.json").write_text(
        '{"crop_size": null, "data_format": "channels_first", "default_to_square": true, "device": null, '
        '"do_center_crop": null, "image_mean": null, "image_processor_type": "Sam2ImageProcessorFast", '
        '"mask_size": {"height": 256, "width": 256}, "processor_class": "Sam2VideoProcessor", '
        '"size": {"height": 512, "width": 256}}'
    )
    assert Sam2ImageProcessor.from_pretrained(tmp_path) == Sam2ImageProcessor(size=(512, 256))
    assert Sam2ImageProcessor.from_pretrained(tmp_path, size=64).size == {"height": 64, "width": 64}


def test_saved_and_read_again(tmp_path: Path) -> None:
    odd = Sam2ImageProcessor(size=(8, 9), do_center_crop=True, crop_size=4, image_mean=0.5, resample=3)
    odd.save_pretrained(tmp_path)
    assert Sam2ImageProcessor.from_pretrained(tmp_path) == odd
    assert Sam2ImageProcessor.from_dict(odd.to_dict()) == odd
    assert odd.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    odd.to_json_file(tmp_path / "odd.json")
    assert (tmp_path / "odd.json").read_text() == odd.to_json_string()
    assert Sam2ImageProcessor.from_json_file(tmp_path / "odd.json") == odd
    assert Sam2ImageProcessor.from_dict(odd.to_dict(), size=42, device="cpu") == odd.replace(size=42)
    with pytest.raises(ValueError, match="unknown option 'sise' of the image processor: did you mean size"):
        Sam2ImageProcessor.from_dict(odd.to_dict(), sise=42)


def test_the_limit_on_pixels_is_not_a_files_to_lift(tmp_path: Path) -> None:
    assert "max_pixels" not in Sam2ImageProcessor(max_pixels=5).to_dict()
    assert Sam2ImageProcessor.from_dict({"max_pixels": 10**12}) == Sam2ImageProcessor()
    assert Sam2ImageProcessor.from_dict({}, max_pixels=10**12).max_pixels == 10**12
