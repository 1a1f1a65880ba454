"""Simulated prompts: distances against scipy, where clicks and boxes fall, and what they say."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sam2_jax.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE
from sam2_jax.training.prompts import (
    PromptOptions,
    Prompts,
    bounding_boxes,
    cells_to_pixels,
    correct,
    deepest_cell,
    first_prompts,
    random_cell,
    squared_depth,
)

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

# Of maps and inputs: cells are 4 x 4 pixels.
CELLS, IMAGE_SIZE = (16, 24), (64, 96)
ROOM = 2 + PromptOptions().correction_rounds
KEY = jax.random.key(0)
POINT_ONLY = PromptOptions(point=1, box=0)
BOX_ONLY = PromptOptions(point=0, box=1)
MASK_ONLY = PromptOptions(point=0, box=0, mask=1)
MIXED = PromptOptions(point=2, box=5, mask=3)
DEEPEST = PromptOptions(deepest=1.0)
ERRORS_ONLY = PromptOptions(from_target=0)
EITHER_WAY = pytest.mark.parametrize("options", [ERRORS_ONLY, DEEPEST], ids=["random", "deepest"])

_NUMBERS = ("point", "box", "mask", "box_noise", "from_target")


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(prompt: Any, deepest: float, arguments: tuple[Any, ...], numbers: dict[str, Any]) -> Prompts:
    return prompt(*arguments, IMAGE_SIZE, PromptOptions(**numbers, deepest=deepest))


def compiled(prompt: Any, options: PromptOptions, *arguments: Any) -> Prompts:
    """Run `first_prompts` or `correct`; the options' numbers are traced: one program serves many options."""
    numbers = {name: np.float32(getattr(options, name)) for name in _NUMBERS}
    return _compiled(prompt, options.deepest, arguments, numbers)


def blobs(*shape: int, seed: int = 0) -> np.ndarray:
    """Masks with smooth edges and several parts each: bool."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, (0,) * (len(shape) - 2) + (1.5, 1.5)) > 0.05


def depths(region: np.ndarray) -> np.ndarray:
    """Distance to the nearest cell outside a region [H, W], the border counted as outside."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


TARGETS = blobs(2, 30, *CELLS)
# Right in most places: the errors are thin here and thick there.
LOGITS = np.where(TARGETS ^ blobs(2, 30, *CELLS, seed=1) & blobs(2, 30, *CELLS, seed=2), 3.0, -3.0)
LOGITS = LOGITS.astype(np.float32)
MISSED, EXCESS = TARGETS & (LOGITS <= 0), ~TARGETS & (LOGITS > 0)


def first(options: PromptOptions, targets: Any = TARGETS, seed: int = 0) -> Prompts:
    return compiled(first_prompts, options, jax.random.key(seed), targets)


def corrected(
    options: PromptOptions, logits: Any = LOGITS, targets: Any = TARGETS, number: int = 0, seed: int = 0
) -> Prompts:
    """What began with a point, (5.5, 5.5), after one correction."""
    shape = (*targets.shape[:2], ROOM)
    is_first = np.arange(ROOM) == 0
    before = Prompts(
        points=np.broadcast_to(np.float32(5.5 * is_first)[:, None], (*shape, 2)),
        labels=np.broadcast_to(np.int32(np.where(is_first, POSITIVE, PADDING)), shape),
        masks=np.zeros(targets.shape, np.float32),
        has_mask=np.zeros(targets.shape[:2], bool),
    )
    return compiled(correct, options, jax.random.key(seed), before, np.int32(number), logits, targets)


def cells_of(points: jax.Array) -> np.ndarray:
    """Cells (x, y) whose centres points in pixels of the input are; asserts that they are centres."""
    cells = (np.asarray(points) + 0.5) / 4 - 0.5
    np.testing.assert_array_equal(cells, cells.round())
    return cells.astype(int)


def at(masks: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Values of masks [B, P, H, W] at cells (x, y) [B, P, 2]."""
    pictures, objects = np.indices(cells.shape[:2])
    return masks[pictures, objects, cells[..., 1], cells[..., 0]]


REGIONS = {
    "blobs": blobs(12, *CELLS, seed=5),
    "specks": np.random.default_rng(6).random((12, *CELLS)) < 0.5,
    "almost full": np.random.default_rng(7).random((12, *CELLS)) < 0.99,
    "full": np.ones((12, *CELLS), bool),
    "empty": np.zeros((12, *CELLS), bool),
    "one row": np.random.default_rng(8).random((12, 1, 9)) < 0.8,
    "one column": np.random.default_rng(9).random((12, 9, 1)) < 0.8,
}


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS.keys())
def test_depth_is_scipys_distance_to_the_outside_exactly(region: np.ndarray) -> None:
    ours = np.asarray(jax.jit(squared_depth)(region))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(np.sqrt(ours.astype(np.float64)), [depths(r) for r in region])


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS.keys())
def test_the_deepest_cell_is_the_first_of_scipys_largest_distance(region: np.ndarray) -> None:
    cells, squared = jax.jit(deepest_cell)(region)
    expected = np.array([depths(r) for r in region]).reshape(len(region), -1)
    y, x = np.unravel_index(expected.argmax(axis=-1), region.shape[1:])
    np.testing.assert_array_equal(cells, np.stack([x, y], axis=-1))
    np.testing.assert_array_equal(np.sqrt(np.asarray(squared, np.float64)), expected.max(axis=-1))


draw_cells = jax.jit(lambda region: jax.vmap(random_cell, (0, None))(jax.random.split(KEY, 4000), region))


def test_random_cells_are_all_of_the_region_and_each_as_often() -> None:
    region = np.zeros((5, 7), bool)
    region[1:4, 2:4] = region[4, 6] = region[0, 0] = True
    counts = np.zeros(region.shape, int)
    np.add.at(counts, tuple(np.asarray(draw_cells(region), int).T[::-1]), 1)
    assert not counts[~region].any()
    assert np.abs(counts[region] - 500).max() < 4 * 500**0.5  # 4000 draws of 8 cells


def test_random_cells_of_an_empty_region_are_all_of_the_map() -> None:
    cells = np.asarray(draw_cells(np.zeros((5, 7), bool)), int)
    assert {tuple(cell) for cell in cells.tolist()} == {(x, y) for x in range(7) for y in range(5)}


def test_centres_of_cells_are_between_their_pixels() -> None:
    cells = jnp.array([[0.0, 0.0], [2.0, 1.0]])
    np.testing.assert_array_equal(cells_to_pixels(cells, (4, 2)), [[1.5, 0.5], [9.5, 2.5]])


def test_bounding_boxes_include_their_last_cells() -> None:
    masks = blobs(20, *CELLS, seed=3) & blobs(20, *CELLS, seed=4)
    masks[0] = False
    masks[0, 5, 7] = True
    expected = [[x.min(), y.min(), x.max(), y.max()] for y, x in map(np.nonzero, masks)]
    np.testing.assert_array_equal(jax.jit(bounding_boxes)(masks), expected)


def kinds_of(prompts: Prompts) -> np.ndarray:
    """Which of point, box and mask each object [B, P] begins with; asserts that labels say just that."""
    room = prompts.labels.shape[-1]
    by_kind = np.full((3, room), PADDING)
    by_kind[0, 0], by_kind[1, :2] = POSITIVE, (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
    kinds = np.where(prompts.has_mask, 2, np.where(prompts.labels[..., 0] == POSITIVE, 0, 1))
    np.testing.assert_array_equal(prompts.labels, by_kind[kinds])
    return kinds


def test_objects_begin_with_points_boxes_and_masks_as_often_as_asked() -> None:
    kinds = np.array([kinds_of(first(MIXED, seed=seed)) for seed in range(40)])
    shares = np.bincount(kinds.ravel()) / kinds.size
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.04)


@pytest.mark.parametrize(("options", "kind"), [(POINT_ONLY, 0), (BOX_ONLY, 1), (MASK_ONLY, 2)])
def test_what_is_never_asked_for_never_happens(options: PromptOptions, kind: int) -> None:
    assert (kinds_of(first(options)) == kind).all()


def test_there_is_room_for_a_box_and_all_corrections() -> None:
    prompts = first(MIXED)
    assert prompts.points.shape == (2, 30, ROOM, 2)
    assert prompts.labels.shape == (2, 30, ROOM)
    assert (prompts.points.dtype, prompts.labels.dtype) == (np.float32, np.int32)


def test_first_points_lie_on_the_object() -> None:
    cells = cells_of(first(POINT_ONLY).points[:, :, 0])
    assert at(TARGETS, cells).all()


def test_first_points_of_the_deepest_kind_lie_deepest_in_the_object() -> None:
    prompts = first(POINT_ONLY._replace(deepest=True))
    deepest, _ = jax.jit(deepest_cell)(TARGETS)
    np.testing.assert_array_equal(cells_of(prompts.points[:, :, 0]), deepest)


def tight_boxes(targets: np.ndarray) -> np.ndarray:
    """Outer edges (x0, y0, x1, y1) of masks in pixels, whose centres are whole numbers: [B, P, 4]."""
    pixels = targets.repeat(4, axis=2).repeat(4, axis=3)
    boxes = [
        [x.min(), y.min(), x.max(), y.max()] for y, x in map(np.nonzero, pixels.reshape(-1, *IMAGE_SIZE))
    ]
    return np.reshape(boxes, (*targets.shape[:2], 4)) + np.array([-0.5, -0.5, 0.5, 0.5])


def boxed(noise: float, targets: np.ndarray) -> np.ndarray:
    """Boxes that objects begin with, [B, P, 4]."""
    points = first(BOX_ONLY._replace(box_noise=noise), targets).points
    return np.asarray(points[:, :, :2]).reshape(*points.shape[:2], 4)


def rectangles(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The same object, cells from left to right and top to bottom, for every one."""
    targets = np.zeros_like(TARGETS)
    targets[:, :, top:bottom, left:right] = True
    return targets


def test_boxes_without_noise_are_tight_but_end_with_the_image() -> None:
    targets = TARGETS & (np.arange(30) % 2 == 0)[:, None, None]  # every other object is small
    targets |= rectangles(3, 5, 6, 7)
    last = np.array([95, 63, 95, 63])
    expected = tight_boxes(targets)
    assert (expected < 0).any()
    assert (expected > last).any()
    np.testing.assert_array_equal(boxed(0, targets), expected.clip(0, last))


@pytest.mark.parametrize(
    ("noise", "reach"),
    [
        (0.05, (0.8, 0.4)),  # shares of the box's sides, 16 and 8 pixels
        (0.9, (1.875, 1.25)),  # 20 / 1024 of the image's sides, 96 and 64 pixels
    ],
)
def test_sides_of_boxes_stray_either_way_within_the_noise(noise: float, reach: tuple[float, float]) -> None:
    targets = rectangles(10, 5, 14, 7)
    strayed = boxed(noise, targets) - tight_boxes(targets)
    bound = np.tile(reach, 2)
    assert (np.abs(strayed) <= bound + 1e-5).all()
    assert (strayed.max(axis=(0, 1)) > 0.8 * bound).all()
    assert (strayed.min(axis=(0, 1)) < -0.8 * bound).all()


def test_noisy_boxes_stay_in_the_image() -> None:
    boxes = boxed(0.5, rectangles(0, 0, 24, 16))
    assert boxes.min() == 0
    assert boxes[..., 2].max() == 95
    assert boxes[..., 3].max() == 63


def test_first_masks_are_sure_logits_of_the_object() -> None:
    np.testing.assert_array_equal(first(MASK_ONLY).masks, np.where(TARGETS, 10, -10))


def test_only_one_click_and_nothing_else_is_ambiguous() -> None:
    assert first(POINT_ONLY).is_ambiguous.all()
    assert not first(BOX_ONLY).is_ambiguous.any()
    assert not first(MASK_ONLY).is_ambiguous.any()
    assert not corrected(DEEPEST).is_ambiguous.any()


def test_a_click_that_corrects_a_given_mask_is_not_ambiguous() -> None:
    prompts = compiled(correct, PromptOptions(), KEY, first(MASK_ONLY), np.int32(0), LOGITS, TARGETS)
    is_one_click = (prompts.labels != PADDING).sum(axis=-1) == 1
    assert (is_one_click & (prompts.labels == POSITIVE).any(axis=-1)).any()
    assert not prompts.is_ambiguous.any()


def test_options_may_be_whole_numbers() -> None:
    """A program is traced for each, and nothing is computed."""
    prompts = jax.eval_shape(lambda: first(PromptOptions()))
    for options in (PromptOptions(1, 0, 0, 0, from_target=0), PromptOptions(0, 1, 1, 1, from_target=1)):
        begun = jax.eval_shape(lambda o=options: first_prompts(KEY, TARGETS, IMAGE_SIZE, o))
        assert begun == prompts
        again = jax.eval_shape(
            lambda before, o=options: correct(KEY, before, jnp.int32(0), LOGITS, TARGETS, IMAGE_SIZE, o),
            prompts,
        )
        assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, prompts)


@pytest.mark.parametrize("deepest", [False, True])
def test_an_empty_target_gets_prompts_inside_the_image(deepest: bool) -> None:
    prompts = first(PromptOptions(deepest=deepest), np.zeros_like(TARGETS))
    assert (prompts.points >= 0).all()
    assert (np.asarray(prompts.points) < np.array(IMAGE_SIZE[::-1])).all()


def test_random_corrections_fall_on_errors_and_say_of_which_kind() -> None:
    assert MISSED.any(axis=(2, 3)).all()
    assert EXCESS.any(axis=(2, 3)).all()
    kinds = set()
    for seed in range(5):
        prompts = corrected(ERRORS_ONLY, seed=seed)
        cells, labels = cells_of(prompts.points[:, :, 2]), np.asarray(prompts.labels[:, :, 2])
        np.testing.assert_array_equal(labels == POSITIVE, at(MISSED, cells))
        np.testing.assert_array_equal(labels == NEGATIVE, at(EXCESS, cells))
        kinds |= set(labels.ravel().tolist())
    assert kinds == {POSITIVE, NEGATIVE}


def test_random_corrections_reach_every_error() -> None:
    targets, logits = np.zeros_like(TARGETS), np.full_like(LOGITS, -1)
    targets[:, :, 2, 3:5] = True
    logits[:, :, 9, 7:9] = 1
    found = set()
    for seed in range(3):
        cells = cells_of(corrected(ERRORS_ONLY, logits, targets, seed=seed).points[:, :, 2])
        found |= {tuple(cell) for cell in cells.reshape(-1, 2).tolist()}
    assert found == {(3, 2), (4, 2), (7, 9), (8, 9)}


def test_some_random_corrections_fall_anywhere_on_the_object() -> None:
    prompts = corrected(PromptOptions(from_target=1))
    cells = cells_of(prompts.points[:, :, 2])
    assert at(TARGETS, cells).all()
    assert not at(MISSED, cells).all()
    assert (prompts.labels[:, :, 2] == POSITIVE).all()


def test_deepest_corrections_fall_deepest_in_the_deeper_error() -> None:
    prompts = corrected(DEEPEST)
    cells, labels = cells_of(prompts.points[:, :, 2]), np.asarray(prompts.labels[:, :, 2])
    for index in np.ndindex(2, 30):
        missed, excess = depths(MISSED[index]), depths(EXCESS[index])
        depth = missed if labels[index] == POSITIVE else excess
        x, y = cells[index]
        assert depth[y, x] == max(missed.max(), excess.max())
        assert depth.argmax() == y * CELLS[1] + x
    assert set(labels.ravel().tolist()) == {POSITIVE, NEGATIVE}


@EITHER_WAY
def test_where_nothing_is_wrong_the_click_confirms_the_object(options: PromptOptions) -> None:
    prompts = corrected(options, np.where(TARGETS, 1, -1).astype(np.float32))
    assert at(TARGETS, cells_of(prompts.points[:, :, 2])).all()
    assert (prompts.labels[:, :, 2] == POSITIVE).all()


@EITHER_WAY
def test_a_logit_of_zero_is_outside(options: PromptOptions) -> None:
    targets, left = rectangles(4, 4, 20, 12), np.arange(CELLS[1]) < 12
    prompts = corrected(options, np.where(targets & left, 1, 0).astype(np.float32), targets)
    assert at(targets & ~left, cells_of(prompts.points[:, :, 2])).all()
    assert (prompts.labels[:, :, 2] == POSITIVE).all()


@EITHER_WAY
def test_a_mask_of_an_empty_target_is_clicked_away(options: PromptOptions) -> None:
    prompts = corrected(options, LOGITS, np.zeros_like(TARGETS))
    assert at(LOGITS > 0, cells_of(prompts.points[:, :, 2])).all()
    assert (prompts.labels[:, :, 2] == NEGATIVE).all()


@EITHER_WAY
def test_an_empty_target_that_is_left_out_rightly_is_never_confirmed(options: PromptOptions) -> None:
    prompts = corrected(options, np.full_like(LOGITS, -1), np.zeros_like(TARGETS))
    assert (prompts.points[:, :, 2] >= 0).all()
    assert (np.asarray(prompts.points[:, :, 2]) < np.array(IMAGE_SIZE[::-1])).all()
    assert (prompts.labels[:, :, 2] == NEGATIVE).all()


@pytest.mark.parametrize("prompt", [first, lambda options, seed: corrected(options, number=1, seed=seed)])
def test_a_share_of_clicks_goes_to_the_deepest_point(prompt: Any) -> None:
    slot = 0 if prompt is first else 3
    options = POINT_ONLY._replace(from_target=0.0)
    deepest, random, mixed = (
        np.concatenate(
            [prompt(options._replace(deepest=share), seed=seed).points[:, :, slot] for seed in range(10)]
        )
        for share in (1.0, 0.0, 0.25)
    )
    is_deepest = (mixed == deepest).all(axis=-1)
    np.testing.assert_array_equal(mixed[~is_deepest], random[~is_deepest])
    by_chance = (random == deepest).all(axis=-1).mean()
    # 600 clicks
    assert is_deepest.mean() == pytest.approx(0.25 + 0.75 * by_chance, abs=0.08)


@pytest.mark.parametrize("number", [0, 1, 6])
def test_each_round_adds_one_click_and_keeps_the_others(number: int) -> None:
    prompts = corrected(DEEPEST, number=number)
    is_first, is_new = np.arange(ROOM) == 0, np.arange(ROOM) == 2 + number
    np.testing.assert_array_equal(
        prompts.labels != PADDING, np.broadcast_to(is_first | is_new, prompts.labels.shape)
    )
    assert (prompts.points[:, :, 0] == 5.5).all()
    assert not prompts.points[:, :, ~(is_first | is_new)].any()


def test_a_round_beyond_the_last_adds_no_click() -> None:
    prompts = corrected(DEEPEST, number=DEEPEST.correction_rounds)
    assert ((prompts.labels != PADDING) == (np.arange(ROOM) == 0).reshape(1, 1, ROOM)).all()


def test_the_mask_that_was_corrected_is_handed_back() -> None:
    prompts = corrected(DEEPEST)
    np.testing.assert_array_equal(prompts.masks, LOGITS)
    assert prompts.has_mask.all()


def test_compiled_prompts_are_the_same() -> None:
    plain = first_prompts(KEY, jnp.asarray(TARGETS), IMAGE_SIZE, MIXED)
    fast = first(MIXED)
    np.testing.assert_allclose(plain.points, fast.points, rtol=1e-6)
    for name in ("labels", "masks", "has_mask"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(fast, name))
    arguments = KEY, fast, jnp.int32(1), jnp.asarray(LOGITS), jnp.asarray(TARGETS)
    after = correct(*arguments, IMAGE_SIZE, MIXED)
    for left, right in zip(after, compiled(correct, MIXED, *arguments), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_same_key_gives_the_same_prompts_and_another_key_others() -> None:
    for prompt in (lambda seed: first(MIXED, seed=seed), lambda seed: corrected(ERRORS_ONLY, seed=seed)):
        one, again, other = prompt(1), prompt(1), prompt(2)
        for left, right in zip(one, again, strict=True):
            np.testing.assert_array_equal(left, right)
        assert (one.points != other.points).any()
