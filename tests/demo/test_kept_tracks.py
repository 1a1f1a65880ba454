"""What the demo keeps of tracks: a correction tracks on from before it, to the masks of tracking it all."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import write_folder
from small_video import small_clip, small_video_model

from sam2_jax.clips.reading import open_clip
from sam2_jax.clips.tracking import Passes, Prompt, tracked
from sam2_jax.demo import kept_tracks
from sam2_jax.demo.caches import Bounded
from sam2_jax.demo.kept_tracks import KeptTracks
from sam2_jax.video.tracker import VideoTracker

COUNT = 8
FIRST = Prompt(1, 1, ((14.0, 30.0),), (1,))
SECOND = Prompt(3, 2, box=(10, 18, 34, 42))
CORRECTION = Prompt(5, 1, ((24.0, 30.0), (2.0, 2.0)), (1, 0))

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "clip", small_clip(COUNT))


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames that the network is asked about."""
    frames: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for row in tracked(*arguments, **options):
            frames.append(row.found.t)
            yield row

    monkeypatch.setattr(kept_tracks, "tracked", counted)
    monkeypatch.setattr(kept_tracks, "_EVERY", 2)
    return frames


@pytest.fixture
def asked(clip_path: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Asks one store for tracks; of the first rows only, where not all are wanted."""
    kept = KeptTracks(tmp_path)

    def ask(
        prompts: list[Prompt], way: str = "both", most: int | None = None, client: str = "a"
    ) -> list[Any]:
        with open_clip(clip_path) as clip:
            tracker = small_video_model().video(clip, keep="none")
            rows = kept.track(client, tracker, clip, Passes(prompts, COUNT, way))
            found = list(zip(range(COUNT * 3 if most is None else most), rows, strict=False))
            rows.close()  # type: ignore[attr-defined]
        return [row for _, row in found]

    return ask


def _fresh(clip_path: Path, prompts: list[Prompt], way: str = "both") -> list[Any]:
    with open_clip(clip_path) as clip:
        tracker = small_video_model().video(clip, keep="none")
        return list(tracked(tracker, clip, Passes(prompts, COUNT, way)))


def _assert_same(rows: list[Any], others: list[Any]) -> None:
    written, other = (
        [(row.which_pass, json.dumps(row.found.to_json())) for row in each] for each in (rows, others)
    )
    assert written == other


def test_a_correction_tracks_on_from_before_it(
    clip_path: Path, asked: Callable[..., list[Any]], anew: list[int]
) -> None:
    _assert_same(asked([FIRST, SECOND]), _fresh(clip_path, [FIRST, SECOND]))
    assert anew == [1, 2, 3, 4, 5, 6, 7, 2, 1, 0]
    anew.clear()
    corrected = [FIRST, SECOND, CORRECTION]
    _assert_same(asked(corrected), expected := _fresh(clip_path, corrected))
    assert anew == [5, 6, 7, 2, 1, 0]  # a session was saved after 4
    anew.clear()
    _assert_same(asked(corrected), expected)
    assert anew == []
    # Forward is how both ways begin.
    _assert_same(asked(corrected, "forward"), expected[:7])
    assert anew == [7]
    anew.clear()
    # Whoever begins otherwise begins anew, as does another client.
    other = [Prompt(1, 1, ((14.0, 31.0),), (1,)), SECOND]
    _assert_same(asked(other), _fresh(clip_path, other))
    asked(other, client="b")
    assert anew == 2 * [1, 2, 3, 4, 5, 6, 7, 2, 1, 0]


def test_what_was_stopped_goes_on_and_masks_are_compared(
    clip_path: Path, asked: Callable[..., list[Any]], anew: list[int]
) -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:40, 10:26] = True
    prompts = [Prompt(0, 1, mask=mask)]
    asked(prompts, "forward", most=5)
    anew.clear()
    _assert_same(asked(prompts, "forward"), _fresh(clip_path, prompts, "forward"))
    assert anew == [4, 5, 6, 7]
    anew.clear()
    asked([Prompt(0, 1, mask=mask.T)], "forward")
    assert anew == list(range(COUNT))


def test_sessions_are_bounded(
    clip_path: Path,
    asked: Callable[..., list[Any]],
    anew: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked([FIRST], "forward")
    (first, *_) = files = list(tmp_path.glob("*/*.npz"))
    assert sorted(path.name for path in files) == ["2.npz", "4.npz", "6.npz"]
    monkeypatch.setattr(kept_tracks, "_SESSIONS_BYTES", 1.5 * first.stat().st_size)
    other = [FIRST, CORRECTION]
    for _ in range(2):
        _assert_same(asked(other, "forward"), _fresh(clip_path, other, "forward"))
        assert len(list(tmp_path.glob("*/*.npz"))) == 1
    monkeypatch.setattr(kept_tracks, "_SESSIONS_BYTES", 0)
    _assert_same(asked([SECOND], "forward"), _fresh(clip_path, [SECOND], "forward"))
    assert list(tmp_path.glob("*/*.npz")) == []


def test_what_cannot_be_saved_is_tracked_all_the_same(
    clip_path: Path, asked: Callable[..., list[Any]], anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ValueError("cannot write 2.npz: No space left on device")

    monkeypatch.setattr(VideoTracker, "save", full)
    for _ in range(2):
        _assert_same(asked([FIRST], "forward"), _fresh(clip_path, [FIRST], "forward"))
    assert anew == 2 * list(range(1, COUNT))


def test_many_masks_are_counted(asked: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []
    monkeypatch.setattr(Bounded, "put", lambda self, key, value, size: sizes.append(size))
    asked([FIRST], "forward")
    asked([FIRST, Prompt(1, 2, box=(10, 18, 34, 42))], "forward")
    assert sizes[1] > 1.8 * sizes[0] > 1.8 * kept_tracks._MASK_BYTES * (COUNT - 1)
