"""Frames tracked several at once give what they give one by one, wherever a run is left."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_video import assert_same, small_clip, small_video_model, stacked

from sam2_jax import Sam2VideoModel, VideoTracker
from sam2_jax.video.ahead import _Chunk

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

LIMIT = 1e-5
CHUNK = 3
CLIP = small_clip(24)


def session(chunk: int, source: Any = CLIP, **options: Any) -> VideoTracker:
    return small_video_model().video(source, **{"memory_dtype": "float32", "chunk": chunk, **options})


def lengths(session: VideoTracker) -> list[int]:
    """Into which is written, from now on, how many frames each program tracks."""
    found: list[int] = []
    update = session._memories.update

    def counted(step: Any) -> Any:
        tracked = update(step)
        found.append(len(tracked.memory))
        return tracked

    session._memories.update = counted  # type: ignore[method-assign]
    return found


def two_objects(one: VideoTracker) -> None:
    one.prompt(0, 1, [(12, 30)])
    one.prompt(5, 2, box=(30, 5, 60, 40))
    one.prompt(14, 1, [(40, 30)])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [CHUNK, 8])
def test_a_run_is_the_same_in_chunks(chunk: int) -> None:
    """Forward, backward, from the middle; prompts lie inside of the runs."""
    plain, chunks = session(1), session(chunk)
    assert (plain.chunk, chunks.chunk) == (1, chunk)
    for each in (plain, chunks):
        two_objects(each)
    programs = lengths(chunks)
    for arguments in ({}, {"start": 23, "reverse": True}, {"start": 9, "count": 11}):
        assert_same(stacked(plain.propagate(**arguments)), stacked(chunks.propagate(**arguments)), LIMIT)
    assert set(programs) == {1, chunk}
    for t in range(24):
        for id_ in (1, 2):
            mine, other = chunks.output(id_, t), plain.output(id_, t)
            assert mine.direction == other.direction
            assert np.abs(mine.memory - other.memory).max() <= LIMIT
            assert np.abs(mine.pointer - other.pointer).max() <= LIMIT


@pytest.mark.slow
def test_chunks_end_before_frames_with_prompts_and_ones_are_left() -> None:
    one = session(CHUNK)
    one.prompt(0, 1, [(12, 30)])
    one.prompt(6, 1, [(40, 30)])
    programs = lengths(one)
    assert len(list(one.propagate(0, 16))) == 17
    # Frames 1 to 3, 4 and 5; 7 to 9, 10 to 12, 13 to 15 and 16.
    assert programs == [3, 1, 1, 3, 3, 3, 1]


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(1, 10))
def test_a_run_may_be_left_at_any_frame_and_corrected_there(stop: int) -> None:
    runs = []
    for chunk in (1, CHUNK):
        one = session(chunk)
        two_objects(one)
        run = one.propagate()
        found = [next(run) for _ in range(stop + 1)]
        assert one.output(1, stop + 1) is None
        prompted = one.prompt(stop, 1, [(30, 20)], [0], clear_old=False)
        found += one.propagate(stop)
        np.testing.assert_array_equal(found[stop + 1].logits[:1], prompted.logits)
        found += one.propagate(stop, reverse=True)
        runs.append(stacked(found))
    assert_same(*runs, LIMIT)


CHANGES: dict[str, Callable[[VideoTracker], Any]] = {
    "nothing": lambda one: None,
    "click": lambda one: one.prompt(3, 1, [(40, 40)], [0], clear_old=False),
    "click of frames tracked ahead": lambda one: one.prompt(7, 1, [(40, 40)]),
    "object": lambda one: one.prompt(6, 3, [(50, 50)]),
    "remove": lambda one: one.remove_object(2),
    "clear": lambda one: one.clear_prompts(0, 2),
    "step": lambda one: one.step(frame=9),
    "backward": lambda one: list(one.propagate(9, 4, reverse=True)),
    "another run": lambda one: next(one.propagate(4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_between_two_frames_of_a_chunk_counts_for_the_second(change: str) -> None:
    runs = []
    for chunk in (1, 8):
        one = session(chunk)
        one.prompt(0, 1, [(12, 30)])
        one.prompt(0, 2, [(50, 10)])
        run = one.propagate(0, 18)
        found = [next(run) for _ in range(4)]
        CHANGES[change](one)
        found += run
        found += one.propagate(18, reverse=True)
        runs.append([(each.frame, each.object_ids, each.logits) for each in found])
    for mine, other in zip(*runs, strict=True):
        assert mine[:2] == other[:2]
        assert np.abs(mine[2] - other[2]).max() <= LIMIT


@pytest.mark.slow
def test_a_reset_forgets_what_was_tracked_ahead() -> None:
    one, new = session(CHUNK), session(CHUNK)
    one.prompt(0, 1, [(12, 30)])
    run = one.propagate()
    next(run), next(run)
    one.reset()
    for each in (one, new):
        each.prompt(0, 2, [(50, 10)])
    assert_same(stacked(one.propagate()), stacked(new.propagate()))


def test_a_session_saved_between_two_frames_of_a_chunk_goes_on_from_there(tmp_path: Path) -> None:
    runs = []
    for chunk in (1, 8):
        one, other = session(chunk), session(chunk)
        one.prompt(0, 1, [(12, 30)])
        one.prompt(0, 2, [(50, 10)])
        run = one.propagate()
        found = [next(run) for _ in range(5)]
        one.save(tmp_path / "session.npz")
        other.load(tmp_path / "session.npz")
        runs.append(stacked([*found, *other.propagate(5), *run]))
    assert_same(*runs, LIMIT)


@pytest.mark.slow
def test_a_chunk_ends_where_something_would_have_to_be_loaded() -> None:
    """With a limit, other conditioning frames are attended to half-way between two of them."""
    runs = []
    for chunk in (1, 8):
        one = session(chunk, small_clip(35), max_cond_frame_num=3)
        for t in (0, 3, 6, 31, 34):
            one.prompt(t, 1, [(12 + t, 30)])
        programs = lengths(one)
        runs.append(stacked(one.propagate(7, 23)))
    assert_same(*runs, LIMIT)
    # Frames 7 to 14; then, since from 19 on 34 is nearer than 3, 15 to 18; 19 to 26, and what is left.
    assert programs == [8, *[1] * 4, 8, *[1] * 4]


def test_a_chunk_ends_where_what_the_host_has_not_kept_would_be_lost() -> None:
    """So far apart memories reach back further than the host keeps them: frame 36 is the last to see 10's."""
    runs = []
    for chunk in (1, 8):
        one = session(chunk, small_clip(42), memory_temporal_stride=5, keep="none")
        one.prompt(0, 1, [(12, 30)])
        programs = lengths(one)
        run = one.propagate()
        found = [next(run) for _ in range(35)]
        one.clear_prompts(30, 1)  # there are none, but whatever is asked for ends a chunk
        runs.append(stacked([*found, *run]))
    assert_same(*runs, LIMIT)
    assert programs[:4] == [8, 8, 8, 1]


@pytest.mark.slow
def test_a_stream_in_chunks_is_a_stream() -> None:
    """Frames read ahead are not known before their turn, and a stream does not keep more of them."""
    runs = []
    for chunk in (1, CHUNK):
        one = session(chunk, iter(CLIP), keep="none")
        one.prompt(0, 1, [(12, 30)])
        found = []
        for each in one.propagate(0, 16):
            found.append(each)
            assert one._frames.count == each.frame + 1
            assert len(one._frames._pictures) == 1
            if each.frame in (3, 6):
                one.prompt(each.frame, 1, [(20, 20)], [0], clear_old=False)
        runs.append(stacked([*found, one.step(frame=16), *one.propagate(17)]))
    assert_same(*runs, LIMIT)
    assert runs[0][0] == [*range(17), 16, *range(17, 24)]


def test_frames_are_not_added_between_those_read_ahead() -> None:
    one = session(CHUNK, iter(CLIP))
    one.prompt(0, 1, [(12, 30)])
    run = one.propagate()
    next(run), next(run)
    with pytest.raises(ValueError, match="while 2 of the iterator's wait for their turn"):
        one.add_frame(CLIP[0])
    assert [each.frame for each in run] == [*range(2, 24)]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions take the device for one."""
    device = property(lambda self: SimpleNamespace(platform="gpu"))
    monkeypatch.setattr(Sam2VideoModel, "device", device)


@pytest.mark.usefixtures("accelerator")
def test_a_stream_is_not_read_ahead_unless_asked() -> None:
    read = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal read
        for picture in CLIP:
            read += 1
            yield picture

    one = small_video_model().video(camera())
    one.prompt(0, 1, [(12, 30)])
    for each in one.propagate():
        assert read == each.frame + 1


@pytest.mark.parametrize("kind", [list, iter])
def test_a_frame_that_cannot_be_read_is_told_in_its_turn(kind: Any) -> None:
    one = session(CHUNK, kind([*CLIP[:7], np.zeros((9, 9, 3), np.uint8), *CLIP[8:]]))
    one._encodes_ahead = True
    one.prompt(0, 1, [(12, 30)])
    run = one.propagate()
    assert [next(run).frame for _ in range(7)] == [*range(7)]
    with pytest.raises(ValueError, match="frame 7 must be of the clip's size"):
        next(run)
    assert one.output(1, 6) is not None
    assert one.step(frame=6).frame == 6

    def camera() -> Iterator[np.ndarray]:
        yield from CLIP[:6]
        raise OSError("the cable is out")

    one = session(CHUNK, camera(), keep="all")
    one.prompt(0, 1, [(12, 30)])
    run = one.propagate()
    assert [next(run).frame for _ in range(6)] == [*range(6)]
    with pytest.raises(ValueError, match="frame 6 could not be read: the cable is out"):
        next(run)


def test_the_next_chunk_is_encoded_before_this_ones_results_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[Any] = []
    one, plain = session(CHUNK), session(1)
    encode, at = one._steps.encode, _Chunk.at
    steps = one._encoded._steps

    class Noting(type(steps)):  # type: ignore[misc]
        def encode(self, pixels: np.ndarray) -> Any:
            happened.append(("encode", len(pixels)))
            return encode(pixels)

    def fetch(self: _Chunk, place: int) -> Any:
        happened.append(("fetch", place))
        return at(self, place)

    for each in (one, plain):
        each.prompt(0, 1, [(12, 30)])
    expected = stacked(plain.propagate(0, 12))
    one._encoded._steps = Noting(*steps)
    one._encodes_ahead = True
    monkeypatch.setattr(_Chunk, "at", fetch)
    assert_same(expected, stacked(one.propagate(0, 12)), LIMIT)
    fetched = [("fetch", place) for place in range(CHUNK)]
    whole = ("encode", CHUNK)
    assert happened == [whole, whole, *fetched, whole, *fetched, whole, *fetched, *fetched]


def test_results_that_cannot_be_fetched_are_tracked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, plain = session(CHUNK), session(CHUNK)
    for each in (one, plain):
        two_objects(each)
    run = one.propagate()
    found = [next(run) for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(_Chunk, "at", lambda self, place: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(run)
    found += one.propagate(3)
    assert_same(stacked(plain.propagate()), stacked(found), LIMIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk must be a whole number"),
        ({"chunk": 2.5}, "chunk must be a whole number"),
        ({"chunk": "all"}, "chunk must be a whole number"),
        ({"chunk": 2, "memory": "motion"}, 'chunk must be 1 with memory="motion", which looks at each frame'),
    ],
)
def test_chunks_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_video_model().video(CLIP, **options)


@pytest.mark.usefixtures("accelerator")
def test_accelerators_take_eight_frames_of_a_clip_unless_asked() -> None:
    begin = small_video_model().video
    assert begin(CLIP).chunk == 8
    assert begin(CLIP, chunk=3).chunk == begin(iter(CLIP), chunk=3).chunk == 3
    assert begin(iter(CLIP)).chunk == begin(None).chunk == begin(CLIP, memory="selected").chunk == 1
