"""Policies of memory: which frames they keep, on results made for it and in sessions."""

from typing import Any

import numpy as np
import pytest
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import VideoTracker
from sam2_jax.model.sam2_video import overlaps
from sam2_jax.video.plan import Rules, roles
from sam2_jax.video.policies import POLICIES
from sam2_jax.video.policies.boxes import box_of, overlap
from sam2_jax.video.policies.distractor import DistractorMemory
from sam2_jax.video.policies.motion import STEADY, WEIGHT, BoxFilter, MotionMemory
from sam2_jax.video.policies.released import ReleasedMemory
from sam2_jax.video.policies.selected import SelectedMemory

NOTHING = np.zeros((16, 16), np.float32)


def after(policy: ReleasedMemory, seen: dict[int, tuple[float, float]]) -> ReleasedMemory:
    """A policy that saw (score, iou) on frames."""
    for t, (score, iou) in seen.items():
        policy.saw(t, NOTHING, score, iou)
    return policy


def session(**options: Any) -> VideoTracker:
    return small_video_model().video(small_clip(), **{"memory_dtype": "float32", **options})


def test_the_released_memory_does_not_look_at_results() -> None:
    policy = after(ReleasedMemory(Rules()), dict.fromkeys(range(1, 12), (-5.0, 0.0)))
    assert policy.roles(12, 1, [0], range(1, 12)) == roles(12, 1, [0], range(1, 12), Rules())


def test_selected_memories_leave_out_an_occlusion() -> None:
    """Hidden on frames 6 to 9, and half seen, which the network doubts, on 5 and 10."""
    seen = dict.fromkeys(range(1, 13), (4.0, 0.9)) | dict.fromkeys(range(6, 10), (-3.0, 0.8))
    policy = after(SelectedMemory(Rules()), seen | {5: (2.0, 0.4), 10: (2.0, 0.5)})
    spatial, pointers = policy.roles(13, 1, [0], range(1, 13))
    assert spatial == ((0, 6), (12, 0), (11, 1), (4, 2), (3, 3), (2, 4), (1, 5))
    assert pointers == roles(13, 1, [0], range(1, 13), Rules()).pointers


def test_the_frame_right_before_is_always_seen() -> None:
    policy = after(SelectedMemory(Rules()), dict.fromkeys(range(1, 7), (-3.0, 0.1)))
    assert policy.roles(7, 1, [0], range(1, 7)).spatial == ((0, 6), (6, 0))
    back = after(SelectedMemory(Rules()), {8: (-3.0, 0.1), 9: (3.0, 0.9)})
    assert back.roles(7, -1, [10], [8, 9]).spatial == ((10, 6), (8, 0), (9, 1))


def test_a_frame_tracked_again_is_judged_again() -> None:
    policy = after(SelectedMemory(Rules()), {1: (3.0, 0.9), 2: (3.0, 0.9)})
    policy.saw(1, NOTHING, 3.0, 0.3)
    assert policy.roles(3, 1, [0], [1, 2]).spatial == ((0, 6), (2, 0))
    policy.keep_only([1])
    assert policy.roles(4, 1, [0], [1, 2]).spatial == ((0, 6),)


@pytest.mark.usefixtures("quick_compilation")
def test_a_session_of_trusted_frames_is_the_released_one(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {}
    for trust in (None, True, False):
        if trust is not None:
            monkeypatch.setattr(SelectedMemory, "is_trusted", lambda self, score, iou, trust=trust: trust)
        one = session(memory="released" if trust is None else "selected")
        one.prompt(0, 1, [(12, 30)])
        runs[trust] = stacked(one.propagate())
    assert_same(runs[None], runs[True])
    assert_same(tuple(x[:3] for x in runs[None]), tuple(x[:3] for x in runs[False]))
    assert np.abs(runs[None][1][3:] - runs[False][1][3:]).max() > 1e-3


@pytest.mark.usefixtures("quick_compilation")
def test_a_stream_remembers_trusted_frames_of_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them is kept on the host any more."""
    judged = iter([True] * 8 + [False] * 40)
    monkeypatch.setattr(SelectedMemory, "is_trusted", lambda self, score, iou: next(judged))
    one = small_video_model().video(iter(small_clip(40)), memory="selected")
    one.prompt(0, 1, [(12, 30)])
    list(one.propagate())
    assert one.output(1, 5) is None
    found = one._objects[1].roles(40, 1)
    assert [f for f, _ in found.spatial] == [0, 39, 8, 7, 6, 5, 4]
    assert {8, 7, 6, 5, 4} <= set(one._objects[1].slots.memories)


def square(x: int, y: int, side: int = 8, size: int = 64) -> np.ndarray:
    """Logits of a mask that is a square."""
    low = np.full((size, size), -5.0, np.float32)
    low[y : y + side, x : x + side] = 5.0
    return low


def test_boxes_are_the_same_on_host_and_device() -> None:
    masks = np.stack([square(3, 5) > 0, square(10, 2, 20) > 0, np.zeros((64, 64), bool)])
    assert box_of(masks[0]) == (3, 5, 11, 13)
    assert box_of(masks[2]) is None
    expected = (4.5, 0.0, 20.0, 12.0)
    found = overlaps(masks[None], np.float32([expected]))
    on_host = [overlap(box_of(masks[0]), expected), overlap(box_of(masks[1]), expected), 0.0]
    np.testing.assert_allclose(found[0], on_host, rtol=1e-6)
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)


def test_a_filter_follows_a_steady_motion() -> None:
    filter_ = BoxFilter((0, 0, 8, 8))
    for t in range(1, 20):
        filter_.predict()
        filter_.update((3 * t, t, 3 * t + 8, t + 8))
    np.testing.assert_allclose(filter_.predict(), (60, 20, 68, 28), atol=0.1)
    np.testing.assert_allclose(filter_.predict(), (63, 21, 71, 29), atol=0.2)


def tracked(policy: ReleasedMemory, lows: dict[int, np.ndarray], iou: float = 0.9) -> list[Any]:
    """What a policy expects of frames, each of which it then sees."""
    found = []
    for t, low in lows.items():
        found.append(policy.expect(t, 1))
        policy.saw(t, low, 4.0, iou)
    return found


def test_motion_counts_once_it_is_steady() -> None:
    policy = MotionMemory(Rules())
    found = tracked(policy, {t: square(2 * t, 10) for t in range(1, STEADY + 2)})
    assert found[0] is None  # nothing was seen yet
    assert [weight for _, weight in found[1:]] == [0] * (STEADY - 1) + [WEIGHT]
    box, _ = found[-1]
    assert overlap(box, box_of(square(2 * (STEADY + 1), 10) > 0)) > 0.9


def test_a_mask_that_jumps_to_a_look_alike_is_no_memory() -> None:
    """A look-alike far away, whose mask the network trusts, takes the object's place on frames 11 and 12."""
    lows = {t: square(2 * t, 10) for t in range(1, 11)} | {11: square(50, 50), 12: square(50, 50)}
    policy = MotionMemory(Rules())
    tracked(policy, lows)
    spatial = policy.roles(14, 1, [0], range(1, 14)).spatial
    assert spatial == ((0, 6), (13, 0), (10, 1), (9, 2), (8, 3), (7, 4), (6, 5))
    selected = SelectedMemory(Rules())
    tracked(selected, lows)
    assert [f for f, _ in selected.roles(14, 1, [0], range(1, 14)).spatial] == [0, 13, 12, 11, 10, 9, 8]


@pytest.mark.parametrize("broken", ["doubt", "nothing", "prompt", "jump"])
def test_a_motion_that_is_broken_off_begins_anew(broken: str) -> None:
    policy = MotionMemory(Rules())
    tracked(policy, {t: square(2 * t, 10) for t in range(1, STEADY + 2)})
    t = STEADY + 2
    if broken == "prompt":
        policy.prompted(t)
    elif broken == "jump":
        t += 5
    else:
        low = NOTHING if broken == "nothing" else square(2 * t, 10)
        tracked(policy, {t: low}, iou=0.2)
    assert policy.expect(t + (broken != "jump"), 1) is None


def test_a_frame_with_a_look_alike_on_it_is_kept() -> None:
    """From frame 8 on a second candidate has the look-alike, too; told apart on 8 and, 6 later, on 14."""
    policy = DistractorMemory(Rules())
    kept = []
    for t in range(1, 20):
        low = square(2 * t, 10)
        both = np.maximum(low, square(50, 50)) if t >= 8 else low
        policy.saw(t, low, 4.0, 0.9)
        if policy.is_kept(t, low, 0.9, np.stack([low, both, low])):
            kept.append(t)
    assert kept == [8, 14]
    spatial, pointers = policy.roles(20, 1, [0, *kept], range(1, 20))
    # Four rows are left; from the frame right before every fifth.
    assert spatial == ((0, 6), (14, 6), (8, 6), (19, 0), (15, 1), (10, 2), (5, 3))
    assert dict(pointers)[0] == 20
    assert [d for f, d in pointers if f not in (0, *kept)] == [d for d in range(1, 16) if 20 - d not in kept]


@pytest.mark.parametrize(
    ("low", "candidates", "iou"),
    [
        (square(30, 10), [square(50, 50)], 0.7),  # not sure
        (square(30, 10, 12), [square(50, 50)], 0.9),  # grown all at once
        (square(30, 10), [square(31, 10)], 0.9),  # no more than another edge
        (square(30, 10), [square(30, 10)], 0.9),
        (NOTHING, [square(50, 50)], 0.9),
    ],
)
def test_other_frames_are_not_kept(low: np.ndarray, candidates: list[np.ndarray], iou: float) -> None:
    policy = DistractorMemory(Rules())
    for t in range(1, 10):
        assert not policy.is_kept(t, square(20 + t, 10), 0.9, square(20 + t, 10)[None])
    assert not policy.is_kept(10, low, iou, np.stack([low, *candidates]) if low.size > 256 else low[None])


def test_hidden_frames_are_no_memories_of_a_distractors_bank() -> None:
    policy = DistractorMemory(Rules())
    for t in range(1, 20):
        policy.saw(t, NOTHING if t in (15, 17) else square(2 * t, 10), 4.0, 0.9)
    spatial, pointers = policy.roles(20, 1, [0], range(1, 20))
    assert spatial == ((0, 6), (19, 0), (10, 1), (5, 2))
    assert {15, 17}.isdisjoint(f for f, _ in pointers)


@pytest.mark.usefixtures("quick_compilation")
def test_the_mask_where_the_object_is_expected_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = {t: (t % 5, t % 3, t % 5 + 6.0, t % 3 + 9.0) for t in range(12)}
    seen = {}

    class Steered(MotionMemory):
        wants_candidates = True

        def expect(self, t: int, direction: int) -> Any:
            return boxes[t], 1.0

        def is_kept(self, t: int, low: np.ndarray, iou: float, candidates: np.ndarray) -> bool:
            seen[t] = low, candidates
            return False

    monkeypatch.setitem(POLICIES, "motion", Steered)
    one = session(memory="motion")
    one.prompt(0, 1, [(12, 30)])
    list(one.propagate())
    assert sorted(seen) == list(range(1, 12))
    choices = set()
    for t, (low, candidates) in seen.items():
        merits = [overlap(box_of(mask > 0), boxes[t]) if (mask > 0).any() else 0.0 for mask in candidates]
        choices.add(int(np.argmax(merits)))
        np.testing.assert_array_equal(low, candidates[int(np.argmax(merits))])
    assert len(choices) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("keep", ["all", "none"])
def test_kept_frames_are_attended_to_like_prompted_ones(monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    monkeypatch.setattr(DistractorMemory, "is_kept", lambda self, t, *_: t in (3, 9, 15, 21))
    one = small_video_model().video(small_clip(30), memory="distractor", keep=keep)
    one.prompt(0, 1, [(12, 30)])
    found = list(one.propagate())
    assert [each.frame for each in found if each.is_conditioning[0]] == [0]
    known = one._objects[1]
    assert list(known.kept) == [9, 15, 21]
    wanted = known.roles(30, 1)
    assert [f for f, row in wanted.spatial if row == 6] == [0, 21, 15, 9]
    one._memories.load(known, wanted)
    assert set(known.slots.conditioning) == {0, 9, 15, 21}
    assert known.slots.missing(wanted) == ([], [])


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("memory", POLICIES)
def test_every_policy_tracks_objects_that_do_not_influence_each_other(memory: str) -> None:
    points = {1: (12, 30), 2: (50, 10)}
    together = session(memory=memory)
    for id_, point in points.items():
        together.prompt(0, id_, [point])
    frames, *found = stacked(together.propagate())
    for row, (id_, point) in enumerate(points.items()):
        alone = session(memory=memory)
        alone.prompt(0, id_, [point])
        assert_same((frames, *(x[:, row : row + 1] for x in found)), stacked(alone.propagate()), 1e-4)
