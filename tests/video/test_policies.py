"""Policies of memory: which frames they keep, on results made for it and in sessions."""

from typing import Any

import numpy as np
import pytest
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import VideoTracker
from sam2_jax.video.plan import Rules, roles
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
