"""Connected components: Meta's rules for holes and sprinkles, against a flood fill written out here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam2_jax.processing.components import fill_holes_and_remove_sprinkles, label_components

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


def flood_fill_components(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The 8-connected components of a mask [H, W], each a list of its pixels."""
    rest = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    components = []
    while rest:
        component = [rest.pop()]
        for y, x in component:  # grows while it is walked
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & rest
            rest -= near
            component.extend(near)
        components.append(component)
    return components


def clean_by_flood_fill(logits: np.ndarray, threshold: float, hole: float, sprinkle: float) -> np.ndarray:
    cleaned = logits.copy()
    for original, out in zip(logits, cleaned, strict=True):
        for inside, area, value in ((False, hole, threshold + 10), (True, sprinkle, threshold - 10)):
            for component in flood_fill_components((original > threshold) == inside):
                if 0 < len(component) <= area:
                    out[tuple(np.transpose(component))] = value
    return cleaned


@settings(max_examples=60)
@given(
    arrays.arrays(np.float32, SHAPES, elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])),
    st.sampled_from([-1.0, 0.0, 0.5]),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_cleaning_equals_a_flood_fill(logits: np.ndarray, threshold: float, hole: int, sprinkle: int) -> None:
    before = logits.copy()
    cleaned = fill_holes_and_remove_sprinkles(logits, threshold, hole, sprinkle)
    np.testing.assert_array_equal(cleaned, clean_by_flood_fill(logits, threshold, hole, sprinkle))
    assert cleaned.dtype == np.float32
    assert not np.shares_memory(cleaned, logits)
    np.testing.assert_array_equal(logits, before)


def test_defect_9a4_hole_and_sprinkle_areas_are_honoured() -> None:
    """The reference takes both areas and does nothing with them."""
    logits = np.full((20, 20), -3, np.float32)
    logits[4:14, 4:14] = 5
    logits[8:10, 8:10] = -1  # a hole of 4
    logits[17, 17] = logits[18, 18] = 2  # a sprinkle of 2, joined by its corner
    np.testing.assert_array_equal(fill_holes_and_remove_sprinkles(logits), logits)
    assert (fill_holes_and_remove_sprinkles(logits, max_hole_area=3) == logits).all()
    assert (fill_holes_and_remove_sprinkles(logits, max_hole_area=4)[8:10, 8:10] == 10).all()
    assert (fill_holes_and_remove_sprinkles(logits, max_sprinkle_area=1) == logits).all()
    removed = fill_holes_and_remove_sprinkles(logits, -1.0, max_sprinkle_area=2)
    assert removed[17, 17] == removed[18, 18] == -11


def test_a_sprinkle_inside_a_filled_hole_is_still_removed() -> None:
    logits = np.full((9, 9), 5, np.float32)
    logits[3:6, 3:6] = -5
    logits[4, 4] = 5
    cleaned = fill_holes_and_remove_sprinkles(logits, 0.0, 8, 1)
    assert cleaned[4, 4] == -10  # components are those of the original foreground, as Meta's
    assert cleaned[3, 3] == 10


def test_small_components_at_the_border_count() -> None:
    logits = np.full((6, 6), -1, np.float32)
    logits[0, 0] = 1
    assert fill_holes_and_remove_sprinkles(logits, max_sprinkle_area=1)[0, 0] == -10


@settings(max_examples=40)
@given(arrays.arrays(bool, SHAPES))
def test_labels_and_areas(masks: np.ndarray) -> None:
    labels, areas = label_components(masks)
    np.testing.assert_array_equal(labels > 0, masks)
    expected = [component for mask in masks for component in flood_fill_components(mask)]
    assert sorted(areas[1:].tolist()) == sorted(map(len, expected))
    assert areas[0] == 0
    for label in range(1, len(areas)):
        assert (labels == label).sum() == areas[label]
        assert len({index[0] for index in np.argwhere(labels == label)}) == 1  # within one mask


@pytest.mark.parametrize("shape", [(0, 8, 8), (2, 0, 8), (8, 0)], ids=str)
def test_of_nothing_nothing_is_cleaned(shape: tuple[int, ...]) -> None:
    assert fill_holes_and_remove_sprinkles(np.ones(shape), 0.0, 3, 3).shape == shape


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must be \[..., height, width\]; got shape \(3,\)"):
        label_components(np.ones(3))
    with pytest.raises(ValueError, match="max_hole_area must be an area in pixels, or 0 for none; got -1"):
        fill_holes_and_remove_sprinkles(np.zeros((2, 2)), max_hole_area=-1)
