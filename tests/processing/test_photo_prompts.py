"""Prompts on the objects of one photo: what is taken, what is refused and why."""

from typing import Any

import numpy as np
import pytest

from sam2_jax.processing.photo_prompts import join, read_box, read_labels, read_objects, read_points

SIZE = 90, 120
INSIDE = "the photo, which is 120 x 90 pixels"


def test_points_are_taken_in_every_form() -> None:
    for points in ([(1, 2), (119.5, 89)], ((1, 2), (119.5, 89)), np.array([[1, 2], [119.5, 89]])):
        assert read_points(points, SIZE) == ((1.0, 2.0), (119.5, 89.0))
    assert read_points(None, SIZE) == read_points([], SIZE) == ()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(120.5, 5)], rf"points must lie in {INSIDE}; got \(120.5, 5\)"),
        ([(5, 91)], rf"points must lie in {INSIDE}; got \(5, 91\)"),
        (5, r"points must be a list of \(x, y\)"),
        ({1, 2}, "points must be numbers"),
        ([(10**400, 5)], "points must be numbers"),
        ([(5, 5), (-0.5, 5)], rf"points must lie in {INSIDE}; got \(-0.5, 5\)"),
        ([(np.nan, 5)], "points must be finite numbers"),
        ([(np.inf, 5)], "points must be finite numbers"),
        ((5, 5), r"points must be a list of \(x, y\).*got an array of shape \(2,\)"),
        ([(5, 5, 5)], r"shape \(1, 3\)"),
        ([(5, 5), (5,)], "points must be numbers"),
        ([("a", "b")], "points must be numbers"),
    ],
)
def test_wrong_points_are_refused(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_points(points, SIZE)


def test_labels_default_to_positive() -> None:
    assert read_labels(None, 2) == (1, 1)
    assert read_labels(np.array([1, 0]), 2) == (1, 0)
    assert read_labels([], 0) == ()
    assert read_labels([True, False], 2) == (1, 0)
    assert read_labels(np.array([True, False]), 2) == (1, 0)


def test_a_photos_edges_belong_to_it() -> None:
    """As the processor has it, and boxes."""
    assert read_points([(120, 90), (0, 0)], SIZE) == ((120, 90), (0, 0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1], "labels must be one for each of 2 points"),
        ([1, 2], r"labels must be 1 \(on the object\) or 0 \(off it\); got 2"),
        ([1, -10], "got -10"),
        ([1, 0.5], "got 0.5"),
        ([1, None], "labels must be numbers"),
        ([1, -1], "got -1: leave out a point that is neither"),
        ([1, 2], "got 2: give a box as a box"),
    ],
)
def test_wrong_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(labels, 2)


def test_a_box_may_reach_beyond_the_photo() -> None:
    assert read_box([-5, -5, 500, 500], SIZE) == (-5, -5, 500, 500)
    assert read_box(None, SIZE) is read_box([], SIZE) is None


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((50, 50, 20, 20), r"x0 < x1 and y0 < y1; got \(50, 50, 20, 20\): is it \(x, y, width, height\)"),
        ((50, 50, 50, 60), "x0 < x1"),
        ((-9, 5, 0, 9), f"a box must cover a part of {INSIDE}"),
        ((120, 5, 130, 9), "cover a part"),
        ((0, 0, 1201, 50), f"a box must not reach far beyond {INSIDE}"),
        ((0, 0, np.nan, 50), "finite"),
        ((0, 0, 50), r"\(x0, y0, x1, y1\); got shape \(3,\)"),
    ],
)
def test_wrong_boxes_are_refused(box: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_box(box, SIZE)


def test_a_box_is_its_corners_and_nothing_is_not_a_point() -> None:
    assert join([(1.0, 2.0)], [0], (3, 4, 5, 6)) == ([(1.0, 2.0), (3, 4), (5, 6)], [0, 2, 3])
    assert join([], [], None) == ([(0.0, 0.0)], [-1])


def test_objects_have_points_a_box_or_both() -> None:
    points, labels = read_objects(
        [[(1, 2)], None, [], [(3, 4), (5, 6)]],
        [[0], None, [], None],
        [None, (0, 0, 9, 9), (1, 1, 9, 9), (2, 2, 9, 9)],
        SIZE,
    )
    assert points == [[(1, 2)], [(0, 0), (9, 9)], [(1, 1), (9, 9)], [(3, 4), (5, 6), (2, 2), (9, 9)]]
    assert labels == [[0], [2, 3], [2, 3], [1, 1, 2, 3]]
    assert read_objects(np.ones((2, 1, 2)), None, None, SIZE) == ([[(1, 1)], [(1, 1)]], [[1], [1]])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "nothing to segment: give points, boxes or both"),
        ({"points": []}, "nothing to segment"),
        ({"points": [[(1, 1)], []]}, "object 1: there is nothing to segment"),
        ({"points": [[(1, 1)], [(1, 91)]]}, f"object 1: points must lie in {INSIDE}"),
        ({"points": [[(1, 1)]], "boxes": [None, None]}, "one entry for each object; got 1 points, 2 boxes"),
        ({"points": [[(1, 1)]], "labels": []}, "got 1 points, 0 labels"),
        ({"boxes": [(9, 9, 1, 1)]}, "object 0: a box must be"),
        ({"boxes": [None], "labels": [[1]]}, "object 0: labels must be one for each of 0 points"),
        ({"points": {"a": 1}}, "points must be a list"),
        ({"boxes": 3}, "boxes must be a list"),
    ],
)
def test_wrong_objects_are_refused(prompts: dict[str, Any], message: str) -> None:
    arguments = {"points": None, "labels": None, "boxes": None} | prompts
    with pytest.raises(ValueError, match=message):
        read_objects(**arguments, size=SIZE)
