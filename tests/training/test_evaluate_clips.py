"""J, F and presence of tracked clips: what perfect, empty and wrong answers are worth."""

from collections.abc import Iterator

import numpy as np
import pytest

from sam2_jax.training.clip_batches import SyntheticClips
from sam2_jax.training.evaluate_clips import Point, comes_back, evaluate_tracker

EXAMPLES = [SyntheticClips(4, 64, 8, strides=(2,)).example(i) for i in range(3)]
Answers = Iterator[tuple[np.ndarray, np.ndarray]]


def truth_of(images: np.ndarray) -> np.ndarray:
    (found,) = (each.masks for each in EXAMPLES if each.images is images)
    return found


def perfect(images: np.ndarray, points: list[Point]) -> Answers:
    truth = truth_of(images)
    assert len(points) == truth.shape[1]
    for (x, y), mask in zip(points, truth[0], strict=True):
        assert mask[int(y), int(x)]
    for masks in truth:
        yield masks, masks.any(axis=(1, 2))


def test_a_perfect_answer_is_worth_1() -> None:
    found = evaluate_tracker(perfect, EXAMPLES)
    assert (found.region, found.contour, found.first, found.presence) == (1, 1, 1, 1)
    assert (found.clips, found.objects) == (3, sum(each.masks.shape[1] for each in EXAMPLES))


def test_nothing_is_worth_what_is_not_there() -> None:
    def nothing(images: np.ndarray, points: list[Point]) -> Answers:
        for masks in truth_of(images):
            yield np.zeros_like(masks), np.zeros(len(masks), bool)

    found = evaluate_tracker(nothing, EXAMPLES)
    absent = [~each.masks[1:].any(axis=(2, 3)) for each in EXAMPLES]
    share = np.concatenate([each.mean(axis=0) for each in absent]).mean()
    assert 0 < share < 0.5
    np.testing.assert_allclose([found.region, found.contour, found.presence], share)
    assert found.first == 0


def test_the_first_frame_is_not_counted() -> None:
    def late(images: np.ndarray, points: list[Point]) -> Answers:
        for t, (masks, presence) in enumerate(perfect(images, points)):
            yield masks & (t > 0), presence

    found = evaluate_tracker(late, EXAMPLES)
    assert (found.region, found.first) == (1, 0)


def test_objects_come_back_that_were_gone_and_are_seen_for_two_frames() -> None:
    seen = {
        "stays": "111111",
        "goes": "110000",
        "returns": "100011",
        "gone for a frame": "110111",
        "seen for a frame": "100010",
        "returns, then goes": "100110",
    }
    truth = np.array([[int(x) for x in each] for each in seen.values()], bool).T[:, :, None, None]
    found = comes_back(truth.repeat(8, axis=2).repeat(8, axis=3))
    assert [name for name, back in zip(seen, found, strict=True) if back] == ["returns", "returns, then goes"]


def test_examples_are_needed() -> None:
    with pytest.raises(ValueError, match="examples must not be empty"):
        evaluate_tracker(perfect, [])
