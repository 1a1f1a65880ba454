"""Pixels and labels of the image processor are transformers', bit for bit; its files go both ways."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("torchvision", reason="transformers' image processor needs torchvision and the shim")
pytest.importorskip("transformers", reason="parity needs transformers")

from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image
from tolerances import assert_close

from sam2_jax import Sam2ImageProcessor, Sam2Processor

ours, theirs = Sam2ImageProcessor(), transformers.Sam2ImageProcessor()


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Noise over a gradient, with saturated edges that clip; the same every time."""
    rng = np.random.default_rng(height * 7919 + width)
    ramp = np.linspace(0, 255, width)[None, :, None] + 60 * rng.standard_normal((height, width, channels))
    return np.clip(ramp, 0, 255).astype(np.uint8)


def palette() -> Image.Image:
    image = Image.fromarray(photo(80, 120)).quantize(16)
    image.info["transparency"] = 3
    return image


PICTURES: dict[str, Any] = {
    "landscape": photo(1200, 1800),
    "portrait": photo(1100, 700),
    "enlarged both ways": photo(534, 800),
    "flat": photo(30, 1400),
    "square of the network's size": photo(1024, 1024),
    "one pixel wide": photo(2000, 1),
    "a single pixel": photo(1, 1),
    "channels first": np.moveaxis(photo(200, 300), -1, 0),
    "grey array": photo(90, 60, 1),
    "RGBA array": photo(120, 90, 4),
    "PIL RGB": Image.fromarray(photo(333, 517)),
    "PIL grey": Image.fromarray(photo(77, 91, 1)[..., 0]),
    "PIL RGBA": Image.fromarray(photo(64, 96, 4)),
    "PIL palette with transparency": palette(),
    "PIL grey and alpha": Image.new("LA", (30, 20), (90, 99)),
    "PIL black and white": Image.fromarray(photo(40, 50, 1)[..., 0] > 127),
    "PIL CMYK": Image.fromarray(photo(40, 50)).convert("CMYK"),
    "a list of pictures": [photo(50, 60), Image.fromarray(photo(60, 50))],
    "a batch in one array": np.stack([photo(50, 60), photo(50, 60) // 2]),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "size of a square": {"size": 96},
    "oblong size": {"size": {"height": 64, "width": 160}},
    "nearest": {"resample": 0, "size": 100},
    "lanczos": {"resample": 1, "size": 100},
    "bicubic": {"resample": 3, "size": 300},
    "bilinear by its enum": {"resample": Image.Resampling.BILINEAR, "size": 77},
    "not resized": {"do_resize": False},
    "cropped": {"do_center_crop": True, "crop_size": {"height": 50, "width": 61}, "size": 100},
    "cropped beyond the edge": {
        "do_center_crop": True,
        "crop_size": 121,
        "size": {"height": 100, "width": 130},
    },
    "not normalised": {"do_normalize": False, "size": 64},
    "not rescaled": {"do_rescale": False, "size": 64},
    "neither": {"do_rescale": False, "do_normalize": False, "size": 64},
    "another factor": {"rescale_factor": 1 / 127, "size": 64},
    "one mean for all": {"image_mean": 0.5, "image_std": 0.25, "size": 64},
    "another mean": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "size": 64},
}


def channels_last(inputs: Any) -> np.ndarray:
    return np.moveaxis(inputs["pixel_values"].numpy(), 1, -1)


# Where the shape alone leaves the layout open, transformers takes channels first and warns.
LAYOUT = {"one pixel wide": "channels_last", "a single pixel": "channels_last"}


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_equal_bit_for_bit(name: str) -> None:
    picture, layout = PICTURES[name], LAYOUT.get(name)
    expected = theirs(picture, return_tensors="pt", input_data_format=layout)
    inputs = ours(picture, input_data_format=layout)
    np.testing.assert_array_equal(inputs["pixel_values"], channels_last(expected))
    np.testing.assert_array_equal(inputs["original_sizes"], expected["original_sizes"].numpy())


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_equal_bit_for_bit(name: str) -> None:
    picture = photo(150, 211)
    expected = theirs(picture, return_tensors="pt", **OPTIONS[name])
    pixels = ours(picture, **OPTIONS[name])["pixel_values"]
    assert pixels.dtype == channels_last(expected).dtype
    np.testing.assert_array_equal(pixels, channels_last(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("resample", [1, 2, 3])
@pytest.mark.parametrize("shape", [(150, 211), (40, 700), (3, 50)], ids=str)
def test_floating_point_pixels_are_equal_to_rounding(
    dtype: type, resample: int, shape: tuple[int, int]
) -> None:
    """torch's own last bits depend on the machine's instructions here."""
    picture = photo(*shape).astype(dtype)
    options = {"size": 128, "resample": resample, "input_data_format": "channels_last"}
    expected = channels_last(theirs(picture.astype(np.float32), return_tensors="pt", **options))
    assert_close("features", "pixels of floating point", ours(picture, **options)["pixel_values"], expected)


@pytest.mark.parametrize("size", [(90, 130), (256, 256), (40, 33), (1, 9)], ids=str)
@pytest.mark.parametrize("options", [{}, {"mask_size": {"height": 20, "width": 12}}], ids=["256", "20 x 12"])
def test_labels_are_equal(size: tuple[int, int], options: dict[str, Any]) -> None:
    picture, labels = photo(*size), np.random.default_rng(0).integers(0, 150, size, np.uint8)
    options = {"size": 64, "input_data_format": "channels_last", **options}
    for given in (labels, Image.fromarray(labels), [labels]):
        # transformers reads input_data_format for pictures alone; labels have none.
        expected = theirs(picture, segmentation_maps=given, return_tensors="pt", **options)["labels"]
        out = ours(picture, segmentation_maps=given, **options)["labels"]
        assert out.dtype == np.int64
        np.testing.assert_array_equal(out, expected.numpy())


def test_files_go_both_ways(tmp_path: Path) -> None:
    options = {"size": {"height": 96, "width": 96}, "image_mean": [0.1, 0.2, 0.3], "do_rescale": False}
    ours_, theirs_ = Sam2ImageProcessor(**options), transformers.Sam2ImageProcessor(**options)
    ours_.save_pretrained(tmp_path / "ours")
    theirs_.save_pretrained(tmp_path / "theirs")
    read = transformers.Sam2ImageProcessor.from_pretrained(tmp_path / "ours")
    assert read.to_dict() == theirs_.to_dict()
    assert Sam2ImageProcessor.from_pretrained(tmp_path / "theirs") == ours_
    names = [path.name for folder in ("ours", "theirs") for path in (tmp_path / folder).iterdir()]
    assert names == ["preprocessor_config.json"] * 2
    files = [(tmp_path / folder / names[0]).read_text() for folder in ("ours", "theirs")]
    assert files[0].strip() == files[1].strip()


@pytest.mark.parametrize("name", ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"])
def test_null_in_a_file_is_off_in_both(name: str, tmp_path: Path) -> None:
    """transformers keeps a None it was given, and writes it as null."""
    theirs_ = transformers.Sam2ImageProcessor(**{name: None}, size=48)
    theirs_.save_pretrained(tmp_path)
    assert "null" in (tmp_path / "preprocessor_config.json").read_text()
    picture = photo(30, 40)
    expected = channels_last(theirs_(picture, return_tensors="pt"))
    for ours_ in (Sam2ImageProcessor.from_pretrained(tmp_path), Sam2ImageProcessor(**{name: None}, size=48)):
        np.testing.assert_array_equal(ours_(picture).pixel_values, expected)


def test_four_channels_are_equal() -> None:
    options = {
        "do_convert_rgb": False,
        "image_mean": [0.1, 0.2, 0.3, 0.4],
        "image_std": [0.5] * 4,
        "size": 48,
    }
    picture = photo(30, 40, 4)
    expected = transformers.Sam2ImageProcessor(**options)(
        picture, return_tensors="pt", input_data_format="channels_last"
    )
    np.testing.assert_array_equal(
        Sam2ImageProcessor(**options)(picture).pixel_values, channels_last(expected)
    )


def test_processor_files_go_both_ways(tmp_path: Path) -> None:
    ours_ = Sam2Processor(Sam2ImageProcessor(size=96), point_pad_value=-7)
    theirs_ = transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=96), point_pad_value=-7)
    ours_.save_pretrained(tmp_path / "ours")
    theirs_.save_pretrained(tmp_path / "theirs")
    read = transformers.Sam2Processor.from_pretrained(tmp_path / "ours")
    assert read.to_dict() == theirs_.to_dict()
    for folder in ("ours", "theirs"):
        back = Sam2Processor.from_pretrained(tmp_path / folder)
        assert (back.image_processor, back.point_pad_value) == (ours_.image_processor, -7)
    files = [(tmp_path / folder / "processor_config.json").read_text() for folder in ("ours", "theirs")]
    assert files[0].strip() == files[1].strip()
