"""What a session refuses, in plain words, and that it goes on afterwards as if it had not been asked."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import FrameMasks, VideoTracker

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

CLIP = small_clip()


def session(source: Any = CLIP, **options: Any) -> VideoTracker:
    return small_video_model().video(source, **{"memory_dtype": "float32", **options})


def until_refused(yields: Iterator[FrameMasks]) -> tuple[list[FrameMasks], str]:
    """What a run yields before it is refused, and why it is."""
    found: list[FrameMasks] = []
    try:
        for each in yields:
            found.append(each)
    except ValueError as error:
        return found, str(error)
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"frame": 12, "points": [(3, 3)]}, "frame must be from 0 to 11, the clip's last; got 12"),
        ({"frame": -1, "points": [(3, 3)]}, "frame must be from 0 to 11"),
        ({"frame": 1.5, "points": [(3, 3)]}, "frame must be a whole number"),
        ({"frame": "0", "points": [(3, 3)]}, "frame must be a whole number"),
        ({"frame": None, "points": [(3, 3)]}, "frame must be a whole number"),
        ({"object_id": None, "points": [(3, 3)]}, "object_id must be an int or text; got None"),
        ({"object_id": 1.0, "points": [(3, 3)]}, "object_id must be an int or text; got 1.0"),
        ({"object_id": [1], "points": [(3, 3)]}, "object_id must be an int or text"),
        ({}, "there is nothing to segment"),
        ({"points": []}, "there is nothing to segment"),
        ({"labels": [1]}, "labels must be one for each of 0 points"),
        ({"points": [(3, 3)], "labels": [1, 0]}, "labels must be one for each of 1 points"),
        ({"points": [(3, 3)], "labels": [2]}, "labels must be 1 .* or 0"),
        ({"points": [(300, 3)]}, "points must lie in the photo, which is 64 x 64"),
        ({"points": [(float("nan"), 3)]}, "points must be finite numbers"),
        ({"box": (30, 30, 10, 40)}, "a box must be"),
        ({"box": (3, 3, 10)}, "a box must be"),
        ({"mask": np.ones((0, 4))}, "mask must be one mask .*; got shape \\(0, 4\\)"),
        ({"mask": np.ones((2, 4, 4))}, "mask must be one mask"),
        ({"mask": np.full((4, 4), np.nan)}, "mask must be one mask .*other numbers"),
        ({"mask": np.full((4, 4), -7.5)}, "mask must be one mask .*logits > 0"),
        ({"mask": "mask"}, "mask must be one mask"),
        ({"mask": np.ones((4, 4)), "points": [(3, 3)]}, "mask must be given alone"),
        ({"points": [(3, 3)], "clear_old": 1}, "clear_old must be True or False"),
    ],
)
def test_prompts_that_cannot_be_meant(prompt: dict[str, Any], message: str) -> None:
    one = session()
    with pytest.raises(ValueError, match=message):
        one.prompt(**{"frame": 0, "object_id": 1, **prompt})
    assert one.object_ids == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "some"}, 'keep must be "all", "none" or "window:N"'),
        ({"keep": "window:0"}, "keep must be"),
        ({"keep": "window:-3"}, "keep must be"),
        ({"keep": 3}, "keep must be"),
        ({"memory_dtype": "float16"}, "memory_dtype must be float32 or bfloat16"),
        ({"memory_dtype": "soft"}, "memory_dtype must be float32 or bfloat16"),
        ({"pointer_span": "all"}, "pointer_span must be one of"),
        ({"memory": "good"}, "memory must be one of"),
        ({"memory": "selected", "memory_temporal_stride": 2}, "memory_temporal_stride must be 1 with memory"),
        ({"compat": "sam"}, "compat must be one of"),
        ({"max_cond_frame_num": 0}, "max_cond_frame_num must be -1 .* or at least 1"),
        ({"max_cond_frame_num": -2}, "max_cond_frame_num must be a whole number"),
        ({"memory_temporal_stride": 0}, "memory_temporal_stride must be a whole number"),
        ({"size": 64}, "size"),
        ({"size": (0, 4)}, "size"),
        ({"kep": "all"}, "unknown option 'kep' of a session on a clip: did you mean keep"),
        ({"max_hole_area": "big"}, "max_hole_area"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session(**options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("clip.mp4", r"source must be an array.*: sam2_jax.open_clip\(path\) has the frames"),
        ({0: CLIP[0]}, "source must be an array"),
        (3, "source must be an array"),
        ([], "source must have frames; got none"),
        (CLIP[:0], "source must have frames; got none"),
        (CLIP[0], "one picture is a clip of one, index with \\[None\\]"),
        (CLIP[..., 0], r"grey frames have a channel each, index with \[..., None\]"),
    ],
)
def test_what_is_no_clip(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session(source)


def test_frames_that_are_not_known_yet() -> None:
    pushed = session(None)
    with pytest.raises(
        ValueError, match="frame must be one of the 0 frames that have come so far.*got 0: add it"
    ):
        pushed.prompt(0, 1, [(3, 3)])
    with pytest.raises(ValueError, match="frame must be one of the 0 frames"):
        pushed.step()
    pushed.add_frame(CLIP[0])
    with pytest.raises(ValueError, match="frame must be one of the 1 frames"):
        pushed.prompt(1, 1, [(3, 3)])


def test_frames_that_are_no_longer_kept() -> None:
    one = session(iter(CLIP), keep="none")
    one.prompt(0, 1, [(12, 30)])
    list(one.propagate())
    with pytest.raises(
        ValueError, match='start must be a frame that is still kept, 11 to 11; got 0: .*keep="all"'
    ):
        one.propagate()
    with pytest.raises(ValueError, match="frame must be a frame that is still kept"):
        one.prompt(3, 1, [(12, 30)])
    assert one.step(frame=11).frame == 11


def test_frames_cannot_be_added_to_a_clip() -> None:
    with pytest.raises(ValueError, match="frames cannot be added to a clip of 12"):
        session().step(CLIP[0])
    with pytest.raises(ValueError, match="picture and frame must not both be given"):
        session(None).step(CLIP[0], frame=0)


def test_there_must_be_something_to_track() -> None:
    one = session()
    with pytest.raises(ValueError, match="there is nothing to track: prompt an object"):
        one.propagate()
    one.prompt(0, 1, [(12, 30)])
    one.clear_prompts(0, 1)
    with pytest.raises(ValueError, match="there is nothing to track"):
        one.propagate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 40}, "start must be from 0 to 11"),
        ({"start": -1}, "start must be from 0 to 11"),
        ({"count": -1}, "count must be a whole number"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"reverse": None}, "reverse must be True or False"),
    ],
)
def test_runs_that_cannot_be_meant(arguments: dict[str, Any], message: str) -> None:
    one = session()
    one.prompt(0, 1, [(12, 30)])
    with pytest.raises(ValueError, match=message):
        one.propagate(**arguments)


def test_unknown_objects() -> None:
    one = session()
    one.prompt(0, "cat", [(12, 30)])
    for call in (one.remove_object, one.prompted_frames, lambda id_: one.clear_prompts(0, id_)):
        with pytest.raises(ValueError, match="object_id must be one of \\['cat'\\]; got 'dog'"):
            call("dog")
    with pytest.raises(ValueError, match="object_id must be one of \\['cat'\\]; got 'dog'"):
        one.step(frame=0).mask("dog")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            np.zeros((32, 64, 3), np.uint8),
            "frame 2 must be of the clip's size, .* \\(64, 64\\); got \\(32, 64\\)",
        ),
        (np.full((64, 64, 3), np.nan, np.float32), "frame 2: "),
        (np.zeros((64, 64, 7), np.uint8), "frame 2: "),
        (None, "frame 2: "),
        ("no such file.png", "frame 2: "),
    ],
)
@pytest.mark.parametrize("kind", [list, iter])
def test_a_frame_that_does_not_fit_is_named_and_what_is_done_is_kept(
    kind: Any, bad: Any, message: str
) -> None:
    one = session(kind([CLIP[0], CLIP[1], bad, CLIP[3]]), keep="all")
    one.prompt(0, 1, [(12, 30)])
    found, error = until_refused(one.propagate())
    assert re.search(message, error)
    assert [each.frame for each in found] == [0, 1]
    assert one.output(1, 1) is not None
    assert one.output(1, 2) is None
    assert one.step(frame=1).frame == 1


def test_an_iterator_that_fails_half_way() -> None:
    def camera() -> Iterator[np.ndarray]:
        yield from CLIP[:3]
        raise OSError("the cable is out")

    one = session(camera(), keep="all")
    one.prompt(0, 1, [(12, 30)])
    found, error = until_refused(one.propagate())
    assert error == "frame 3 could not be read: the cable is out"
    assert [each.frame for each in found] == [0, 1, 2]
    whole = session(CLIP[:3], pointer_span="stream")
    whole.prompt(0, 1, [(12, 30)])
    assert_same(stacked(found), stacked(whole.propagate()))
    assert_same(stacked(found), stacked(one.propagate()))


def test_what_is_refused_changes_nothing() -> None:
    plain, asked = session(), session()
    for each in (plain, asked):
        each.prompt(0, 1, [(12, 30)])
    run = asked.propagate()
    found = [next(run) for _ in range(4)]
    for prompt in ({"points": [(900, 3)]}, {"mask": np.full((4, 4), 3)}, {}):
        for object_id in (1, 7):
            with pytest.raises(ValueError, match="must|nothing"):
                asked.prompt(2, object_id, **prompt)
    assert asked.object_ids == (1,)
    assert_same(stacked(plain.propagate()), stacked([*found, *run]))
