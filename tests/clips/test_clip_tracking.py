"""Ways through a clip, what is new on a frame, and sessions that track several frames at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import write_folder
from small_video import small_clip, small_video_model

from sam2_jax.clips import record
from sam2_jax.clips.discovery import new_masks
from sam2_jax.clips.reading import open_clip
from sam2_jax.clips.record import Record
from sam2_jax.clips.tracking import Everything, Passes, Prompt, track
from sam2_jax.clips.tracks import TrackedFrame

COUNT = 14

pytestmark = pytest.mark.usefixtures("quick_compilation")


def click(t: int, object_id: int) -> Prompt:
    return Prompt(t, object_id, ((14.0, 30.0),), (1,))


def test_ways_through_a_clip() -> None:
    prompts = [click(5, 1), click(8, 2), click(9, 1)]
    forward, back, both = (Passes(prompts, COUNT, way) for way in ("forward", "reverse", "both"))
    assert forward.ranges == [range(5, COUNT)]
    assert back.ranges == [range(9, -1, -1)]
    assert both.ranges == [range(5, COUNT), range(7, -1, -1)]
    assert both.total == 9 + 8
    assert forward.prompts(0, 9, are_first=False) == [prompts[2]]
    assert forward.prompts(0, 9, are_first=True) == []
    assert back.prompts(0, 9, are_first=True) == [prompts[2]]
    assert back.prompts(0, 5, are_first=False) == [prompts[0]]
    assert both.prompts(1, 5, are_first=True) == []
    assert [both.counts(1, 6, object_id) for object_id in (1, 2)] == [False, True]
    assert Passes([], COUNT, "forward").ranges == [range(COUNT)]


def box(x: int, width: int = 10) -> np.ndarray:
    mask = np.zeros((20, 60), bool)
    mask[5:15, x : x + width] = True
    return mask


def test_what_is_new_on_a_frame() -> None:
    tracked = [box(0), box(30, 20)]
    same, part, new, apart = box(2), box(32, 6), box(14), box(52, 8)
    found = new_masks([same, part, new, box(15), np.zeros((20, 60), bool), apart], tracked, 9)
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], new)
    np.testing.assert_array_equal(found[1], apart)
    assert len(new_masks([new, apart], tracked, 1)) == 1
    assert new_masks([new, apart], tracked, 0) == []
    # One that is about half of what is there is new, as long as most of it lies elsewhere.
    assert len(new_masks([box(25, 12)], [box(30, 20)], 9)) == 0
    assert len(new_masks([box(20, 18)], [box(30, 20)], 9)) == 1


class Killed(BaseException):
    """What no part of the program catches."""


def kill_at(patch: pytest.MonkeyPatch, call: int) -> None:
    """Have the work end before so manieth row is kept."""
    original, calls = Record.add, iter(range(1, 1000))

    def add(self: Record, *arguments: Any) -> None:
        if next(calls) == call:
            raise Killed
        original(self, *arguments)

    patch.setattr(Record, "add", add)


@pytest.mark.parametrize("killed_at", [3, 8])
def test_what_is_found_on_the_way_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Nothing on the first frame, an object on the sixth, another on the eleventh."""
    monkeypatch.setattr(record, "SECONDS", 0.0)
    monkeypatch.setattr(record, "_SHARE", 1e9)
    frames = small_clip(COUNT)
    clip = open_clip(write_folder(tmp_path / "clip", frames))
    left, right = np.zeros((2, 64, 64), bool)
    left[20:40, 2:20], right[44:60, 40:60] = True, True

    def find(picture: np.ndarray) -> list[np.ndarray]:
        (t,) = np.flatnonzero((frames == picture).all(axis=(1, 2, 3)))
        return {0: [], 5: [left], 10: [right]}[int(t)]

    def run(folder: str) -> list[TrackedFrame]:
        kept = Record(tmp_path / folder, {"made": "of this"})
        tracker = small_video_model().video(clip, keep="none")
        everything = Everything(find, 5, 9)
        track(tracker, clip, Passes([], COUNT, "forward"), kept, everything, progress=False)
        return list(kept.frames(range(COUNT)))

    undisturbed = run("undisturbed")
    assert [len(frame.tracks) for frame in undisturbed] == 5 * [0] + 5 * [1] + 4 * [2]
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
        with pytest.raises(Killed):
            run("killed")
    assert run("killed") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [4, 8])
def test_frames_tracked_at_once_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """What is tracked ahead is not taken back for a session to be saved: it would not be the same again."""
    monkeypatch.setattr(record, "SECONDS", 0.0)
    monkeypatch.setattr(record, "_SHARE", 1e9)
    clip = open_clip(write_folder(tmp_path / "clip", small_clip(COUNT)))
    passes = Passes([click(0, 1), click(6, 2)], COUNT, "forward")

    def run(folder: str) -> list[TrackedFrame]:
        kept = Record(tmp_path / folder, {"made": "of this"})
        tracker = small_video_model().video(clip, keep="none", chunk=3)
        track(tracker, clip, passes, kept, progress=False)
        return list(kept.frames(range(COUNT)))

    undisturbed = run("undisturbed")
    assert [frame.t for frame in undisturbed] == list(range(COUNT))
    assert all(frame.tracks for frame in undisturbed)
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
        with pytest.raises(Killed):
            run("killed")
    assert len(list((tmp_path / "killed").glob("session-*.npz"))) == 1
    assert run("killed") == undisturbed
