"""Synthetic scenes: reproducible, and their masks tell what can be seen of each thing and each part."""

import numpy as np
import pytest

from sam2_jax.training.synthetic.scenes import MAX_OF_PARENT, MIN_OBJECT, MIN_PART, make_scene

SIZE = 128


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(7, index, SIZE) for index in range(40)]


def test_the_same_numbers_give_the_same_bytes(scenes):
    for index in (0, 39):
        for first, again in zip(scenes[index], make_scene(7, index, SIZE), strict=True):
            assert first.tobytes() == again.tobytes()


def test_a_scene_depends_on_nothing_drawn_before():
    np.random.default_rng(0).uniform(size=3)
    first = make_scene(3, 5, SIZE).image
    make_scene(3, 4, SIZE)
    np.testing.assert_array_equal(make_scene(3, 5, SIZE).image, first)


def test_other_indices_and_other_seeds_give_other_scenes(scenes):
    others = [make_scene(8, index, SIZE) for index in range(10)]
    assert len({scene.image.tobytes() for scene in scenes + others}) == 50


def test_arrays_have_the_documented_types_and_shapes(scenes):
    for image, masks, parents in scenes:
        assert (image.dtype, image.shape) == (np.uint8, (SIZE, SIZE, 3))
        assert (masks.dtype, masks.shape) == (np.bool_, (len(parents), SIZE, SIZE))
        assert parents.dtype == np.int64
        assert len(masks) >= 1


def test_every_mask_is_large_enough_to_be_seen(scenes):
    for _, masks, parents in scenes:
        shares = masks.mean(axis=(1, 2))
        assert (shares[parents < 0] >= MIN_OBJECT).all()
        assert (shares[parents >= 0] >= MIN_PART).all()
        assert (shares < 1).all()


def test_parts_lie_inside_the_thing_that_they_follow(scenes):
    parts = 0
    for _, masks, parents in scenes:
        for index in np.flatnonzero(parents >= 0):
            parent = parents[index]
            assert parent < index
            assert parents[parent] == -1
            assert not (masks[index] & ~masks[parent]).any()
            assert masks[index].sum() <= MAX_OF_PARENT * masks[parent].sum()
            parts += 1
    assert parts > 20


def test_no_pixel_belongs_to_two_things_or_to_two_parts(scenes):
    for _, masks, parents in scenes:
        for level in (masks[parents < 0], masks[parents >= 0]):
            assert level.sum(axis=0).max() <= 1


def test_masks_stand_out_from_what_is_around_them(scenes):
    """Most edges of things lie where the picture changes."""
    across = [np.abs(np.diff(scene.image.astype(int), axis=1)).max(axis=-1) for scene in scenes]
    edges = [np.diff(scene.masks[scene.parents < 0], axis=2).any(axis=0) for scene in scenes]
    at_edges = np.concatenate([change[edge] for change, edge in zip(across, edges, strict=True)])
    elsewhere = np.concatenate([change[~edge] for change, edge in zip(across, edges, strict=True)])
    assert np.median(at_edges) > 4 * np.median(elsewhere)


def test_a_scene_is_composed_alike_at_every_size():
    shared, total = 0, 0
    for index in range(6):
        small, large = make_scene(2, index, 64), make_scene(2, index, 192)
        seen = small.masks[small.parents < 0].any(axis=0)
        also = large.masks[large.parents < 0].any(axis=0)[1::3, 1::3]
        shared, total = shared + (seen & also).sum(), total + (seen | also).sum()
    assert shared > 0.85 * total


@pytest.mark.parametrize("size", [32, 101, 320])
def test_other_sizes_work(size):
    image, masks, _ = make_scene(1, 0, size)
    assert image.shape == (size, size, 3)
    assert masks.shape[1:] == (size, size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 64), "seed must be a whole number of at least 0; got -1"),
        ((0, -2, 64), "index must be a whole number of at least 0; got -2"),
        ((0, 0, 31), "size must be a whole number from 32 to 8192; got 31"),
        ((0, 0, 10**9), "size must be a whole number from 32 to 8192"),
        (("x", 0, 64), "seed must be a whole number"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_scene(*arguments)
