"""`Sam2Processor`: its files, its sizes, and what must be given together."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_models import small_config

from sam2_jax import Sam2ImageProcessor, Sam2Processor

photo = np.zeros((4, 6, 3), np.uint8)


def test_a_folder_without_processor_gets_its_models_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small_config((64, 96)).to_dict()))
    assert Sam2Processor.from_pretrained(tmp_path).image_processor.size == {"height": 64, "width": 96}
    (tmp_path / "config.json").unlink()
    assert Sam2Processor.from_pretrained(tmp_path).target_size == 1024


def test_a_processor_without_image_part_leaves_it_to_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(
        '{"processor_class": "Sam2Processor", "target_size": 512, "point_pad_value": -3}'
    )
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 512, "width": 256}}')
    processor = Sam2Processor.from_pretrained(tmp_path)
    assert processor.image_processor.size == {"height": 512, "width": 256}
    assert processor.point_pad_value == -3


def test_saved_and_read_again(tmp_path: Path) -> None:
    processor = Sam2Processor(Sam2ImageProcessor(size=(32, 64), do_normalize=False), point_pad_value=-1)
    processor.save_pretrained(tmp_path)
    back = Sam2Processor.from_pretrained(tmp_path)
    assert (back.image_processor, back.point_pad_value) == (processor.image_processor, -1)
    assert Sam2Processor.from_pretrained(tmp_path, size=16).target_size == 16


def test_options_of_the_constructor_are_options_of_reading_too(tmp_path: Path) -> None:
    Sam2Processor(Sam2ImageProcessor(size=32), point_pad_value=-3).save_pretrained(tmp_path)
    read = Sam2Processor.from_pretrained
    assert read(tmp_path, target_size=512).target_size == 512
    assert read(tmp_path, point_pad_value=-20).point_pad_value == -20
    assert read(tmp_path).point_pad_value == -3
    mine = Sam2ImageProcessor(size=48, do_normalize=False)
    assert read(tmp_path, image_processor=mine).image_processor == mine
    assert read(tmp_path, image_processor=mine, target_size=16).target_size == 16
    assert read(pretrained_model_name_or_path=tmp_path, target_size=None, size=64).target_size == 64
    assert Sam2Processor(None, None, None).point_pad_value == -10
    for kind in (Sam2Processor, Sam2ImageProcessor):  # of transformers' implementations there is one here
        found = kind.from_pretrained(tmp_path, use_fast=False, backend="pil", trust_remote_code=True)
        assert found.to_dict() == kind.from_pretrained(tmp_path).to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sise": 5}, "unknown option 'target_sise' of the processor: did you mean target_size"),
        ({"revison": 5}, "did you mean revision?"),
        ({"target_size": 512, "size": 256}, "target_size and size are the same; give one of them"),
        ({"target_size": 10**9}, "target_size must be .height, width. in pixels"),
        ({"point_pad_value": 10**40}, "point_pad_value must be a number from"),
        ({"image_processor": {"size": 5}}, "image_processor must be a Sam2ImageProcessor or None; got dict"),
        ({"do_normalize": "no"}, "do_normalize must be True or False"),
        ({"model": None}, "model must be given, once, also as pretrained_model_name_or_path"),
    ],
)
def test_options_are_checked_before_anything_is_looked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2Processor.from_pretrained(**{"model": "nobody/nothing"} | options)


def test_dictionaries_and_json(tmp_path: Path) -> None:
    processor = Sam2Processor(Sam2ImageProcessor(size=32), point_pad_value=-7)
    assert processor.save_pretrained(tmp_path) == [str(tmp_path / "processor_config.json")]
    text = (tmp_path / "processor_config.json").read_text()
    assert text == processor.to_json_string()
    assert json.loads(text) == processor.to_dict()
    processor.to_json_file(tmp_path / "other.json")
    assert (tmp_path / "other.json").read_text() == text
    assert processor.to_dict()["image_processor"] == processor.image_processor.to_dict()


def test_threads_share_a_processor() -> None:
    """With options of their own each call, whose results are those of one thread."""
    processor = Sam2Processor(Sam2ImageProcessor(size=16, mask_size=4))
    photos = [np.random.default_rng(i).integers(0, 256, (6, 9, 3), np.uint8) for i in range(24)]

    def prepare(i: int) -> Any:
        return processor(
            photos[i], input_points=[[[[i % 9, 2]]]], size=8 + i % 5, do_normalize=bool(i % 2)
        ).copy()

    expected = [prepare(i) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(prepare, range(24)))
    for one, other in zip(expected, found, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    assert processor.image_processor == Sam2ImageProcessor(size=16, mask_size=4)


def test_defect_4_7_5_target_size_is_the_size_of_the_pictures() -> None:
    processor = Sam2Processor(Sam2ImageProcessor(), target_size=8)
    inputs = processor(photo, input_points=[[[[6, 4]]]])
    assert inputs["pixel_values"].shape == (1, 8, 8, 3)
    assert inputs["input_points"].tolist() == [[[[8, 8]]]]


def test_everything_of_one_call() -> None:
    processor = Sam2Processor(Sam2ImageProcessor(size=8, mask_size=2))
    inputs = processor(
        [photo, photo], [photo[..., 0]] * 2, input_boxes=[[[0, 0, 3, 2]]] * 2, return_tensors="jax"
    )
    assert {name: value.shape for name, value in inputs.items()} == {
        "pixel_values": (2, 8, 8, 3),
        "original_sizes": (2, 2),
        "labels": (2, 2, 2),
        "input_boxes": (2, 1, 4),
    }
    assert all(isinstance(value, jax.Array) for value in inputs.values())


def test_sizes_given_with_images_must_be_theirs() -> None:
    processor = Sam2Processor()
    assert processor(photo, original_sizes=[(4, 6)], size=8)["original_sizes"].tolist() == [[4, 6]]
    with pytest.raises(ValueError, match=r"must be those of the images, \[\[4, 6\]\]; got \[\[9, 9\]\]"):
        processor(photo, original_sizes=[(9, 9)], size=8)
    with pytest.raises(ValueError, match="must be those of the images"):
        processor(photo, original_sizes=[(4, 6), (4, 6)], size=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"input_points": [[[[1, 2]]]]}, "images or original_sizes must be given"),
        ({"original_sizes": [4, 4]}, "original_sizes must be .height, width. in pixels, for each image"),
        ({"original_sizes": [(0, 4)]}, "original_sizes must be .height, width."),
        (
            {"original_sizes": [(4, 4)], "segmentation_maps": photo[..., 0]},
            "segmentation_maps are given without",
        ),
        ({"images": []}, "images must not be an empty list"),
        ({"images": photo, "input_point": 1}, "unknown option 'input_point'"),
        (
            {"images": photo, "input_boxes": [[[0, 0, 1, 1]]], "do_center_crop": True, "crop_size": 4},
            "input_boxes cannot be combined with do_center_crop",
        ),
    ],
)
def test_a_call_that_cannot_be_meant_is_a_sentence(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2Processor(Sam2ImageProcessor(size=8))(**call)


def test_the_image_processor_must_be_one() -> None:
    with pytest.raises(ValueError, match="image_processor must be a Sam2ImageProcessor or None; got int"):
        Sam2Processor(1024)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="point_pad_value must be a number; got 'a'"):
        Sam2Processor(point_pad_value="a")  # type: ignore[arg-type]


def test_a_target_size_that_contradicts_the_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(
        '{"image_processor": {"size": {"height": 64, "width": 64}}, "target_size": 1024}'
    )
    with pytest.raises(
        ValueError, match="target_size must be a side of the image processor's size.*got 1024"
    ):
        Sam2Processor.from_pretrained(tmp_path)
