"""Sessions that are saved, loaded in another, and go on as if they had never stopped."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import FrameMasks, VideoTracker

pytestmark = pytest.mark.usefixtures("quick_compilation")


def begin(**options: Any) -> VideoTracker:
    tracker = small_video_model().video(small_clip(24), **options)
    tracker.prompt(2, "a", points=[[12, 30]])
    return tracker


def continued(tracker: VideoTracker, first: int) -> Iterator[FrameMasks]:
    """Track on, with another object and a correction on the way, and back from frame 2."""
    for t in range(first, 24):
        found = tracker.step(frame=t)
        if t == 9:
            found = tracker.prompt(9, 7, box=(30, 18, 52, 42))
        if t == 14:
            found = tracker.prompt(14, "a", points=[[40, 30]], labels=[0])
        yield found
    yield from tracker.propagate(2, reverse=True)


def runs(yields: Any) -> Any:
    """Objects come and go: each frame by itself."""
    return [stacked([each]) for each in yields]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 9, 10, 20])
@pytest.mark.parametrize("keep", ["none", "all"])
def test_a_loaded_session_goes_on_to_the_bit(tmp_path: Path, stop: int, keep: str) -> None:
    undisturbed = runs(continued(begin(keep=keep), 2))
    tracker = begin(keep=keep)
    list(islice(continued(tracker, 2), stop - 2))
    tracker.save(tmp_path / "session.npz")
    another = small_video_model().video(small_clip(24), keep=keep)
    another.load(tmp_path / "session.npz")
    assert another.object_ids == tracker.object_ids
    rest = runs(continued(another, stop))
    assert len(rest) == len(undisturbed) - (stop - 2)
    for one, other in zip(undisturbed[stop - 2 :], rest, strict=True):
        assert_same(one, other)


def test_what_is_no_session_of_this_clip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.npz"
    begin().save(path)
    model, clip = small_video_model(), small_clip(24)
    tuned = model.with_params(jax.tree.map(lambda x: 1.01 * x, model.params))
    oblong = model.with_image_size((32, 128))  # of as many cells
    for other, problem in [
        (model.video(clip[:9]), "of other clip length and other options"),
        (model.video(clip[:20]), "of other clip length"),
        (model.video(clip, max_cond_frame_num=1), "of other options"),
        (model.video(clip, memory="selected"), "of other options"),
        (model.video(clip, fill_hole_area=3), "of other options"),
        (model.video(clip, memory_dtype=jnp.float32), "of other number types"),
        (model.video(clip, size=(640, 640)), "of other video size"),
        (tuned.video(clip), "of other weights"),
        (oblong.video(clip), "of other image size"),
    ]:
        with pytest.raises(ValueError, match=f"session.npz is no session .*{problem}"):
            other.load(path)
        assert other.object_ids == ()
    (tmp_path / "text.npz").write_text("no session")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:999])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text", "cut", "other", "empty"):
        with pytest.raises(ValueError, match=f"{name}.npz is no session of this model on this clip"):
            model.video(clip).load(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match="cannot read .*none.npz: No such file"):
        model.video(clip).load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match='only a session with memory="released" can be saved'):
        begin(memory="motion").save(path)


def test_a_stream_goes_on_with_the_frame_that_comes_next(tmp_path: Path) -> None:
    """And not from the first again, whose prompts would say what is on it."""
    model, clip = small_video_model(), small_clip(6)
    whole, another = model.video(), model.video()
    whole.add_frame(clip[0])
    whole.prompt(0, 1, points=[[12, 30]])
    for picture in clip[1:4]:
        whole.step(picture)
    whole.save(tmp_path / "session.npz")
    for t, picture in enumerate(clip[:4]):
        with pytest.raises(ValueError, match="of a stream of which 4 frames had come: add them again first"):
            another.load(tmp_path / "session.npz")
        assert another.add_frame(picture) == t
    another.load(tmp_path / "session.npz")
    assert_same(*(stacked(each.step(picture) for picture in clip[4:]) for each in (whole, another)))
