"""Synthetic clips: reproducible, and their masks tell what can be seen of each thing at each time."""

import numpy as np
import pytest

from sam2_jax.training.synthetic.clips import Clip, make_clip
from sam2_jax.training.synthetic.scenes import MIN_OBJECT

SIZE, FRAMES = 64, 12


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [make_clip(7, index, FRAMES, SIZE) for index in range(30)]


def test_the_same_numbers_give_the_same_bytes_whatever_was_drawn_before(clips: list[Clip]) -> None:
    make_clip(7, 3, 2, SIZE)
    for first, again in zip(clips[5], make_clip(7, 5, FRAMES, SIZE), strict=True):
        assert first.tobytes() == again.tobytes()


def test_other_indices_and_streams_give_other_clips(clips: list[Clip]) -> None:
    others = [make_clip(8, index, 1, SIZE) for index in range(10)]
    assert len({clip.images[0].tobytes() for clip in clips + others}) == 40


def test_arrays_have_the_documented_types_and_shapes(clips: list[Clip]) -> None:
    for images, masks, visibility in clips:
        assert (images.dtype, images.shape) == (np.uint8, (FRAMES, SIZE, SIZE, 3))
        objects = masks.shape[1]
        assert objects >= 1
        assert (masks.dtype, masks.shape) == (np.bool_, (FRAMES, objects, SIZE, SIZE))
        assert (visibility.dtype, visibility.shape) == (np.float32, (FRAMES, objects))


def test_a_clip_goes_on_as_it_began_and_a_stride_leaves_frames_out(clips: list[Clip]) -> None:
    for given, clip in ((clips[4], make_clip(7, 4, 5, SIZE)), (clips[4], make_clip(7, 4, 4, SIZE, stride=3))):
        step = 1 if len(clip.images) == 5 else 3
        for whole, part in zip(given, clip, strict=True):
            np.testing.assert_array_equal(whole[::step][: len(part)], part)


def test_objects_are_seen_in_the_first_frame_and_share_no_pixel(clips: list[Clip]) -> None:
    for clip in clips:
        assert (clip.masks[0].mean(axis=(1, 2)) >= MIN_OBJECT).all()
        assert clip.masks.sum(axis=1).max() <= 1


def test_visibility_is_the_share_of_a_thing_that_is_seen(clips: list[Clip]) -> None:
    for clip in clips:
        is_seen = clip.masks.any(axis=(2, 3))
        np.testing.assert_array_equal(clip.visibility > 0, is_seen)
        assert clip.visibility.max() <= 1
    # Whole things, seen for long: their area is what it should be, within what edges are worth.
    assert np.mean([(clip.visibility > 0.9).any(axis=0).mean() for clip in clips]) > 0.5


def test_things_move_hide_one_another_leave_and_come_back() -> None:
    """Of objects of 24 frames many move, and some are gone for a while and come back."""
    moved = gone = returned = objects = 0
    for index in range(20):
        masks = make_clip(3, index, 24, SIZE).masks
        is_seen = masks.any(axis=(2, 3))
        objects += masks.shape[1]
        moved += ((masks[0] & masks[6]).sum(axis=(1, 2)) < 0.7 * masks[0].sum(axis=(1, 2))).sum()
        gone += (~is_seen).any(axis=0).sum()
        returned += (np.maximum.accumulate(~is_seen) & is_seen).any(axis=0).sum()
    assert moved > 0.3 * objects
    assert gone > 0.15 * objects
    assert returned > 0.08 * objects


def test_masks_follow_the_pictures(clips: list[Clip]) -> None:
    """Most edges of things lie where the picture changes, in the last frame too."""
    images = np.stack([clip.images[-1] for clip in clips]).astype(int)
    across = np.abs(np.diff(images, axis=2)).max(axis=-1)
    edges = np.stack([np.diff(clip.masks[-1], axis=2).any(axis=0) for clip in clips])
    assert np.median(across[edges]) > 3 * np.median(across[~edges])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0), "seed must be a whole number of at least 0; got -1"),
        ((0, 0, 0), "frames must be a whole number from 1 to 10000; got 0"),
        ((0, 0, 2, 31), "size must be a whole number from 32 to 8192; got 31"),
        ((0, 0, 2, 64, 0), "stride must be a whole number from 1 to 10000; got 0"),
    ],
)
def test_impossible_numbers_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_clip(*arguments)
