"""What is written of tracked clips, read again by those it is for."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import numbered_frame, write_folder, write_gif, write_video
from PIL import Image
from pycocotools import mask as coco

from sam2_jax.clips import drawn
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.kinds import KINDS
from sam2_jax.clips.reading import open_clip
from sam2_jax.clips.results import targets, write_results
from sam2_jax.clips.tracks import Track, TrackedFrame
from sam2_jax.processing.drawing import palette
from sam2_jax.processing.rle import encode_rle

COUNT, HEIGHT, WIDTH = 8, 45, 67

# pycocotools' own, of NumPy's newer ways.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def mask_of(object_id: int, t: int) -> np.ndarray:
    """A square that moves; object 1 hides on frame 3, object 2 is there from frame 2 on, object 4 on all."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if (object_id, t) != (1, 3):
        x = 4 + 3 * t + 9 * (object_id - 1)
        mask[10 : 22 + object_id, x : x + 14] = True
    return mask


def tracked(count: int = COUNT) -> list[TrackedFrame]:
    frames = []
    for t in range(count):
        ids = [1, 4] if t < 2 else [1, 2, 4]
        tracks = [
            Track(i, encode_rle(mask_of(i, t), compressed=True), 0.5 + i / 10, 1.5, is_prompted=t == 0)
            for i in ids
        ]
        frames.append(TrackedFrame(t, tuple(tracks)))
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clips") / "clip"
    return open_clip(
        write_folder(folder, [numbered_frame(t, HEIGHT, WIDTH) for t in range(2 * COUNT)]), 0, None, 2
    )


@pytest.fixture(scope="module")
def written(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("written")
    marks = {(0, 1): ([(10.0, 15.0)], [1], (4.0, 10.0, 18.0, 23.0))}
    write_results(clip, tracked(), targets(folder, KINDS, marks))
    assert {path.name for path in folder.iterdir()} == {
        *("masks", "objects", "tracks.json", "tracks.parquet", "overlay.mp4", "sheet.png")
    }
    return folder


def test_label_maps_are_those_of_davis(written: Path) -> None:
    names = sorted(path.name for path in (written / "masks").iterdir())
    assert names == sorted(f"frame {2 * t}.png" for t in range(COUNT))
    for t in range(COUNT):
        with Image.open(written / "masks" / f"frame {2 * t}.png") as file:
            assert file.mode == "P"
            labels = np.asarray(file)
            assert file.getpalette() == palette().ravel().tolist()
        expected = np.zeros((HEIGHT, WIDTH), int)
        for i in (4, 2, 1):  # the smaller above the larger
            if i != 2 or t >= 2:
                expected[mask_of(i, t)] = i
        np.testing.assert_array_equal(labels, expected)


def test_masks_of_objects_are_those_of_sa_v(written: Path) -> None:
    assert sorted(path.name for path in (written / "objects").iterdir()) == ["001", "002", "004"]
    for i in (1, 2, 4):
        files = sorted((written / "objects" / f"{i:03}").iterdir())
        assert len(files) == (COUNT - 2 if i == 2 else COUNT)
        for path in files:
            with Image.open(path) as file:
                t = int(path.stem.split()[1]) // 2
                np.testing.assert_array_equal(np.asarray(file) > 0, mask_of(i, t))


def test_youtube_vis_is_read_by_pycocotools(written: Path) -> None:
    found = json.loads((written / "tracks.json").read_text())
    (video,) = found["videos"]
    assert (video["length"], video["height"], video["width"]) == (COUNT, HEIGHT, WIDTH)
    assert video["file_names"] == [f"frame {2 * t}" for t in range(COUNT)]
    assert [each["id"] for each in found["annotations"]] == [1, 2, 4]
    for each in found["annotations"]:
        assert len(each["segmentations"]) == len(each["bboxes"]) == len(each["areas"]) == COUNT
        assert each["score"] == pytest.approx((0.5 + each["id"] / 10) / (1 + np.exp(-1.5)))
        for t, rle in enumerate(each["segmentations"]):
            mask = mask_of(each["id"], t)
            if (each["id"] == 2 and t < 2) or not mask.any():
                assert (rle, each["bboxes"][t], each["areas"][t]) == (None, None, None)
            else:
                np.testing.assert_array_equal(coco.decode(rle).astype(bool), mask)
                assert coco.toBbox(rle).tolist() == each["bboxes"][t]
                assert int(coco.area(rle)) == each["areas"][t]


def test_parquet_has_a_row_for_each_frame_and_object(written: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = pq.read_table(written / "tracks.parquet").to_pylist()
    assert len(rows) == 3 * COUNT - 2
    for row in rows:
        t, i = row["frame"] // 2, row["object_id"]
        mask = mask_of(i, t)
        assert row["name"] == f"frame {2 * t}"
        assert row["seconds"] is None
        assert row["is_present"] == mask.any()
        assert row["is_prompted"] == (t == 0)
        assert (row["iou"], row["presence"]) == pytest.approx((0.5 + i / 10, 1.5))
        assert row["area"] == mask.sum()
        np.testing.assert_array_equal(coco.decode({k: row[k] for k in ("size", "counts")}) > 0, mask)
        if mask.any():
            assert row["bbox"] == coco.toBbox({k: row[k] for k in ("size", "counts")}).tolist()


def test_rows_as_json_come_back() -> None:
    for frame in tracked():
        assert TrackedFrame.from_json(json.loads(json.dumps(frame.to_json()))) == frame


def test_the_video_shows_every_frame(written: Path) -> None:
    pytest.importorskip("av")
    video = open_clip(written / "overlay.mp4")
    assert len(video) == COUNT
    assert video.size == (HEIGHT + 1, WIDTH + 1)  # even, as players want it
    assert video.rate == pytest.approx(drawn.USUAL_RATE)


def test_the_rate_is_the_clips(tmp_path: Path) -> None:
    source = open_clip(
        write_video(tmp_path / "a.mp4", [numbered_frame(t) for t in range(6)], rate=10), stride=2
    )
    assert source.rate == pytest.approx(5)
    frames = [TrackedFrame(t, ()) for t in range(3)]
    write_results(source, frames, targets(tmp_path, ["video"]))
    video = open_clip(tmp_path / "overlay.mp4")
    assert video.rate == pytest.approx(5, rel=0.01)
    assert np.abs(video[2].astype(int) - source[2]).max() < 25


def test_without_x264_another_encoder_does(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(drawn, "_ENCODERS", ({"codec_name": "none of that name"}, *drawn._ENCODERS[1:]))
    write_results(clip, tracked(), targets(tmp_path, ["video"]))
    assert len(open_clip(tmp_path / "overlay.mp4")) == COUNT


def test_without_pyav_the_video_is_a_gif(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    frames = [TrackedFrame(each.t, tuple(t for t in each.tracks if t.object_id != 2)) for each in tracked()]
    write_results(clip, frames, targets(tmp_path, ["video"]))
    gif = open_clip(tmp_path / "overlay.gif")
    assert (len(gif), gif.size) == (COUNT, (HEIGHT, WIDTH))
    assert gif.rate == pytest.approx(25)
    for t in range(COUNT):
        inside = mask_of(1, t) & ~mask_of(4, t) & (np.mgrid[:HEIGHT, :WIDTH][0] > 18)
        if inside.any():  # its colour, mixed with the picture's or alone
            plain = numbered_frame(2 * t, HEIGHT, WIDTH).astype(float)
            mixed = 0.55 * plain + 0.45 * palette()[1]
            apart = np.minimum(np.abs(gif[t] - mixed), np.abs(gif[t] - palette()[1].astype(float)))
            assert np.median(apart[inside]) < 20


@pytest.mark.parametrize("name", ["overlay.gif", "overlay.mp4"])
def test_frames_that_lie_far_apart(tmp_path: Path, name: str) -> None:
    """Twenty minutes, which is more than a GIF can say."""
    pytest.importorskip("av")
    path = write_gif(tmp_path / "a.gif", [numbered_frame(t) for t in range(4)], milliseconds=600_000)
    clip = open_clip(path, stride=2)
    with drawn.overlay_video(tmp_path / name, clip) as add:
        for t in range(2):
            add(TrackedFrame(t, ()), clip[t])
    assert open_clip(tmp_path / name).rate == pytest.approx(1 / 600)


def test_the_sheet_has_evenly_spaced_frames(clip: Clip, tmp_path: Path) -> None:
    write_results(clip, tracked(), targets(tmp_path, ["sheet"]))
    with Image.open(tmp_path / "sheet.png") as sheet:
        columns = 3
        assert sheet.width == columns * WIDTH + (columns - 1) * 8
        first = np.asarray(sheet.convert("RGB"))[:HEIGHT, :WIDTH]
    assert (first != numbered_frame(0, HEIGHT, WIDTH)).any()


def test_a_sheet_of_few_frames_of_a_long_clip(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "SHEET_FRAMES", 2)
    write_results(clip, tracked()[3:5], targets(tmp_path, ["sheet"]))
    with Image.open(tmp_path / "sheet.png") as file:
        assert file.width == WIDTH


def test_what_fails_leaves_nothing_and_spoils_nothing(clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    write_results(clip, tracked(), targets(tmp_path, KINDS))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def failing() -> Any:
        yield from tracked(4)
        raise ValueError("the tracker stopped")

    with pytest.raises(ValueError, match="the tracker stopped"):
        write_results(clip, failing(), targets(tmp_path, KINDS))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # And again, whole, in place of what is there.
    write_results(clip, tracked(), targets(tmp_path, KINDS))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before.keys()


def test_where_nothing_can_be_written_it_is_said(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file")
    with pytest.raises(ValueError, match="cannot write .*masks: it is a file, not a folder"):
        write_results(clip, tracked(), targets(tmp_path, ["masks"]))
    (tmp_path / "tracks.json").mkdir()
    with pytest.raises(ValueError, match="cannot write .*tracks.json: it is a folder"):
        write_results(clip, tracked(), targets(tmp_path, ["json"]))


def test_too_many_objects_for_a_palette_are_refused(clip: Clip, tmp_path: Path) -> None:
    rle = encode_rle(mask_of(1, 0), compressed=True)
    frames = [TrackedFrame(0, (Track(256, rle, 1.0, 1.0),))]
    with pytest.raises(ValueError, match="a palette has the labels 0 to 255; got 0 to 256"):
        write_results(clip, frames, targets(tmp_path, ["masks"]))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs the package pyarrow: pip install 'sam2_jax\[parquet\]'"):
        targets(tmp_path, ["parquet"])


def test_frames_that_no_encoder_takes_are_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("av")
    wide = np.zeros((2, 20_000, 3), np.uint8)
    with (
        open_clip(write_folder(tmp_path / "wide", [wide])) as clip,
        pytest.raises(ValueError, match="no mp4 can be made of frames of 20000 x 2 pixels"),
    ):
        write_results(clip, [TrackedFrame(0, ())], targets(tmp_path / "out", ["video"]))
    assert list((tmp_path / "out").iterdir()) == []
