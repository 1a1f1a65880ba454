"""Prompts: nesting, raggedness, scaling, and a sentence for each mistake."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_jax import Sam2ImageProcessor, Sam2Processor

SIZES = [(100, 200), (50, 50)]
NAN = float("nan")
processor = Sam2Processor(Sam2ImageProcessor(size=(64, 128), mask_size=(16, 32)))


def test_points_are_scaled_by_axis_and_padded_by_label() -> None:
    inputs = processor(original_sizes=SIZES, input_points=[[[[20, 10]], [[1, 2], [3, 4]]], [[[25, 25]]]])
    assert inputs["input_points"].shape == (2, 2, 2, 2)
    assert inputs["input_points"].dtype == np.float32
    assert inputs["input_labels"].tolist() == [[[1, -10], [1, 1]], [[1, -10], [-10, -10]]]
    np.testing.assert_allclose(inputs["input_points"][0, 0, 0], [20 * 128 / 200, 10 * 64 / 100])
    np.testing.assert_allclose(inputs["input_points"][1, 0, 0], [25 * 128 / 50, 25 * 64 / 50])
    assert (inputs["input_points"][1, 1] == -10).all()


def test_padding_points_have_the_value_asked_for() -> None:
    padded = Sam2Processor(point_pad_value=-7)(
        original_sizes=SIZES[:1], input_points=[[[[1, 1]], [[2, 2]] * 2]]
    )
    assert padded["input_points"][0, 0, 1].tolist() == [-7, -7]
    assert padded["input_labels"][0, 0, 1] == -10


def test_defect_9a6_a_coordinate_of_minus_ten_is_a_coordinate() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_points=[[[[-10, -10]]]])
    np.testing.assert_allclose(inputs["input_points"][0, 0, 0], [-6.4, -6.4])
    assert inputs["input_labels"].item() == 1


def test_defect_9a6_lists_tuples_and_arrays_mean_the_same() -> None:
    points, boxes = [[[[20, 10], [30, 40]]]], [[[1, 2, 3, 4]]]
    for kind in (list, tuple, np.array, lambda x: [np.array(x[0])]):
        inputs = processor(
            original_sizes=SIZES[:1],
            input_points=_as(kind, points),
            input_labels=_as(kind, [[[1, 0]]]),
            input_boxes=_as(kind, boxes),
        )
        np.testing.assert_allclose(inputs["input_points"], np.array(points) * 0.64)
        np.testing.assert_allclose(inputs["input_boxes"], np.array(boxes) * 0.64)
        assert inputs["input_labels"].tolist() == [[[1, 0]]]


def _as(kind: Any, values: Any) -> Any:
    """The nested lists as nested tuples, an array, or a list of arrays."""
    if kind in (list, tuple):
        return kind(_as(kind, value) if isinstance(value, list) else value for value in values)
    return kind(values)


def test_defect_9a6_one_original_size_serves_all_images() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_points=[[[[20, 10]]], [[[20, 10]]], [[[20, 10]]]])
    assert inputs["original_sizes"].tolist() == [[100, 200]] * 3
    np.testing.assert_allclose(inputs["input_points"], np.full((3, 1, 1, 2), [12.8, 6.4]))


def test_defect_4_7_5_a_size_given_for_one_call_scales_the_prompts_too() -> None:
    photo = np.zeros((100, 200, 3), np.uint8)
    inputs = processor(photo, input_points=[[[[50, 50]]]], input_boxes=[[[0, 0, 200, 100]]], size=(32, 40))
    assert inputs["pixel_values"].shape == (1, 32, 40, 3)
    np.testing.assert_allclose(inputs["input_points"], [[[[10, 16]]]])
    np.testing.assert_allclose(inputs["input_boxes"], [[[0, 0, 40, 32]]])


def test_prompts_on_a_picture_that_is_not_resized_stay_where_they_are() -> None:
    inputs = processor(np.zeros((64, 128, 3), np.uint8), input_points=[[[[5, 7]]]], do_resize=False)
    assert inputs["input_points"].tolist() == [[[[5, 7]]]]


def test_defect_4_7_11_ragged_points_without_labels_are_padded_as_padding() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_points=[[[[1, 2]], [[1, 2], [3, 4]]]])
    assert inputs["input_labels"].tolist() == [[[1, -10], [1, 1]]]


def test_defect_4_7_7_boxes_may_be_ragged() -> None:
    boxes = [[[0, 10, 200, 100]], [[0, 0, 50, 25], [1, 1, 2, 2]]]
    out = processor(original_sizes=SIZES, input_boxes=boxes)["input_boxes"]
    assert (out.shape, out.dtype) == ((2, 2, 4), np.float32)
    np.testing.assert_allclose(out[0, 0], [0, 6.4, 128, 64], rtol=1e-6)
    np.testing.assert_allclose(out[1, 0], [0, 0, 128, 32], rtol=1e-6)
    assert np.isnan(out[0, 1]).all()


def test_an_object_may_have_points_or_a_box_or_both() -> None:
    inputs = processor(
        original_sizes=SIZES[:1],
        input_points=[[[[1, 1]], [], [[2, 2], [3, 3]]]],
        input_labels=[[[0], [], [1, 0]]],
        input_boxes=[[None, [0, 0, 9, 9], [1, 1, 5, 5]]],
    )
    assert inputs["input_labels"].tolist() == [[[0, -10], [-10, -10], [1, 0]]]
    assert np.isnan(inputs["input_boxes"]).any(axis=-1).tolist() == [[True, False, False]]


def test_an_image_of_a_batch_may_have_no_objects() -> None:
    inputs = processor(original_sizes=SIZES, input_points=[[], [[[1, 2]]]])
    assert inputs["input_labels"].tolist() == [[[-10]], [[1]]]
    assert np.isnan(processor(original_sizes=SIZES, input_boxes=[[], [[1, 2, 3, 4]]])["input_boxes"][0]).all()


def test_masks_become_logits_for_each_object() -> None:
    rough = np.zeros((100, 200), bool)
    rough[:50] = True
    logits = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    inputs = processor(original_sizes=SIZES[:1], input_masks=[[rough, logits, rough.astype(np.uint8) * 255]])
    masks = inputs["input_masks"]
    assert (masks.shape, masks.dtype) == ((1, 3, 16, 32), np.float32)
    np.testing.assert_allclose(masks[0, 0, :7], 10, rtol=1e-6)
    np.testing.assert_allclose(masks[0, 0, 9:], -10, rtol=1e-6)
    np.testing.assert_array_equal(masks[0, 1], logits)
    np.testing.assert_array_equal(masks[0, 2], masks[0, 0])
    assert (
        processor(original_sizes=SIZES[:1], input_masks=[[np.zeros((4, 4), int)]])["input_masks"] == -10
    ).all()


def test_masks_go_with_points_and_may_be_ragged() -> None:
    mask = np.ones((8, 8), bool)
    inputs = processor(
        original_sizes=SIZES,
        input_points=[[[[1, 1]], [[2, 2]]], [[[3, 3]]]],
        input_masks=[[mask, mask], [mask]],
    )
    assert inputs["input_masks"][:, :, 0, 0].tolist() == [[10, 10], [10, 0]]


def test_an_object_of_a_mask_alone_is_not_padding() -> None:
    mask, size = np.ones((8, 8), bool), SIZES[:1]
    with_points = processor(original_sizes=size, input_points=[[[[1, 1]] * 2, []]], input_masks=[[mask] * 2])
    assert with_points["input_labels"].tolist() == [[[1, 1], [-1, -10]]]
    with_boxes = processor(original_sizes=size, input_boxes=[[[0, 0, 9, 9], None]], input_masks=[[mask] * 2])
    assert with_boxes["input_labels"].tolist() == [[[-10], [-1]]]
    assert set(processor(original_sizes=size, input_masks=[[mask]])) == {"original_sizes", "input_masks"}


def test_jax_and_numpy_arrays_are_prompts_too() -> None:
    import jax.numpy as jnp

    inputs = processor(
        original_sizes=jnp.asarray(SIZES[:1]),
        input_points=jnp.ones((1, 1, 2, 2)),
        input_masks=jnp.ones((1, 1, 4, 4)),
    )
    assert inputs["input_labels"].tolist() == [[[1, 1]]]


coordinates = st.tuples(st.integers(-20, 300), st.integers(-20, 300))
objects = st.lists(
    st.lists(st.tuples(coordinates, st.sampled_from([0, 1])), min_size=1, max_size=4), max_size=4
)


@settings(max_examples=60)
@given(st.lists(objects, min_size=1, max_size=3).filter(any))
def test_padding_adds_nothing_and_loses_nothing(images: list[Any]) -> None:
    """What is not padding is exactly each object's own points, scaled as if it were alone."""
    points = [[[point for point, _ in clicks] for clicks in image] for image in images]
    labels = [[[label for _, label in clicks] for clicks in image] for image in images]
    sizes = [(40 + 3 * i, 50 + 7 * i) for i in range(len(images))]
    out = processor(original_sizes=sizes, input_points=points, input_labels=labels)
    lengths = [[len(clicks) for clicks in image] for image in images]
    shape = (len(images), max(map(len, images)), max(n for image in lengths for n in image))
    assert out["input_labels"].shape == shape
    for b in range(shape[0]):
        for p in range(shape[1]):
            given_here = labels[b][p] if p < len(labels[b]) else []
            real = out["input_labels"][b, p] != -10
            assert out["input_labels"][b, p][real].tolist() == given_here
            if given_here:
                alone = processor(original_sizes=[sizes[b]], input_points=[[points[b][p]]])
                np.testing.assert_array_equal(out["input_points"][b, p][real], alone["input_points"][0, 0])


def test_a_mask_of_floats_0_and_1_is_no_logits() -> None:
    rough = np.zeros((16, 32))
    rough[:8] = 1
    expected = processor(original_sizes=SIZES[:1], input_masks=[[rough.astype(bool)]]).input_masks
    for dtype in (np.float32, np.float64, np.float16, np.int64, np.uint8, object):
        given_mask = processor(original_sizes=SIZES[:1], input_masks=[[rough.astype(dtype)]]).input_masks
        np.testing.assert_array_equal(given_mask, expected)
    zeros = processor(original_sizes=SIZES[:1], input_masks=[[np.zeros((16, 32), np.float32)]])
    assert (zeros.input_masks == 0).all()  # logits that say nothing


def test_labels_may_be_booleans() -> None:
    for labels in ([[[True, False]]], np.array([[[True, False]]]), [[np.array([True, False])]]):
        inputs = processor(original_sizes=SIZES[:1], input_points=[[[[1, 1], [2, 2]]]], input_labels=labels)
        assert inputs.input_labels.tolist() == [[[1, 0]]]


def test_a_point_on_the_edge_is_a_point() -> None:
    inputs = processor(original_sizes=SIZES[:1], input_points=[[[[200, 100]]]])
    assert inputs.input_points.tolist() == [[[[128, 64]]]]


MASK = np.ones((4, 4), bool)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": [[[1, 2]]]}, r"nested 4 deep \(image > object > point > coordinate\).*got int"),
        ({"input_points": [[[[[1, 2]]]]]}, "is a list, not a number"),
        ({"input_points": 5}, "got int where a list of images is due, at level 1"),
        ({"input_points": [5]}, "got int where a list of objects is due, at level 2"),
        ({"input_points": [[5]]}, "got int where a list of points is due, at level 3"),
        ({"input_points": [[None]]}, "got NoneType where a list of points is due"),
        ({"input_points": [[[["a", 2]]]]}, "coordinate 0 of point 0 of object 0 of image 0.* is str"),
        ({"input_points": [[[[NAN, 2]]]]}, "finite numbers; .* is nan"),
        ({"input_points": [[[[float("inf"), 2]]]]}, "finite numbers; .* is inf"),
        ({"input_points": [[[[1e300, 2]]]]}, "finite numbers; .* is 1e.300"),
        ({"input_points": [[[[1, 2, 3]]]]}, "must have 2 coordinates; .* has 3"),
        ({"input_points": [[[[1]]]]}, "must have 2 coordinates; .* has 1"),
        ({"input_points": []}, "must not be empty: there is no image"),
        ({"input_points": [[]]}, "must not be empty: there is no object in any image"),
        ({"input_points": [[[]]]}, "there is no point for object 0 of image 0"),
        ({"input_points": [[[]]], "input_boxes": [[None]]}, "no point and no box for object 0 of image 0"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[1, 0]]]}, "has 1 points and 2 labels"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[1], [0]]]}, "image 0 has 1 and 2"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[1]]}, "nested 3 deep"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[0.9]]]}, "among .*; object 0 of image 0 has 0.9"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[7]]]}, "among .* has 7"),
        ({"input_labels": [[[1]]]}, "without input_points"),
        ({"input_points": [[[[1, 2]]]], "input_boxes": [[[0, 0, 1, 1]] * 2]}, "input_points and input_boxes"),
        ({"input_boxes": [[[10, 0, 5, 9]]]}, r"x0 <= x1.*object 0 of image 0 is \(10, 0, 5, 9\)"),
        ({"input_boxes": [[[0, 9, 5, 1]]]}, "y0 <= y1"),
        ({"input_boxes": [[[0, NAN, 5, 1]]]}, "finite numbers"),
        ({"input_boxes": [[0, 1, 5, 9]]}, "nested 3 deep"),
        ({"input_boxes": [[[0, 1, 5]]]}, "must have 4 coordinates"),
        ({"input_boxes": [[None]]}, "there is no box for object 0 of image 0"),
        ({"input_masks": [MASK[0]]}, "got ndarray where a list of objects is due, at level 2"),
        ({"input_masks": [[MASK[0]]]}, "object 0 of image 0 has shape .4,."),
        ({"input_masks": [[np.arange(4).reshape(2, 2)]]}, "masks of two values.*compare it with a threshold"),
        ({"input_points": np.array(5)}, "got int where a list of images is due, at level 1"),
        ({"input_points": [[[[True, 2]]]]}, "must be numbers; coordinate 0 of point 0 .* is True"),
        ({"input_points": [[[[10**400, 2]]]]}, "finite numbers; .* is 1000"),
        ({"input_points": [[[[10**5000, 2]]]]}, "finite numbers; .* is a value of type int"),
        ({"input_points": "x" * 10_000}, "got str where a list of images is due"),
        ({"input_boxes": [[[0.1, 0.2, 0.5, 0.9]]]}, "in pixels of the photo.* 200 x 100 .*0.1.*first pixel"),
        ({"input_boxes": [[[200, 0, 300, 50]]]}, "must cover a part of the photo.*; that of object 0 of im"),
        ({"input_boxes": [[[-9, -9, 0, 50]]]}, "must cover a part of the photo"),
        ({"input_masks": np.array(5)}, "got ndarray where a list of images is due, at level 1"),
        ({"input_masks": [np.array(5)]}, "got ndarray where a list of objects is due, at level 2"),
        ({"input_masks": [[np.array(5)]]}, "object 0 of image 0 has shape ()"),
        ({"input_masks": [[[[1], [1, 2]]]]}, "that of object 0 of image 0 is not; got"),
        ({"input_masks": [[np.full((2, 2), 1e30)]]}, "finite logits; that of object 0 of image 0"),
        ({"input_masks": [[np.full((2, 2), NAN)]]}, "finite logits; that of object 0 of image 0"),
        (
            {"input_masks": [[MASK]], "input_boxes": [[[0, 0, 1, 1]] * 2]},
            "for as many objects: image 0 has 2 and 1",
        ),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_a_sentence(prompts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(original_sizes=SIZES[:1], **prompts)


@pytest.mark.parametrize("name", ["input_points", "input_boxes", "input_masks"])
def test_prompts_are_for_as_many_images_as_there_are(name: str) -> None:
    prompt = {"input_points": [[[1, 2]]], "input_boxes": [[1, 2, 3, 4]], "input_masks": [MASK]}[name]
    with pytest.raises(ValueError, match=f"{name} must be for as many images as there are, 2; got 3"):
        processor(original_sizes=SIZES, **{name: [prompt] * 3})


def test_defect_4_7_3_labels_are_counted_object_by_object() -> None:
    points, labels = [[[[1, 1]], [[2, 2], [3, 3]]]], [[[1, 1], [1]]]
    with pytest.raises(ValueError, match="object 0 of image 0 has 1 points and 2 labels"):
        processor(original_sizes=SIZES[:1], input_points=points, input_labels=labels)


def test_prompts_passed_are_not_altered() -> None:
    points = [[[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]]]
    array = np.ones((1, 1, 1, 2))
    processor(original_sizes=SIZES[:1], input_points=points)
    processor(original_sizes=SIZES[:1], input_points=array)
    assert points == [[[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]]]
    assert (array == 1).all()
