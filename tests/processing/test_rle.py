"""Run lengths: COCO's, with pycocotools as the oracle."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.drawing import label_map
from sam2_jax.processing.rle import convert_rle, decode_rle, encode_rle, rle_area, rle_bounding_box

coco = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
SPECIAL = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel, outside": np.zeros((1, 1), bool),
    "one pixel, inside": np.ones((1, 1), bool),
    "first pixel": np.eye(1, 30, dtype=bool).reshape(5, 6),
    "very long runs": np.arange(2000 * 3000).reshape(2000, 3000) > 5_000_000,
    "longest difference": np.arange(3000)[None].repeat(2000, 0) == 1,
    "checkerboard": np.indices((40, 31)).sum(0) % 2 == 0,
    "no pixels": np.zeros((0, 4), bool),
}


def check_against_pycocotools(mask: np.ndarray) -> None:
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_rle(mask, compressed=True)
    assert ours["size"] == expected["size"]
    assert ours["counts"].encode() == expected["counts"]
    plain = encode_rle(mask)
    assert sum(plain["counts"]) == mask.size
    assert convert_rle(plain, compressed=True) == convert_rle(ours, compressed=True) == ours
    assert convert_rle(ours, compressed=False) == plain
    for rle in (ours, expected, plain, json.loads(json.dumps(plain)), json.loads(json.dumps(ours))):
        decoded = decode_rle(rle)
        assert decoded.dtype == bool
        np.testing.assert_array_equal(decoded, mask)
        assert rle_area(rle) == int(mask.sum())
        assert rle_bounding_box(rle) == bounding_box(mask)
    np.testing.assert_array_equal(coco.decode(ours), mask)


@settings(max_examples=60)
@given(MASKS)
def test_random_masks_equal_pycocotools(mask: np.ndarray) -> None:
    check_against_pycocotools(mask)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_masks_equal_pycocotools(name: str) -> None:
    check_against_pycocotools(SPECIAL[name])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=12))
def test_any_counts_equal_pycocotools(counts: list[int]) -> None:
    """Also those that no mask encodes to, with empty runs in the middle."""
    rle = {"size": [1, sum(counts)], "counts": counts}
    if not 0 < sum(counts) < 2**21:
        return
    compressed = coco.frPyObjects(rle, 1, sum(counts))
    np.testing.assert_array_equal(decode_rle(compressed), decode_rle(rle))
    np.testing.assert_array_equal(decode_rle(rle), coco.decode(compressed))


def test_run_lengths_go_down_columns_and_begin_outside() -> None:
    assert encode_rle(np.array([[1, 0], [1, 1]], bool)) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


def test_what_is_encoded_is_not_altered() -> None:
    mask = np.array([[1, 0], [1, 1]])
    encode_rle(mask, compressed=True)
    np.testing.assert_array_equal(mask, [[1, 0], [1, 1]])
    rle: dict[str, Any] = {"size": (2, 2), "counts": np.array([1, 3])}
    decode_rle(rle)[:] = False
    np.testing.assert_array_equal(rle["counts"], [1, 3])


def test_logits_are_no_mask() -> None:
    mask = np.eye(4, 5)
    for numbers in (mask, mask.astype(np.float32), mask.astype(np.uint8), 255 * mask.astype(np.uint8)):
        assert encode_rle(numbers) == encode_rle(mask > 0)
    for numbers in (mask - 0.5, 9 * mask, mask * np.nan):
        for read in (encode_rle, lambda mask: label_map(mask[None])):
            with pytest.raises(ValueError, match="logits > 0 makes a mask"):
                read(numbers)


def test_several_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="mask must be one mask, .* got shape"):
        encode_rle(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 2], "counts": [2, 3]}, "must sum to 2 x 2 = 4; got 5"),
        ({"size": [2, 2], "counts": []}, "must sum to 2 x 2 = 4; got 0"),
        ({"size": [2, 2], "counts": ""}, "must sum to 2 x 2 = 4; got 0"),
        ({"size": [2, 2], "counts": [6, -2]}, "must not be negative; got -2"),
        ({"size": [1, 2], "counts": [2**63 - 1, 2**63 - 1, 4]}, "must sum to 1 x 2 = 2"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "counts must be a list of integers"),
        ({"size": [2, 2], "counts": ["4"]}, "counts must be a list of integers"),
        ({"size": [2, 2], "counts": [[4]]}, "counts must be a list of integers"),
        ({"size": [2, 2], "counts": [[4], 1]}, "counts must be a list of integers"),
        ({"size": [2, 2], "counts": [2**70]}, "counts must be a list of integers"),
        ({"size": [2, 2], "counts": None}, "counts must be a list of integers"),
        ({"size": [2, 2, 1], "counts": [4]}, r"size must be \[height, width\]; got \[2, 2, 1\]"),
        ({"size": [-2, -2], "counts": [4]}, r"size must be \[height, width\]"),
        ({"size": "22", "counts": [4]}, "size must be a list of integers"),
        ({"counts": [4]}, "must be a dictionary with size and counts"),
        ([4], "must be a dictionary with size and counts"),
        ({"size": [2, 2], "counts": "1 2"}, "characters"),
        ({"size": [2, 2], "counts": "1é"}, "characters"),
        ({"size": [2, 2], "counts": b"1~"}, "characters"),
        ({"size": [2, 2], "counts": "4P"}, "break off within a number"),
        ({"size": [2, 2], "counts": "P" * 20 + "0"}, "a number of 21 digits"),
        ({"size": [2, 2], "counts": "O5"}, "must not be negative; got -1"),
        ({"size": [2, 2], "counts": "21"}, "must sum to 2 x 2 = 4; got 3"),
    ],
)
def test_malformed_run_lengths_are_refused(rle: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle(rle)


@settings(max_examples=60)
@given(MASKS, st.data())
def test_a_string_cut_short_is_refused(mask: np.ndarray, data: st.DataObject) -> None:
    rle = encode_rle(mask, compressed=True)
    cut = data.draw(st.integers(0, len(rle["counts"]) - 1))
    with pytest.raises(ValueError, match="must sum to|break off"):
        decode_rle(rle | {"counts": rle["counts"][:cut]})


@settings(max_examples=60)
@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=12))
def test_any_string_is_a_mask_or_a_value_error(text: str) -> None:
    try:
        mask = decode_rle({"size": [3, 4], "counts": text})
    except ValueError:
        return
    assert mask.shape == (3, 4)
