"""Mask logits to masks of the pictures' own size."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_jax import Sam2ImageProcessor, Sam2Processor
from sam2_jax.processing.post_processing import post_process_masks

SIZES = [(30, 20), (16, 8)]
LOGITS = np.random.default_rng(0).standard_normal((2, 3, 2, 8, 8)).astype(np.float32)


def test_each_photo_has_its_size() -> None:
    out = post_process_masks(LOGITS, SIZES)
    assert [(m.shape, m.dtype) for m in out] == [((3, 2, 30, 20), bool), ((3, 2, 16, 8), bool)]
    full = post_process_masks(LOGITS, SIZES, binarize=False)
    assert full[0].dtype == np.float32
    np.testing.assert_array_equal(full[1] > 0, out[1])
    np.testing.assert_array_equal(full[1] > 0.7, post_process_masks(LOGITS, SIZES, 0.7)[1])


def test_both_processors_do_it() -> None:
    for processor in (Sam2ImageProcessor(), Sam2Processor()):
        for ours, expected in zip(
            processor.post_process_masks(LOGITS, SIZES), post_process_masks(LOGITS, SIZES), strict=True
        ):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "masks",
    [
        jnp.asarray(LOGITS),
        list(LOGITS),
        [jnp.asarray(x) for x in LOGITS],
        tuple(LOGITS),
        LOGITS.astype(np.float64),
    ],
    ids=["JAX", "list", "list of JAX", "tuple", "float64"],
)
@pytest.mark.parametrize("sizes", [SIZES, np.array(SIZES), jnp.asarray(SIZES), [np.array(s) for s in SIZES]])
def test_logits_and_sizes_in_every_form(masks: Any, sizes: Any) -> None:
    for ours, expected in zip(
        post_process_masks(masks, sizes), post_process_masks(LOGITS, SIZES), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_bfloat16_logits_are_taken_as_float32() -> None:
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    out = post_process_masks(logits, SIZES, binarize=False)
    assert out[0].dtype == np.float32
    np.testing.assert_array_equal(
        out[0], post_process_masks(logits.astype(jnp.float32), SIZES, binarize=False)[0]
    )


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3),
    options=st.fixed_dictionaries(
        {
            "max_hole_area": st.sampled_from([0, 3]),
            "max_sprinkle_area": st.sampled_from([0, 4]),
            "apply_non_overlapping_constraints": st.booleans(),
            "mask_threshold": st.sampled_from([0.0, 0.5, -12.0]),
            "binarize": st.booleans(),
        }
    ),
    seed=st.integers(0, 99),
)
def test_a_batch_equals_its_items_alone(sizes: list[tuple[int, int]], options: dict, seed: int) -> None:
    logits = 3 * np.random.default_rng(seed).standard_normal((len(sizes), 3, 2, 6, 7)).astype(np.float32)
    together = post_process_masks(logits, sizes, **options)
    for i, size in enumerate(sizes):
        np.testing.assert_array_equal(
            together[i], post_process_masks(logits[i : i + 1], [size], **options)[0]
        )


def blob() -> np.ndarray:
    """One object's logits: a square with a hole of 4 pixels, and a sprinkle of 2 that touches nothing."""
    logits = np.full((1, 1, 16, 16), -5, np.float32)
    logits[0, 0, 3:12, 3:12] = 5
    logits[0, 0, 6:8, 6:8] = -1
    logits[0, 0, 14, 13:15] = 1
    return logits


def test_defect_9a4_holes_and_sprinkles_up_to_the_area_change_sides() -> None:
    size = [(16, 16)]
    plain = post_process_masks([blob()], size)[0][0, 0]
    for area, hole_is_filled in ((3, False), (4, True)):
        out = post_process_masks([blob()], size, max_hole_area=area)[0][0, 0]
        assert out[6:8, 6:8].all() == hole_is_filled
        assert out[14, 13]
    for area, sprinkle_is_gone in ((1, False), (2, True)):
        out = post_process_masks([blob()], size, max_sprinkle_area=area)[0][0, 0]
        assert out[14, 13] != sprinkle_is_gone
        assert not out[6, 6]
    both = post_process_masks([blob()], size, max_hole_area=4, max_sprinkle_area=2)[0][0, 0]
    assert (both != plain).sum() == 6


def test_areas_are_of_the_logits_not_of_the_photo() -> None:
    out = post_process_masks([blob()], [(64, 64)], max_hole_area=4)[0][0, 0]
    assert out[24:32, 24:32].all()


def test_non_overlapping_objects_share_no_pixel() -> None:
    logits = np.random.default_rng(1).standard_normal((1, 4, 3, 8, 8)).astype(np.float32) + 1
    for threshold in (0.0, -15.0):  # the reference's objects overlap again below -10
        out = post_process_masks(logits, [(20, 30)], threshold, apply_non_overlapping_constraints=True)[0]
        assert out.sum(axis=0).max() == 1
    assert post_process_masks(logits, [(20, 30)])[0].sum(axis=0).max() > 1


def test_defect_9a10_what_was_passed_is_not_altered() -> None:
    masks, sizes = [x.copy() for x in LOGITS], np.array(SIZES)
    given_list = list(masks)
    post_process_masks(
        given_list, sizes, max_hole_area=5, max_sprinkle_area=5, apply_non_overlapping_constraints=True
    )
    assert all(a is b for a, b in zip(given_list, masks, strict=True))
    for after, before in zip(masks, LOGITS, strict=True):
        np.testing.assert_array_equal(after, before)
    assert sizes.tolist() == [list(size) for size in SIZES]


def test_no_objects_give_no_masks() -> None:
    assert post_process_masks(LOGITS[:, :0], SIZES)[0].shape == (0, 2, 30, 20)
    assert post_process_masks(LOGITS[:, :0], SIZES, apply_non_overlapping_constraints=True)[1].shape[0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((LOGITS, SIZES[:1]), "original_sizes must be for 2 images, as masks are; got 1"),
        ((LOGITS, [*SIZES, (4, 4)]), "original_sizes must be for 2 images, as masks are; got 3"),
        ((LOGITS, [(4, 4), (0, 4)]), "original_sizes must be .height, width."),
        ((LOGITS[0], SIZES + SIZES[:1]), r"image 0 has shape \(2, 8, 8\) and type float32"),
        ((LOGITS > 0, SIZES), "must be the model's logits.*type bool"),
        (([[1.0]], SIZES[:1]), "image 0 has shape .1,."),
        ((LOGITS, SIZES, 0.0, True, -1), "max_hole_area must be an area in pixels, or 0 for none; got -1"),
        ((None, SIZES), "masks must be the model's logits; got NoneType"),
        ((LOGITS, SIZES, "a"), "mask_threshold must be a number; got 'a'"),
        ((LOGITS, SIZES, 0.0, True, "a"), "max_hole_area must be a number; got 'a'"),
        ((LOGITS, SIZES, 0.0, True, 0, float("nan")), "max_sprinkle_area must be"),
    ],
)
def test_a_call_that_cannot_be_meant_is_a_sentence(call: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        post_process_masks(*call)
