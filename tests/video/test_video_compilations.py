"""How often the steps are traced: once for each bucket of objects and of conditioning frames, and no more."""

from collections import Counter
from typing import Any

import pytest
from small_models import smallest_video_config
from small_video import small_clip, video_model_of

from sam2_jax.model.sam2_video import Sam2Video

STEPS = ("encode_frame", "prompt_step", "mask_step", "condition", "remember", "track_step")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, quick_compilation: None) -> Counter[str]:
    """How often each step has been traced."""
    seen: Counter[str] = Counter()

    def count(name: str) -> None:
        original = getattr(Sam2Video, name)

        def counted(self: Sam2Video, *args: Any, **options: Any) -> Any:
            seen[name] += 1
            return original(self, *args, **options)

        monkeypatch.setattr(Sam2Video, name, counted)

    for name in STEPS:
        count(name)
    return seen


@pytest.mark.slow
def test_a_long_session_compiles_each_step_once_for_each_bucket(traced: Counter[str]) -> None:
    """60 frames with clicks, boxes, two objects added, one removed, a correction and a pass backwards."""
    # Of a width for which nothing has been traced before.
    model = video_model_of(smallest_video_config(memory_attention_feed_forward_hidden_size=36))
    session = model.video(small_clip(60))
    traced.clear()
    session.prompt(0, 1, [(12, 30)])
    session.prompt(0, 1, [(20, 30), (40, 50)], [1, 0], clear_old=False)
    for each in session.propagate():
        if each.frame == 9:
            session.prompt(9, 2, box=(5, 5, 40, 40))
        if each.frame == 19:
            session.prompt(19, 3, [(50, 50)])
        if each.frame == 29:
            session.remove_object(2)
    session.prompt(40, 1, [(30, 30)], [0], clear_old=False)
    list(session.propagate(40))
    list(session.propagate(40, reverse=True))
    assert traced["encode_frame"] == 1
    # One, two and four objects with one conditioning frame each; four with two.
    assert traced["track_step"] == 4
    assert traced["condition"] == 1
    assert traced["remember"] == 1
    # The first click; more of them with a mask; the same with memories; a box, which takes one mask.
    assert traced["prompt_step"] <= 4
    before = dict(traced)
    session.reset()
    again = session
    again.prompt(3, "a", [(12, 30)])
    again.prompt(3, "b", box=(5, 5, 40, 40))
    list(again.propagate(3, 9))
    again.prompt(8, "a", [(9, 9)], [0])
    list(again.propagate(3, 9))
    assert traced["encode_frame"] == before["encode_frame"]
    assert traced["prompt_step"] == before["prompt_step"]
    assert traced["condition"] <= before["condition"] + 1  # two objects with one conditioning frame


@pytest.mark.slow
def test_after_compile_sessions_compile_nothing(traced: Counter[str]) -> None:
    model = video_model_of(smallest_video_config(memory_attention_feed_forward_hidden_size=40))
    found = model.compile(objects=(1, 2), conditioning_frames=(1, 2))
    assert list(found) == [
        "1 object, 1 frame with prompts",
        "1 object, 2 frames with prompts",
        "2 objects, 1 frame with prompts",
        "2 objects, 2 frames with prompts",
        "first prompts",
    ]
    traced.clear()
    session = model.video(small_clip(12))
    session.prompt(0, 1, [(12, 30)])
    session.prompt(0, 1, [(20, 30), (40, 50)], [1, 0], clear_old=False)
    list(session.propagate(0, 4))
    session.prompt(4, 2, box=(5, 5, 40, 40))
    list(session.propagate(4, 4))
    session.prompt(8, 1, [(30, 30)], [0], clear_old=False)
    session.prompt(8, 1, [(30, 34)], [0], clear_old=False)
    list(session.propagate(8))
    list(session.propagate(8, reverse=True))
    session.reset()
    session.prompt(3, "mask", mask=small_clip(1)[0, ..., 0] > 200)
    list(session.propagate())
    assert not traced
    with pytest.raises(ValueError, match="conditioning_frames"):
        model.compile(conditioning_frames=0)


@pytest.mark.slow
def test_chunks_compile_one_more_of_what_they_run(traced: Counter[str]) -> None:
    """Whole chunks and single frames are all there is, however long what is left of a run may be."""
    model = video_model_of(smallest_video_config(memory_attention_feed_forward_hidden_size=44))
    session = model.video(small_clip(24), chunk=4)
    traced.clear()
    session.prompt(0, 1, [(12, 30)])
    for count in range(1, 12):
        list(session.propagate(0, count))
    list(session.propagate(23, 21, reverse=True))
    assert (traced["encode_frame"], traced["track_step"]) == (2, 2)
    session.prompt(7, 1, [(30, 30)], [0], clear_old=False)
    list(session.propagate(0))
    assert (traced["encode_frame"], traced["track_step"]) == (2, 4)  # for two conditioning frames
    model.compile(objects=2, conditioning_frames=1, chunk=4)
    traced.clear()
    other = model.video(small_clip(24), chunk=4)
    other.prompt(0, 1, [(12, 30)])
    other.prompt(0, 2, [(50, 10)])
    run = other.propagate()
    for _ in range(7):
        next(run)
    other.prompt(6, 2, [(40, 10)], [0])
    other.clear_prompts(6, 2)
    list(other.propagate(7))
    assert not traced
