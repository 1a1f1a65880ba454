"""`sam2-jax track`: what it writes, how it goes on after a stop, and how it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import write_folder, write_gif, write_video
from PIL import Image
from quick_compilation import compiling_quickly
from small_video import small_clip, small_video_model

from sam2_jax import Sam2Model, Sam2VideoModel
from sam2_jax.checkpoint.embedded import SAMPLE_PICTURE
from sam2_jax.clips import record
from sam2_jax.clips.record import Record
from sam2_jax.clips.sample import SampleFrames
from sam2_jax.commands import main
from sam2_jax.commands.clip_prompts import sample_prompts
from sam2_jax.processing.rle import decode_rle

COUNT = 12
PROMPTS = ("--point", "14,30", "--negative", "50,50@6", "--object", "--box", "20,18,40,42@3")


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Iterator[None]:
    with compiling_quickly():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    small_video_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, but for a clip."""
    monkeypatch.chdir(tmp_path)
    write_folder(Path("clip"), small_clip(COUNT))


@pytest.fixture
def saving_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """After every row."""
    monkeypatch.setattr(record, "SECONDS", 0.0)
    monkeypatch.setattr(record, "_SHARE", 1e9)


def track(model: str, *options: str, clip: str = "clip", output: str = "out") -> int:
    return main(["track", clip, "--model", model, "--output", output, "--quiet", *options])


def tracks(output: str = "out") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(output, "tracks.json").read_text())["annotations"]
    return found


def there(annotation: dict[str, Any]) -> list[int]:
    """The frames on which an object was found."""
    return [t for t, area in enumerate(annotation["areas"]) if area is not None]


def written(output: str) -> dict[str, bytes]:
    """All files of a folder but for pictures of them."""
    folder = Path(output)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the command writes of `PROMPTS` when nothing stops it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    clip = write_folder(folder / "clip", small_clip(COUNT))
    output = str(folder / "out")
    assert track(model, *PROMPTS, "--write", "masks", "json", "sheet", clip=str(clip), output=output) == 0
    return written(output)


def test_objects_of_a_clip(undisturbed: dict[str, bytes]) -> None:
    assert {name.split("/")[0] for name in undisturbed} == {
        "frames.jsonl",
        "masks",
        "tracks.json",
        "sheet.png",
    }
    assert sum(name.startswith("masks/") for name in undisturbed) == COUNT
    first, second = json.loads(undisturbed["tracks.json"])["annotations"]
    assert (first["id"], second["id"]) == (1, 2)
    assert there(first)[0] == 0
    assert there(second)[0] == 3  # where it was prompted


def test_masks_are_those_of_a_session(model: str, undisturbed: dict[str, bytes]) -> None:
    session = Sam2VideoModel.from_pretrained(model).video(small_clip(COUNT), keep="none")
    session.prompt(0, 1, points=[(14, 30)])
    annotations = json.loads(undisturbed["tracks.json"])["annotations"]
    for t in range(COUNT):
        if t == 3:
            session.prompt(3, 2, box=(20, 18, 40, 42))
        found = session.step(frame=t)
        masks = {key: found.mask(key) for key in found.object_ids}
        if t == 6:
            masks[1] = session.prompt(6, 1, points=[(50, 50)], labels=[0]).mask(1)
        for annotation in annotations:
            rle, mask = annotation["segmentations"][t], masks.get(annotation["id"])
            assert (rle is None) == (mask is None or not mask.any())
            if rle is not None:
                np.testing.assert_array_equal(decode_rle(rle), mask)


def test_files_of_every_kind(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    write_video(Path("clip.mp4"), small_clip(6))
    write_gif(Path("clip.gif"), small_clip(6))
    for clip in ("clip.mp4", "clip.gif"):
        options = ["--point", "14,30", "--model", model]
        assert main(["track", clip, *options]) == 0
        out = capsys.readouterr().out
        assert f"{clip}: 64 x 64 pixels, 6 frames, 25 a second" in out
        assert "object 1: there on " in out
    assert {path.name for path in Path("clip_tracked").iterdir()} == {
        *("frames.jsonl", "masks", "tracks.json", "overlay.mp4", "sheet.png")
    }


def test_part_of_a_clip_keeps_its_numbers(model: str) -> None:
    part = ["--start", "2", "--end", "11", "--stride", "2", "--write", "masks"]
    assert track(model, "--point", "14,30@4", *part) == 0
    assert sorted(path.name for path in Path("out/masks").iterdir()) == [
        f"frame {t}.png" for t in (10, 2, 4, 6, 8)
    ]
    with Image.open("out/masks/frame 2.png") as file:
        assert not np.asarray(file).any()  # before its prompt


def test_backwards_and_both_ways(model: str) -> None:
    json_alone = ["--write", "json"]
    assert track(model, "--point", "14,30@5", "--reverse", *json_alone, output="back") == 0
    (back,) = tracks("back")
    assert there(back)[-1] == 5
    assert there(back)[0] == 0
    two = ["--point", "14,30@5", "--object", "--point", "40,30@8", "--negative", "8,8@10"]
    assert track(model, *two, *json_alone, output="forward") == 0
    assert track(model, *two, "--both", *json_alone, output="both") == 0
    for one, other, first in zip(tracks("forward"), tracks("both"), (5, 8), strict=True):
        assert there(one)[0] == first
        assert there(other)[0] < first
        assert one["segmentations"][first:] == other["segmentations"][first:]
    assert track(model, "--point", "30,30", "--reverse", *json_alone, output="last") == 0
    assert there(tracks("last")[0])[-1] == COUNT - 1
    # Of a way back there may be the first frame alone.
    assert track(model, "--point", "14,30@0", "--reverse", *json_alone, output="first") == 0
    assert there(tracks("first")[0]) == [0]
    assert track(model, "--point", "14,30@1", "--both", *json_alone, output="second") == 0
    assert there(tracks("second")[0]) == list(range(COUNT))


class Killed(BaseException):
    """What no part of the program catches."""


def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Have the process end at a call of one of the record's methods."""
    original: Callable[..., Any] = getattr(Record, name)
    calls = iter(range(1, 1000))

    def maybe(self: Record, *arguments: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return original(self, *arguments)

    monkeypatch.setattr(Record, name, maybe)


@pytest.mark.parametrize(
    ("method", "call"), [("add", 1), ("add", 5), ("save", 7), ("add", COUNT), ("finish", 1)]
)
def test_killed_and_given_again(
    model: str,
    undisturbed: dict[str, bytes],
    saving_always: None,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
) -> None:
    command = [*PROMPTS, "--write", "masks", "json", "sheet"]
    with monkeypatch.context() as patch:
        killed_at(patch, method, call)
        with pytest.raises(Killed):
            track(model, *command)
    if method != "finish":
        assert not Path("out/tracks.json").exists()
        with Path("out/frames.jsonl").open("ab") as file:  # no row, and half of one
            file.write(b'{"pass": 1e999, "t": 1, "objects": []}\n{"pass": 0, "t": 1')
        Path("out/.session-000003.npz.k3x_9a0b.tmp").write_bytes(b"half a session")
        write_folder(Path("out/.masks.k3x_9a0b.tmp"), small_clip(1))
    given: list[int] = []
    original = Record.add
    monkeypatch.setattr(Record, "add", lambda *a: (given.append(1), original(*a)))
    assert track(model, *command) == 0
    assert len(given) == {"add": COUNT - call + 1, "save": COUNT - call + 1, "finish": 0}[method]
    assert written("out") == undisturbed


def test_killed_on_the_way_back(model: str, saving_always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--point", "14,30@5", "--object", "--point", "40,30@8", "--both", "--write", "json"]
    assert track(model, *command, output="undisturbed") == 0
    for back in (4, 8):  # of 7 frames forwards and 8 back
        with monkeypatch.context() as patch:
            killed_at(patch, "add", (COUNT - 5) + back)
            with pytest.raises(Killed):
                track(model, *command, output=f"{back}")
        assert track(model, *command, output=f"{back}") == 0
        assert written(f"{back}") == written("undisturbed")


def test_progress_is_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "clip", "--model", model, "--point", "14,30", "--write", "json"]) == 0
    out, error = capsys.readouterr()
    assert re.search(rf"frames: {COUNT}/{COUNT} after .* left, .*(frame/s|s/frame), objects=1", error)
    assert f"object 1: there on {COUNT} of {COUNT} frames, score 0." in out
    assert "write clip_tracked/tracks.json ... " in out


def test_without_a_whole_session_it_begins_again(
    model: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*PROMPTS, "--write", "masks", "json", "sheet"]
    with monkeypatch.context() as patch:
        killed_at(patch, "add", 5)
        with pytest.raises(Killed):
            track(model, *command)
    for path in Path("out").glob("session-*.npz"):
        path.write_bytes(path.read_bytes()[:500])
    assert track(model, *command) == 0
    assert written("out") == undisturbed


def test_ctrl_c_keeps_what_is_done(
    model: str,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [*PROMPTS, "--write", "masks", "json", "sheet"]
    original, handler = Record.add, signal.getsignal(signal.SIGINT)

    def interrupted(self: Record, *arguments: Any) -> None:
        original(self, *arguments)
        if len(self) == 8:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "add", interrupted)
        assert track(model, *command) == 130
    error = capsys.readouterr().err
    assert "stopping soon" in error
    assert f"sam2-jax: stopped; 8 of {COUNT} frames are kept; the same command goes on" in error
    assert {path.name for path in Path("out").iterdir()} == {"frames.jsonl", "session-000008.npz"}
    assert signal.getsignal(signal.SIGINT) is handler
    assert track(model, *command) == 0
    assert written("out") == undisturbed


@pytest.mark.slow
def test_a_process_that_is_killed(model: str, undisturbed: dict[str, bytes]) -> None:
    command = [*PROMPTS, "--write", "masks", "json", "sheet"]
    code = (
        "import sys, time; from quick_compilation import compiling_quickly; "
        "from sam2_jax.clips import record; from sam2_jax.commands import main; "
        "record.SECONDS = 0.0; add = record.Record.add; "
        "record.Record.add = lambda *a: (add(*a), time.sleep(0.3));\n"
        "with compiling_quickly(): main(sys.argv[1:])"
    )
    places = [str(Path(__file__).parents[1]), *sys.path]
    # Without the tests' cache, whose entries it might leave half-written.
    process = subprocess.Popen(
        [sys.executable, "-c", code, "track", "clip", "--model", model, "--output", "out", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
    )
    for _ in range(1200):
        if any(Path("out").glob("session-*.npz")):
            break
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("out/tracks.json").exists()
    assert track(model, *command) == 0
    assert written("out") == undisturbed


def test_what_is_there_is_not_made_again_and_what_is_missing_is(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert track(model, "--point", "14,30", "--write", "json") == 0
    before = Path("out/tracks.json").stat().st_mtime_ns
    monkeypatch.setattr(Record, "add", None)
    assert track(model, "--point", "14,30", "--write", "json", "objects") == 0
    assert Path("out/tracks.json").stat().st_mtime_ns == before
    assert len(list(Path("out/objects/001").iterdir())) == COUNT


def test_what_is_of_something_else_is_made_anew(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert track(model, "--point", "14,30", "--write", "json", "masks") == 0
    assert track(model, "--point", "40,30", "--write", "json") == 0
    assert (
        "note: out has results of another clip, model or prompts; they are made anew"
        in capsys.readouterr().err
    )
    assert {path.name for path in Path("out").iterdir()} == {"frames.jsonl", "tracks.json"}
    Path("mine/masks").mkdir(parents=True)
    assert track(model, "--point", "14,30", output="mine") == 1
    assert (
        "mine/masks is there, and is not of this command: choose another --output" in capsys.readouterr().err
    )
    assert {path.name for path in Path("mine").iterdir()} == {"masks"}
    Path("mine/frames.jsonl").write_text('{"frame": 1}\n')
    assert track(model, "--point", "14,30", output="mine") == 1
    assert "mine/frames.jsonl is there, and is no record of frames" in capsys.readouterr().err
    assert {path.name for path in Path("mine").iterdir()} == {"masks", "frames.jsonl"}
    Path("out/frames.jsonl").write_bytes(b'{"mad')  # killed when it began
    Path("out/tracks.json").unlink()
    assert track(model, "--point", "14,30", "--write", "json") == 0
    assert capsys.readouterr().err == ""


def test_a_frame_that_cannot_be_read_ends_the_clip(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Path("clip/frame 7.png")
    broken.write_bytes(broken.read_bytes()[:90])
    for _ in range(2):
        assert track(model, "--point", "14,30", "--write", "masks", "json") == 1
        error = capsys.readouterr().err
        assert "frame 7.png cannot be read" in error
        assert "tracking ended at frame 7" in error
        assert len(list(Path("out/masks").iterdir())) == 7
        assert len(tracks()[0]["areas"]) == 7
    Path("clip/frame 0.png").write_bytes(b"")
    assert track(model, "--point", "14,30", output="none") == 1
    assert "frame 0.png" in capsys.readouterr().err
    assert not Path("none").exists()


def test_a_frame_before_all_prompts_need_not_be_readable(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("clip/frame 7.png").write_bytes(b"")
    assert track(model, "--point", "14,30@9", "--write", "masks", "json") == 0
    assert "note: left out of the results: frame 7 of the clip cannot be read" in capsys.readouterr().err
    assert len(list(Path("out/masks").iterdir())) == COUNT - 1
    assert there(tracks()[0])[0] == 8  # of the frames that are left


def test_results_are_never_among_the_clips_own_files(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert track(model, "--point", "14,30", "--write", "json", "masks") == 0
    for clip, output in (("clip", "clip"), ("out/masks", "out"), ("out/masks/frame 3.png", "out")):
        there = written(clip)
        assert track(model, "--point", "30,30", clip=clip, output=output) == 1
        assert "would be among the clip's own files: choose another --output" in capsys.readouterr().err
        assert written(clip) == there


def test_clicks_on_the_sample_are_on_the_same_things_on_any_frame() -> None:
    first, last = (sample_prompts(t) for t in (0, 11))
    clip = SampleFrames(SAMPLE_PICTURE)
    pictures = dict(zip((0, 11), clip.read(range(0, 12, 11)), strict=True))
    for one, other in zip(first, last, strict=True):
        ((x0, y0), _, t0), ((x1, y1), _, t1) = one.points[0], other.points[0]
        assert (t0, t1) == (0, 11)
        assert (x0, y0) != (x1, y1)
        near = (pictures[t][round(y), round(x)].astype(int) for x, y, t in ((x0, y0, 0), (x1, y1, 11)))
        assert np.abs(next(near) - next(near)).max() < 25


def test_masks_are_prompts(model: str) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 8:24] = 255
    Image.fromarray(mask).save("mask@3.png")
    assert track(model, "--mask", "mask@3.png@2", "--write", "masks") == 0
    with Image.open("out/masks/frame 2.png") as file:
        labels = np.asarray(file)
    shared = np.count_nonzero((labels == 1) & (mask > 0))
    assert shared > 0.7 * np.count_nonzero((labels == 1) | (mask > 0))


@pytest.mark.slow
def test_the_sample(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "--model", model, "--end", "3", "--write", "sheet"]) == 0
    assert "sample.png: 256 x 256 pixels, 3 frames" in capsys.readouterr().out
    assert Path("sample_tracked/sheet.png").exists()


@pytest.mark.slow
def test_everything(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sam2_jax.image.automatic import AutomaticMaskGenerator

    seen: list[np.ndarray] = []

    class Found:
        def __init__(self, x: int, score: float) -> None:
            self.mask = np.zeros((64, 64), bool)
            self.mask[20:40, x : x + 12] = True
            self.predicted_iou = score

    def find(self: Any, picture: np.ndarray, progress: bool) -> list[Found]:
        seen.append(picture)
        return [Found(2, 0.5), Found(30, 0.9), Found(31, 0.8)]

    monkeypatch.setattr(AutomaticMaskGenerator, "find", find)
    command = ["--everything", "--every", "5", "--points-per-side", "2", "--write", "json"]
    assert track(model, *command, "--max-objects", "2") == 0
    # Two at once, the better first; then there are as many as there may be.
    assert len(seen) == 1
    first, second = tracks()
    assert first["bboxes"][0][0] > second["bboxes"][0][0]
    assert track(model, *command, output="more") == 0
    assert len(seen) == 1 + 3
    for t, picture in zip((0, 5, 10), seen[1:], strict=True):
        np.testing.assert_array_equal(picture, small_clip(COUNT)[t])
    assert track(model, "--everything", "--points-per-side", "1", "--reverse") == 1
    assert "--everything finds objects forwards by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to track: give at least one --point, --box or --mask, or --everything"),
        (["--point", "65,30"], "object 1, frame 0: points must lie in the photo, which is 64 x 64 pixels"),
        (["--point", "1,1", "--object", "--box", "9,9,4,4@3"], "object 2, frame 3: "),
        (["--point", "1,1@12"], "object 1, frame 12: the frame must be one of those taken, 0 to 11"),
        (["--point", "1,1@3", "--stride", "2"], "the frame must be one of those taken, 0 to 10, every 2th"),
        (["--box", "1,1,9,9@2", "--box", "1,1,8,8@2"], "--box is given twice; begin the next object"),
        (["--mask", "none.png"], "object 1, frame 0: there is no picture none.png"),
        (["--mask", f"{300 * 'x'}@3"], "cannot be read: File name too long"),
        (["--mask", "small.png"], "must be as large as the frames, 64 x 64 pixels; small.png is 5 x 5"),
        (["--point", "1,1", "--start", "12"], "start must be a frame of clip, 0 to 11; got 12"),
        (["--point", "1,1", "--end", "0"], "end must be a whole number of at least 1"),
        (["--everything", "--every", "-1"], "--every must be a whole number of at least 0; got -1"),
        (["--everything", "--max-objects", "0"], "--max-objects must be a whole number from 1 to 255; got 0"),
        (["--everything", "--point", "1,1"], "leave out prompts"),
        (["--point", "1,1", "--every", "5"], "--every is for --everything, which is not given"),
        (
            ["--everything", "--points-per-side", "0"],
            "--points-per-side must be a whole number of at least 1",
        ),
        (["--point", "1,1", "--max-pixels", "4000"], "64 x 64 pixels are more than the limit of 4,000"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save("small.png")
    assert track("owner/none", *options) == 1
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_for_pictures_is_refused(
    small_model: Sam2Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model.save_pretrained(tmp_path / "pictures")
    assert track("./pictures", "--point", "1,1") == 1
    message = "./pictures is a model for pictures; clips need one with a memory: facebook/sam2.1"
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_embedded_model_is_for_clips_too_and_only_the_size_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert track("embedded", "--point", "1,1", "--image-size", "100") == 1
    assert "error: image_size must be" in capsys.readouterr().err


def test_addresses_and_files_that_are_no_clips_are_refused(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    Path("text.mp4").write_text("no video")
    for clip, message in {
        "https://a.b/c.mp4": "got the address",
        "none.mp4": "there is no clip none.mp4",
        "text.mp4": "text.mp4 is not a video that can be read",
    }.items():
        assert track(model, "--point", "1,1", clip=clip) == 1
        assert message in capsys.readouterr().err
    assert not Path("out").exists()
