"""Benchmarks of tracked objects in their own layouts, made small."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small_video import small_clip, small_video_model

from benchmarks.vos import main, score
from benchmarks.vos_data import videos
from sam2_jax import Sam2VideoModel
from sam2_jax.processing.drawing import palette_image

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

FRAMES = 9


def truth(t: int) -> np.ndarray:
    """A label map of the square of the clip, and of a thing that appears on frame 4."""
    labels = np.zeros((64, 64), np.uint8)
    x = 6 + (3 * t) % 40
    labels[20:40, x : x + 16] = 1
    if t >= 4:
        labels[45:60, 5:20] = 3
    return labels


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    for number, name in enumerate(("bear", "camel")):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for t, frame in enumerate(small_clip(FRAMES, seed=number)):
            Image.fromarray(frame).save(root / "JPEGImages/480p" / name / f"{t:05}.jpg")
            labels = np.minimum(truth(t), 1) if number else truth(t)
            palette_image(labels).save(root / "Annotations/480p" / name / f"{t:05}.png")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\ncamel\n")
    return root


@pytest.fixture(scope="module")
def sav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth frame is annotated, and objects may overlap."""
    root = tmp_path_factory.mktemp("sav")
    (root / "JPEGImages_24fps/sav_1").mkdir(parents=True)
    for t, frame in enumerate(small_clip(13)):
        Image.fromarray(frame).save(root / "JPEGImages_24fps/sav_1" / f"{t:05}.jpg")
        for key in (0, 1):
            folder = root / "Annotations_6fps/sav_1" / f"{key:03}"
            folder.mkdir(parents=True, exist_ok=True)
            if t % 4 == 0:
                Image.fromarray(truth(t) > key).save(folder / f"{t:05}.png")
    (root / "sav_val.txt").write_text("sav_1\n")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    small_video_model().save_pretrained(folder)
    return str(folder)


def test_davis(davis: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results"
    main(["--dataset", "davis17", str(davis), "--model", model, "--output", str(output)])
    out = capsys.readouterr().out
    results = json.loads((output / "results.json").read_text())
    assert {name: list(each) for name, each in results["videos"].items()} == {
        "bear": ["1", "3"],
        "camel": ["1"],
    }
    numbers = [each for video in results["videos"].values() for each in video.values()]
    for part in ("j", "f"):
        assert results["mean"][part] == pytest.approx(np.mean([each[part] for each in numbers]))
    together = 50 * (results["mean"]["j"] + results["mean"]["f"])
    assert f"| all | 3 | {together:.1f} |" in out
    assert "| bear | 2 |" in out
    with Image.open(output / "bear" / "00000.png") as file:  # the mask that was given
        given = np.asarray(file) == 1
    assert np.count_nonzero(given & (truth(0) == 1)) > 0.8 * np.count_nonzero(given | (truth(0) == 1))
    assert sorted(path.name for path in (output / "bear").iterdir()) == [f"{t:05}.png" for t in range(FRAMES)]
    # What was written is scored again, and not tracked again.
    main(["--dataset", "davis17", str(davis), "--predictions", str(output)])
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if line.startswith("|")] == [
        line for line in out.splitlines() if line.startswith("|")
    ]


def test_the_truth_is_perfect_and_nothing_is_not(davis: Path, tmp_path: Path) -> None:
    bear, camel = videos("davis17", davis, "val")
    for video in (bear, camel):
        assert all(each == (1, 1) for each in score(video, video.truth).values())
    empty = tmp_path / "empty"
    empty.mkdir()
    for t in range(FRAMES):
        palette_image(np.zeros((64, 64), np.uint8)).save(empty / f"{t:05}.png")
    assert all(each == (0, 0) for each in score(bear, empty).values())
    # One bad frame of seven that count; the first and the last do not.
    for bad in (0, 5, FRAMES - 1):
        folder = tmp_path / f"{bad}"
        shutil.copytree(camel.truth, folder)
        shutil.copy(empty / "00000.png", folder / f"{bad:05}.png")
        (found,) = score(camel, folder).values()
        assert found == pytest.approx((6 / 7, 6 / 7) if bad == 5 else (1, 1))


def test_sa_v(sav: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (video,) = videos("sav", sav, "val")
    assert list(video.annotated) == [f"{t:05}" for t in (0, 4, 8, 12)]
    assert score(video, video.truth) == {0: (1, 1), 1: (1, 1)}
    output = tmp_path / "results"
    main(["--dataset", "sav", str(sav), "--model", model, "--output", str(output)])
    results = json.loads((output / "results.json").read_text())
    assert list(results["videos"]["sav_1"]) == ["0", "1"]
    assert sorted(path.name for path in (output / "sav_1").iterdir()) == ["000", "001"]
    assert len(list((output / "sav_1" / "000").iterdir())) == 13
    assert len(list((output / "sav_1" / "001").iterdir())) == 13 - 4  # from its first mask on
    main(["--dataset", "sav", str(sav), "--predictions", str(output)])
    assert "| all | 2 |" in capsys.readouterr().out
    # Masks of another policy of memory are no part of these results.
    with pytest.raises(SystemExit, match="name another --output"):
        main(["--dataset", "sav", str(sav), "--model", model, "--output", str(output), "--memory", "motion"])
    main(["--dataset", "sav", str(sav), "--model", model, "--output", f"{output}2", "--memory", "motion"])
    assert json.loads((tmp_path / "results2" / "results.json").read_text())["memory"] == "motion"


def test_masks_of_others_are_not_taken_for_these(sav: Path, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    command = ["--dataset", "sav", str(sav), "--output", str(tmp_path / "results"), "--model"]
    with pytest.raises(SystemExit, match="neither an existing folder"):  # which is not remembered
        main([*command, str(tmp_path / "none")])
    main([*command, str(folder)])
    shutil.copytree(sav, tmp_path / "sav")
    with pytest.raises(SystemExit, match="name another --output"):
        main(["--dataset", "sav", str(tmp_path / "sav"), *command[3:], str(folder)])
    trained = Sam2VideoModel.from_pretrained(folder)
    trained.with_params(jax.tree.map(lambda x: 1.01 * x, trained.params)).save_pretrained(folder)
    with pytest.raises(SystemExit, match="name another --output"):
        main([*command, str(folder)])


def test_without_a_frame_that_counts_there_are_no_numbers(davis: Path, tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        own = tmp_path / kind / "480p" / "bear"
        own.mkdir(parents=True)
        for path in sorted((davis / kind / "480p" / "bear").iterdir())[:2]:
            shutil.copy(path, own)
    shutil.copytree(davis / "ImageSets", tmp_path / "ImageSets")
    (tmp_path / "ImageSets/2017/val.txt").write_text("bear")
    with pytest.raises(SystemExit, match="no object is on a frame that counts"):
        main(["--dataset", "davis17", str(tmp_path), "--predictions", str(tmp_path / "Annotations/480p")])


@pytest.mark.filterwarnings("ignore:.*fork")  # its processes
def test_numbers_are_those_of_vos_benchmark(davis: Path, model: str, tmp_path: Path) -> None:
    benchmark = pytest.importorskip("vos_benchmark.benchmark").benchmark
    main(["--dataset", "davis17", str(davis), "--model", model, "--output", str(tmp_path / "results")])
    ours = json.loads((tmp_path / "results" / "results.json").read_text())["mean"]
    _, (j,), (f,), _ = benchmark(
        [str(davis / "Annotations/480p")], [str(tmp_path / "results")], verbose=False
    )
    assert (100 * ours["j"], 100 * ours["f"]) == pytest.approx((j, f), abs=1e-9)


def test_what_is_wrong_is_said(davis: Path, tmp_path: Path) -> None:
    for options, message in (
        (
            [str(tmp_path), "--predictions", "x"],
            "not laid out as davis17: there is no folder JPEGImages",
        ),
        ([str(davis), "--split", "test", "--predictions", "x"], "has no list of the videos of test"),
        ([str(davis), "--predictions", str(tmp_path / "none")], "there are no masks .*none/bear"),
        ([str(davis)], "give --model and --output to track, or --predictions"),
    ):
        with pytest.raises(SystemExit, match=f"benchmarks.vos: error: .*{message}"):
            main(["--dataset", "davis17", *options])
    colourful = tmp_path / "bear"
    colourful.mkdir()
    for t in range(FRAMES):
        Image.new("RGB", (64, 64)).save(colourful / f"{t:05}.png")
    with pytest.raises(SystemExit, match="must have a palette or be grey"):
        main(["--dataset", "davis17", str(davis), "--predictions", str(tmp_path)])
