"""The image processor: options, files, label maps, and a sentence for each mistake."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


@settings(deadline=None, derandomize=True, max_examples=20)
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
        ({"device": "cuda"}, "unknown option 'device'.*the options are do_resize"),
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
        ("{", "not a SAM 2 processor's configuration"),
        ("[]", "not a SAM 2 processor's configuration: it holds no object"),
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
    with pytest.raises(ValueError, match=message):
        kind.from_pretrained(tmp_path)


def test_null_in_a_configuration_means_the_default(tmp_path: Path) -> None:
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
