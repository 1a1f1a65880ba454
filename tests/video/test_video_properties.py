"""What must hold for every session: objects, order, chunks, streams, direction, and what is kept."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import write_gif
from PIL import Image, ImageSequence
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import Sam2VideoModel, VideoTracker

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

# Programs for other numbers of objects may add in another order.
LIMIT = 1e-4
CLIP = small_clip()


def session(source: Any = CLIP, **options: Any) -> VideoTracker:
    return small_video_model().video(source, **{"memory_dtype": "float32", **options})


@pytest.mark.slow
def test_an_object_has_the_masks_it_has_alone() -> None:
    prompts = {
        1: (0, (12, 30), 1),
        2: (0, (50, 10), 1),
        3: (3, (20, 50), 0),
        4: (0, (30, 30), 1),
        5: (5, (40, 40), 1),
    }
    together = session()
    for id_, (frame, point, label) in prompts.items():
        together.prompt(frame, id_, [point], [label])
    all_ = stacked(together.propagate(0))
    for row, (id_, (frame, point, label)) in enumerate(prompts.items()):
        alone = session()
        alone.prompt(frame, id_, [point], [label])
        found = stacked(alone.propagate(0))
        assert_same((all_[0], *(x[:, row : row + 1] for x in all_[1:])), found, LIMIT)


def test_the_order_of_objects_does_not_matter() -> None:
    points = {"a": (12, 30), "b": (50, 10), "c": (20, 50)}
    runs = []
    for order in ("abc", "cab"):
        one = session()
        for id_ in order:
            one.prompt(0, id_, [points[id_]])
        frames, *found = stacked(one.propagate())
        assert one.object_ids == tuple(order)
        rows = [order.index(id_) for id_ in "abc"]
        runs.append((frames, *(x[:, rows] for x in found)))
    assert_same(*runs, LIMIT)


def test_adding_and_removing_an_object_leaves_the_others_as_they_are() -> None:
    plain, changing = session(), session()
    for each in (plain, changing):
        each.prompt(0, 1, [(12, 30)])
    expected = stacked(plain.propagate())
    found = []
    for each in changing.propagate():
        found.append(each)
        if each.frame == 3:
            changing.prompt(3, 2, [(50, 10)])
        if each.frame == 6:
            changing.prompt(6, 3, box=(10, 10, 40, 40))
            changing.remove_object(2)
    assert [each.object_ids for each in found] == [(1,)] * 4 + [(1, 2)] * 3 + [(1, 3)] * 5
    logits = np.array([each.logits[:1] for each in found])
    assert np.abs(logits - expected[1]).max() <= LIMIT


def test_chunks_are_one_run() -> None:
    whole, chunks = session(), session()
    for each in (whole, chunks):
        each.prompt(0, 1, [(12, 30)])
    parts = [*chunks.propagate(0, 4), *chunks.propagate(5, 1), *chunks.propagate(7)]
    assert_same(stacked(whole.propagate()), stacked(parts))


def test_a_stream_is_a_clip() -> None:
    clip = session(pointer_span="stream")
    from_iterator, pushed = session(iter(CLIP), keep="none"), session(None, keep="none")
    pushed.add_frame(CLIP[0])
    for each in (clip, from_iterator, pushed):
        each.prompt(0, 1, [(12, 30)])
    expected = stacked(clip.propagate())
    assert_same(expected, stacked(from_iterator.propagate()))
    assert_same(expected, stacked([pushed.step(), *(pushed.step(picture) for picture in CLIP[1:])]))


def test_frames_that_pillow_iterates_stay_as_they_came(tmp_path: Path) -> None:
    """To Pillow they are one image, of the frame sought last: read ahead of their turn, and seen again."""
    path = write_gif(tmp_path / "clip.webp", CLIP)
    with Image.open(path) as animation:
        one = session(ImageSequence.Iterator(animation), keep="all")._frames
        assert one.can_have(4)
        assert one.has(11)
        expected = session()._frames
        for t in (11, 0, 4, 10):
            np.testing.assert_array_equal(one.pixels(t), expected.pixels(t))
        pushed = session(None, keep="all")._frames
        for t in range(3):
            animation.seek(t)
            pushed.add(animation)
        for t in (0, 2, 1):
            np.testing.assert_array_equal(pushed.pixels(t), expected.pixels(t))
        frames = list(ImageSequence.Iterator(animation))
        for begin in (session, small_video_model().processor.init_video_session):
            with pytest.raises(ValueError, match="one animation several times.*frame.copy"):
                begin(frames)
            begin([frame.copy() for frame in ImageSequence.Iterator(animation)])


@pytest.mark.slow
def test_a_stream_kept_and_not_kept_gives_the_same_after_a_correction() -> None:
    runs = []
    for keep in ("all", "none", "window:3"):
        one = session(None, keep=keep)
        found = []
        for t, picture in enumerate(small_clip(30)):
            one.add_frame(picture)
            if t == 0:
                one.prompt(0, 1, [(12, 30)])
            found.append(one.step())
            if t in (9, 22):
                one.prompt(t, 1, [(20 + t, 30)], [0], clear_old=False)
        runs.append(stacked(found))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


def test_reset_is_a_new_session() -> None:
    used, new = session(), session()
    used.prompt(0, 1, [(50, 50)])
    used.prompt(4, 2, box=(3, 3, 30, 30))
    list(used.propagate())
    used.prompt(5, 1, [(50, 50)], [0])
    used.reset()
    assert used.object_ids == ()
    for each in (used, new):
        each.prompt(2, 1, [(12, 30)])
    assert_same(stacked(used.propagate()), stacked(new.propagate()))


def test_the_reversed_clip_backwards_is_the_clip() -> None:
    ahead, back = session(), session(CLIP[::-1])
    ahead.prompt(0, 1, [(12, 30)])
    back.prompt(11, 1, [(12, 30)])
    frames, *expected = stacked(ahead.propagate())
    reversed_, *found = stacked(back.propagate(reverse=True))
    assert reversed_ == [11 - t for t in frames]
    assert_same((frames, *expected), (frames, *found))


def test_propagating_again_changes_nothing() -> None:
    one = session()
    one.prompt(3, 1, [(12, 30)])
    first = stacked(one.propagate(3))
    assert_same(first, stacked(one.propagate(3)))
    back = stacked(one.propagate(3, reverse=True))
    assert back[0] == [3, 2, 1, 0]
    assert_same(back, stacked(one.propagate(3, reverse=True)), 1e-5)  # other slots, another order of sums


def test_a_generator_that_is_dropped_leaves_a_session_that_goes_on() -> None:
    whole, stopped = session(), session()
    for each in (whole, stopped):
        each.prompt(0, 1, [(12, 30)])
    expected = stacked(whole.propagate())
    run = stopped.propagate()
    begun = [next(run) for _ in range(5)]
    del run
    gc.collect()
    assert_same(expected, stacked([*begun, *stopped.propagate(5)]))


def test_more_conditioning_frames_than_there_were_slots_for() -> None:
    """As many as before, and all of them, are attended to after the slots have grown."""
    grown, at_once = session(small_clip(20)), session(small_clip(20))
    for t in (0, 2, 4):
        grown.prompt(t, 1, [(12 + t, 30)])
        list(grown.propagate(t, 1))
    for t in (0, 2, 4):
        at_once.prompt(t, 1, [(12 + t, 30)])
    assert_same(stacked(grown.propagate(0)), stacked(at_once.propagate(0)), LIMIT)


def test_slots_are_not_more_than_are_attended_to() -> None:
    """However many frames are prompted, if few of them are attended to."""
    one, again = (session(small_clip(20), max_cond_frame_num=1, memory_dtype="float32") for _ in range(2))
    for t in range(0, 20, 2):
        for each in (one, again):
            each.prompt(t, 1, [(12 + t % 9, 30)])
    list(one.propagate(0))
    run = stacked(one.propagate(0))
    assert one._memories.state.memory.shape[1] - 6 <= 8
    assert_same(run, stacked(again.propagate(0)), LIMIT)


def test_what_is_kept_is_bounded() -> None:
    one = session(iter(small_clip(60)), keep="none")
    one.prompt(0, 1, [(12, 30)])
    for each in one.propagate():
        kept = [t for t in range(60) if one.output(1, t) is not None]
        assert len(kept) <= 17
        assert each.frame in kept
    assert one.output(1, 0) is not None
    assert len(one._frames._pictures) == 1
    assert len(one._encoded._kept) == 2


def test_a_stream_keeps_nothing_and_a_clip_all_unless_asked() -> None:
    for source, options, kept in (
        (iter(small_clip(30)), {}, 17),
        (iter(small_clip(30)), {"keep": "all"}, 30),
        (small_clip(30), {}, 30),
        (small_clip(30), {"keep": "none"}, 17),
    ):
        one = session(source, **options)
        one.prompt(0, 1, [(12, 30)])
        list(one.propagate())
        assert sum(one.output(1, t) is not None for t in range(30)) == kept


@pytest.mark.slow
def test_an_oblong_network_and_one_in_bfloat16() -> None:
    model = small_video_model()
    oblong = model.with_image_size((64, 96)).video(CLIP)
    found = oblong.prompt(0, 1, [(12, 30)])
    assert found.logits.shape == (1, 16, 24)
    assert found.masks.shape == (1, 64, 64)
    assert len(list(oblong.propagate(0, 3))) == 4
    half = Sam2VideoModel(model.config, model.params, dtype="bfloat16")
    runs = []
    for each in (half, model):
        one = each.video(CLIP)
        one.prompt(0, 1, [(12, 30)])
        runs.append(stacked(one.propagate(0, 5)))
    scale = np.abs(runs[1][1]).max()
    assert np.isfinite(runs[0][1]).all()
    assert np.abs(runs[0][1] - runs[1][1]).max() < 0.2 * scale


def test_prompts_on_a_conditioning_frame_see_its_own_memory_as_meta_has_it_only_if_asked() -> None:
    found = []
    for compat in (None, "meta"):
        one = session(compat=compat)
        one.prompt(0, 1, [(12, 30)])
        first = next(one.propagate())
        found.append(one.prompt(0, 1, [(50, 50)], [0], clear_old=False).logits)
        assert np.abs(found[-1] - first.logits).max() > 1e-3
    assert np.abs(found[0] - found[1]).max() > 1e-3
    # Nothing else is remembered of the object, so that it is as if the frame had not been tracked.
    untracked = session()
    untracked.prompt(0, 1, [(12, 30)])
    np.testing.assert_array_equal(untracked.prompt(0, 1, [(50, 50)], [0], clear_old=False).logits, found[0])


def test_frames_encoded_ahead_as_on_accelerators_change_nothing() -> None:
    plain, ahead = session(), session()
    ahead._encodes_ahead = True
    encoded: list[int] = []
    encode = ahead._encoded.run
    ahead._encoded.run = lambda run: (encoded.extend(run), encode(run))[1]  # type: ignore[method-assign]
    for each in (plain, ahead):
        each.prompt(0, 1, [(12, 30)])
        each.prompt(4, 1, [(40, 30)])
    del encoded[:]
    assert_same(stacked(plain.propagate(0, 6)), stacked(ahead.propagate(0, 6)))
    # Each frame is asked for ahead, where it is tracked, and in its turn.
    assert encoded == [1, 2, 2, 3, 3, 5, 6, 6]
    broken = session([*CLIP[:3], np.zeros((9, 9, 3), np.uint8)])
    broken._encodes_ahead = True
    broken.prompt(0, 1, [(12, 30)])
    run = broken.propagate()
    assert [next(run).frame for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="frame 3 must be of the clip's size"):
        next(run)


def test_every_frame_tells_the_scores_of_every_object() -> None:
    """The decoder's predicted IoU and the logit of presence; of a mask that is given, 1 and 10."""
    one = session()
    one.prompt(0, 1, [(12, 30)])
    one.prompt(0, 2, mask=np.ones((64, 64), bool))
    for each in one.propagate():
        outputs = [one.output(id_, each.frame) for id_ in (1, 2)]
        np.testing.assert_array_equal(each.scores, np.float32([output.iou for output in outputs]))
        np.testing.assert_array_equal(each.object_scores, np.float32([output.score for output in outputs]))
        assert len({*each.scores, *each.object_scores}) == 4
        assert ((each.scores >= 0) & (each.scores <= 1)).all()
        if each.frame == 0:
            assert (each.scores[1], each.object_scores[1]) == (1, 10)


@pytest.mark.parametrize(
    "prompt", [{"box": (30, 30, 60, 60)}, {"mask": np.eye(64) > 0}, {"points": [(40, 50)], "labels": [0]}]
)
def test_any_prompt_on_a_tracked_frame_makes_it_a_conditioning_frame(prompt: dict[str, Any]) -> None:
    one = session()
    one.prompt(0, 1, [(12, 30)])
    before = stacked(one.propagate())
    prompted = one.prompt(6, 1, **prompt, clear_old=False)
    assert prompted.is_conditioning.tolist() == [True]
    found = list(one.propagate())
    assert [each.frame for each in found if each.is_conditioning[0]] == [0, 6]
    after = stacked(found)
    np.testing.assert_array_equal(after[1][6], prompted.logits)
    assert all(np.abs(before[1][t] - after[1][t]).max() > 1e-3 for t in range(1, 12))


def test_masks_have_the_videos_size() -> None:
    one = session(size=(40, 90))
    found = one.prompt(0, "cat", [(80, 10)])
    assert found.masks.shape == (1, 40, 90)
    assert found.mask("cat").dtype == bool
    np.testing.assert_array_equal(found.mask("cat"), found.masks[0])


def test_objects_without_prompts_are_absent_and_no_error() -> None:
    one = session()
    one.prompt(0, 1, [(12, 30)])
    one.prompt(0, 2, [(50, 10)])
    one.clear_prompts(0, 2)
    found = stacked(one.propagate())
    assert (found[1][:, 1] == -1024).all()
    assert (found[2][:, 1] < 0).all()
    alone = session()
    alone.prompt(0, 1, [(12, 30)])
    assert_same((found[0], *(x[:, :1] for x in found[1:])), stacked(alone.propagate()), LIMIT)


def test_without_objects_types_are_the_same() -> None:
    one = session()
    nothing, something = one.masks_on(0), one.prompt(0, 1, [(12, 30)])
    for name in ("logits", "scores", "object_scores", "is_conditioning", "masks"):
        empty, full = getattr(nothing, name), getattr(something, name)
        assert (empty.shape, empty.dtype) == ((0, *full.shape[1:]), full.dtype), name


def test_a_mask_of_nothing_says_that_the_object_is_absent() -> None:
    one = session()
    found = one.prompt(0, 1, mask=np.zeros((64, 64), bool))
    assert found.object_scores.tolist() == [-10]
    assert not found.masks.any()
    assert len(list(one.propagate())) == 12
    thin = np.zeros((256, 256), bool)
    thin[100] = True
    with pytest.warns(UserWarning, match="of the mask of object 2 on frame 0 nothing is left"):
        assert one.prompt(0, 2, mask=thin).object_scores.tolist() == [-10]


def test_a_cleared_frame_shows_nothing_of_its_old_mask() -> None:
    cleared, fresh = session(), session()
    cleared.prompt(0, 1, [(50, 10)])
    list(cleared.propagate())
    cleared.clear_prompts(0, 1)
    again = cleared.prompt(0, 1, [(12, 30)])
    np.testing.assert_array_equal(again.logits, fresh.prompt(0, 1, [(12, 30)]).logits)
    assert cleared.prompted_frames(1) == (0,)


def test_a_clip_of_one_frame() -> None:
    one = session(CLIP[:1])
    prompted = one.prompt(0, 1, [(12, 30)])
    found = stacked(one.propagate())
    assert found[0] == [0]
    np.testing.assert_array_equal(found[1][0], prompted.logits)
    assert stacked(one.propagate(reverse=True))[0] == []


def test_a_network_of_one_memory_and_one_pointer_remembers_the_prompts_alone() -> None:
    """So how a frame was reached does not matter, and nothing is written over what is remembered."""
    config = replace(small_video_model().config, num_maskmem=1, max_object_pointers_in_encoder=1)
    params = dict(small_video_model().params)
    rows = params["memory_temporal_positional_encoding"]
    model = Sam2VideoModel(config, params | {"memory_temporal_positional_encoding": rows[-1:]})
    runs = []
    for first in (0, 7):
        one = model.video(CLIP, memory_dtype="float32")
        one.prompt(0, 1, [(12, 30)])
        runs.append(stacked(one.propagate(first)))
    assert_same(tuple(x[7:] for x in runs[0]), runs[1])


@pytest.mark.parametrize("seed", range(4))
def test_what_lies_on_the_device_is_a_cache(seed: int) -> None:
    """Prompts and runs at random give the same if all is loaded again before every frame."""
    rng = np.random.default_rng(seed)
    options = {"max_cond_frame_num": [-1, 2][seed % 2], "memory_temporal_stride": [1, 1, 2, 2][seed]}
    kept, loaded = session(**options), session(**options)
    for i in range(8):
        frame, id_ = int(rng.integers(12)), int(rng.integers(2))
        reverse, point = bool(rng.integers(2)), rng.integers(0, 64, (1, 2))
        results: list[list[Any]] = [[], []]
        for one, found in zip((kept, loaded), results, strict=True):
            if i % 2 == 0:
                found.append(one.prompt(frame, id_, point, [i % 4 // 2], clear_old=reverse).logits)
                continue
            for each in one.propagate(frame, 5, reverse):
                found.append(each.logits)
                if one is loaded:
                    one._memories.start_again()
        for mine, other in zip(*results, strict=True):
            assert np.abs(mine - other).max() <= LIMIT
