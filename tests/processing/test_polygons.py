"""Polygons: exact round trips, simplification within its tolerance, pycocotools as the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from sam2_jax.processing.components import label_components
from sam2_jax.processing.polygons import mask_to_polygons, polygons_to_mask
from sam2_jax.processing.rle import decode_rle

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
every = settings(max_examples=60)


def blob(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    """A mask of smooth random parts, some with holes."""
    noise = np.random.default_rng(seed).standard_normal((height, width))
    return ndimage.gaussian_filter(noise, 5) > 0


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@every
@given(MASKS)
def test_round_trip_with_holes_is_exact(mask: np.ndarray) -> None:
    before = mask.copy()
    polygons = mask_to_polygons(mask, holes=True)
    np.testing.assert_array_equal(polygons_to_mask(polygons, *mask.shape), mask)
    assert len(polygons) == len(label_components(mask)[1]) - 1
    np.testing.assert_array_equal(mask, before)


@every
@given(MASKS)
def test_round_trip_fills_holes_otherwise(mask: np.ndarray) -> None:
    filled = ndimage.binary_fill_holes(mask)  # a hole is 4-connected, as beside 8-connected parts it must be
    np.testing.assert_array_equal(polygons_to_mask(mask_to_polygons(mask), *mask.shape), filled)
    np.testing.assert_array_equal(polygons_to_mask(mask_to_polygons(filled), *mask.shape), filled)


def test_an_outline_runs_clockwise_along_the_pixels_edges() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:5] = True
    assert mask_to_polygons(mask) == [[2, 1, 5, 1, 5, 3, 2, 3]]
    assert all(isinstance(number, float) for number in mask_to_polygons(mask)[0])


def test_pixels_that_touch_by_a_corner_are_one_part() -> None:
    assert len(mask_to_polygons(np.eye(3, dtype=bool))) == 1
    assert len(mask_to_polygons(np.eye(3, dtype=bool)[::-1])) == 1


def test_a_hole_is_joined_to_its_own_part() -> None:
    mask = np.zeros((9, 20), bool)
    mask[1:8, 1:8] = mask[1:8, 10:17] = True
    mask[3:6, 3:6] = mask[4, 12] = False
    mask[4, 4] = True  # an island in the hole is a part of its own
    polygons = mask_to_polygons(mask, holes=True)
    assert sorted(map(len, polygons)) == [8, 20, 20]
    one_by_one = [polygons_to_mask([polygon], 9, 20) for polygon in polygons]
    np.testing.assert_array_equal(np.sum(one_by_one, axis=0), mask)
    assert sorted(map(len, mask_to_polygons(mask))) == [8, 8, 8]


@pytest.mark.parametrize("tolerance", [0.75, 1.0, 2.0])
def test_simplified_outlines_stay_within_the_tolerance(tolerance: float) -> None:
    filled = np.pad(ndimage.binary_fill_holes(blob(0)), 3)
    polygons = mask_to_polygons(filled, tolerance)
    result = polygons_to_mask(polygons, *filled.shape)
    assert sum(map(len, polygons)) < 0.7 * sum(map(len, mask_to_polygons(filled)))
    # A pixel that changed lies near the outline: its centre half a pixel beyond the tolerance at most.
    to_outline = np.where(filled, *(ndimage.distance_transform_edt(m) for m in (filled, ~filled))) - 0.5
    assert to_outline[result != filled].max(initial=0) <= tolerance + 0.5


def test_tolerance_straightens_a_staircase() -> None:
    triangle = np.tri(40, dtype=bool)
    assert len(mask_to_polygons(triangle)[0]) == 2 * 82
    assert len(mask_to_polygons(triangle, 1.0)[0]) <= 2 * 5


def test_what_is_thinner_than_the_tolerance_vanishes() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    mask[10:30, 10:30] = False
    mask[19:21, 19:21] = True
    assert len(mask_to_polygons(mask, 1.0, holes=True)) == 2
    assert len(mask_to_polygons(mask, 4.0, holes=True)) == 1
    assert mask_to_polygons(mask, 100.0, holes=True) == []


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_reads_our_polygons(seed: int, holes: bool) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = blob(seed)
    polygons = mask_to_polygons(mask, holes=holes)
    decoded = decode_rle(coco.merge(coco.frPyObjects(polygons, *mask.shape)))
    assert intersection_over_union(decoded, polygons_to_mask(polygons, *mask.shape)) == 1


@every
@given(st.lists(st.tuples(st.floats(-5, 20), st.floats(-5, 20)), min_size=3, max_size=8))
def test_pixels_are_inside_if_their_centres_are(corners: list[tuple[float, float]]) -> None:
    mask = polygons_to_mask([[value for corner in corners for value in corner]], 12, 15)
    for row, column in np.ndindex(mask.shape):
        x, y = column + 0.5, row + 0.5
        inside = False
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 >= y) != (y1 >= y):
                crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                if abs(crossing - x) < 1e-9:
                    return  # an edge through a centre may go either way
                inside ^= crossing < x
        assert mask[row, column] == inside


def test_polygons_are_united_and_cut_at_the_border() -> None:
    mask = polygons_to_mask([[-9, -9, 2, -9, 2, 9, -9, 9], [1, 1, 3, 1, 3, 2, 1, 2]], 4, 5)
    expected = np.zeros((4, 5), bool)
    expected[:, :2] = expected[1, 2] = True
    np.testing.assert_array_equal(mask, expected)
    assert not polygons_to_mask([], 4, 5).any()
    assert not polygons_to_mask([[10, 10, 20, 10, 20, 20], [0, -5, 3, -5, 3, -2]], 4, 5).any()


@pytest.mark.parametrize(
    "polygons", [[[0, 0, 1, 1]], [[0, 0, 1, 1, 2]], [[0, 0, 1, 1, 2, np.nan]], [0, 0, 1, 1, 2, 2], ["abcdef"]]
)
def test_what_is_no_polygon_is_refused(polygons: list) -> None:
    with pytest.raises(ValueError, match="polygons must be a list of polygons"):
        polygons_to_mask(polygons, 4, 4)


def test_other_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="mask must be one mask"):
        mask_to_polygons(np.zeros((2, 3, 4), bool))
    with pytest.raises(ValueError, match="tolerance must be a distance in pixels, at least 0; got -1"):
        mask_to_polygons(np.zeros((3, 4), bool), -1)
    with pytest.raises(ValueError, match="height and width must be positive; got 0 and 4"):
        polygons_to_mask([], 0, 4)
