"""Prompts: nesting, raggedness, scaling, and a sentence for each mistake."""

import numpy as np
import pytest

from sam2_jax import Sam2Processor

SIZES = [(100, 200), (50, 50)]
processor = Sam2Processor((64, 128))


def test_points_are_scaled_by_axis_and_padded_by_label() -> None:
    inputs = processor(original_sizes=SIZES, input_points=[[[[20, 10]], [[1, 2], [3, 4]]], [[[25, 25]]]])
    assert inputs["input_points"].shape == (2, 2, 2, 2)
    assert inputs["input_points"].dtype == np.float32
    assert inputs["input_labels"].tolist() == [[[1, -10], [1, 1]], [[1, -10], [-10, -10]]]
    np.testing.assert_allclose(inputs["input_points"][0, 0, 0], [20 * 128 / 200, 10 * 64 / 100])
    np.testing.assert_allclose(inputs["input_points"][1, 0, 0], [25 * 128 / 50, 25 * 64 / 50])


def test_a_coordinate_of_minus_ten_is_a_coordinate() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_points=[[[[-10, -10]]]])
    np.testing.assert_allclose(inputs["input_points"][0, 0, 0], [-6.4, -6.4])
    assert inputs["input_labels"].item() == 1


def test_lists_tuples_and_arrays_mean_the_same() -> None:
    given = [[[[20, 10], [30, 40]]]]
    for points in (given, ((((20, 10), (30, 40)),),), np.array(given), [np.array(given[0])]):
        inputs = processor(original_sizes=SIZES[:1], input_points=points, input_labels=(((1, 0),),))
        np.testing.assert_allclose(inputs["input_points"], np.array(given) * 0.64)
        assert inputs["input_labels"].tolist() == [[[1, 0]]]


def test_boxes_are_scaled() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_boxes=[[[0, 10, 200, 100]]])
    np.testing.assert_allclose(inputs["input_boxes"], [[[0, 6.4, 128, 64]]], rtol=1e-6)


NAN = float("nan")


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": [[[1, 2]]]}, r"nested 4 deep \(image > object > point > coordinate\).*got int"),
        ({"input_points": [[[[[1, 2]]]]]}, "is a list, not a number"),
        ({"input_points": [[[["a", 2]]]]}, "coordinate 0 of point 0 of object 0 of image 0.* is str"),
        ({"input_points": [[[[NAN, 2]]]]}, "finite numbers; .* is nan"),
        ({"input_points": [[[[float("inf"), 2]]]]}, "finite numbers; .* is inf"),
        ({"input_points": [[[[1, 2, 3]]]]}, "must have 2 coordinates; .* has 3"),
        ({"input_points": []}, "must not be empty: there is no image"),
        ({"input_points": [[]]}, "must not be empty: there is no object in image 0"),
        ({"input_points": [[[]]]}, "must not be empty: there is no point in object 0"),
        ({"input_points": [[[[1, 2]]], [[[1, 2]]]]}, "for as many images as there are, 1; got 2"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[1, 0]]]}, "has 1 points and 2 labels"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[1], [0]]]}, "has 1 objects and 2 lists"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[1]]}, "nested 3 deep"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[0.9]]]}, "among .*; object 0 of image 0 has 0.9"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[7]]]}, "among .* has 7"),
        ({"input_points": [[[[1e300, 2]]]]}, "finite numbers; .* is 1e.300"),
        ({"input_labels": [[[1]]]}, "without input_points"),
        ({"input_boxes": [[[10, 0, 5, 9]]]}, r"x0 <= x1.*box 0 of image 0 is \(10, 0, 5, 9\)"),
        ({"input_boxes": [[[0, 9, 5, 1]]]}, "y0 <= y1"),
        ({"input_boxes": [[[0, NAN, 5, 1]]]}, "finite numbers"),
        ({"input_boxes": [[0, 1, 5, 9]]}, "nested 3 deep"),
        ({"input_boxes": [[[0, 1, 5]]]}, "must have 4 coordinates"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_a_sentence(prompts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(original_sizes=SIZES[:1], **prompts)


def test_boxes_must_be_equally_many() -> None:
    box = [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"equally many for every image; got \[1, 2\]"):
        processor(original_sizes=SIZES, input_boxes=[[box], [box, box]])


@pytest.mark.parametrize("size", [128, (0, 128), "ab", (1.5, 2), None])
def test_a_size_that_cannot_be_meant_is_a_sentence(size: object) -> None:
    with pytest.raises(ValueError, match="size must be .height, width. in pixels"):
        Sam2Processor(size)


def test_something_must_be_given() -> None:
    with pytest.raises(ValueError, match="segmentation_maps are not supported yet"):
        processor(None, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="images or original_sizes must be given"):
        processor(input_points=[[[[1, 2]]]])
    with pytest.raises(ValueError, match="empty list"):
        processor(images=[])
    with pytest.raises(ValueError, match="must be those of the images"):
        processor(images=np.zeros((4, 4, 3), np.uint8), original_sizes=[(9, 9)])
    with pytest.raises(ValueError, match="original_sizes must be"):
        processor(original_sizes=[4, 4])
