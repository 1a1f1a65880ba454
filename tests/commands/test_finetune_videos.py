"""`sam2-jax finetune` on videos: from a folder as DAVIS has it to a model that tracks."""

import json
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from small_models import random_tensors, smallest_video_config
from video_datasets import SIZE, write_video

from sam2_jax import Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.commands import main
from sam2_jax.commands.finetune_videos import _to_judge
from sam2_jax.training.video_folders import ShuffledVideos, open_videos

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.mark.slow
def test_videos_are_trained_on_and_judged_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bear", "camel", "dance"):
        write_video(tmp_path / "data", name, 3)
    given = Sam2VideoModel(
        smallest_video_config(), names.unflatten(names.to_flax(random_tensors(smallest_video_config())))
    )
    given.save_pretrained(tmp_path / "model")
    command = ["finetune", "--data", str(tmp_path / "data"), "--model", str(tmp_path / "model"), "--quiet"]
    options = ["--steps", "1", "--batch-size", "1", "--objects", "1", "--frames", "2", "--corrections", "0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*command, "--output", str(tmp_path / "tuned"), *options]) == 0
    report = json.loads((tmp_path / "tuned" / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["after"]["returning"] is None  # no object comes back
    assert set(report) == {"model", "before", "after"}
    trained = Sam2VideoModel.from_pretrained(tmp_path / "tuned", layout="flax")
    before, after = (names.flatten(model.params) for model in (given, trained))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any(name.startswith("memory_attention.") for name in moved)
    assert not any(name.startswith("vision_encoder.backbone.") for name in moved)


@pytest.mark.parametrize("option", ["--images", "--validation-images"])
def test_photos_are_not_asked_for(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "data", "bear", 3)
    data, output = str(tmp_path / "data"), str(tmp_path / "tuned")
    command = ["finetune", "--data", data, "--output", output, "--validation", data, option, data]
    assert main(command) == 1
    assert f"{option} says where photos are; {data} has videos" in capsys.readouterr().err


def test_what_is_damaged_is_told_of_both_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("data", "other"):
        write_video(tmp_path / name, "bear", 3)
        for i in range(12):
            (tmp_path / name / "JPEGImages" / f"{name}{i}").mkdir()
    (tmp_path / "empty").mkdir()
    command = ["finetune", "--data", str(tmp_path / "data"), "--validation", str(tmp_path / "other")]
    assert main([*command, "--output", str(tmp_path / "tuned"), "--model", str(tmp_path / "empty")]) == 1
    error = capsys.readouterr().err
    for name in ("data", "other"):
        assert error.count(f"note: left out: {name}") == 10
    assert error.count("note: ... and 2 more") == 2


def test_a_share_that_cannot_be_held_out_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "data", "bear", 3)
    command = ["finetune", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "tuned")]
    assert main([*command, "--held-out", "0.5"]) == 1
    assert "to hold some out there must be two pictures or videos or more" in capsys.readouterr().err


def test_a_video_with_damage_where_it_is_judged_is_left_out_and_said(tmp_path: Path) -> None:
    """And not judged from the frame behind the damage on, as if it were another clip."""
    for name in ("bear", "camel", "late"):
        write_video(tmp_path, name, 4)
    (tmp_path / "JPEGImages" / "bear" / "00001.jpg").write_bytes(b"no picture")
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "Annotations" / "late" / "00000.png")
    with pytest.warns(UserWarning, match="bear: .*00001.jpg"):
        judged = [clip.name for clip in _to_judge(open_videos(tmp_path))]
    assert judged == ["camel, frames 0 to 3", "late, frames 1 to 3"]


def test_annotations_may_be_of_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "data", "bear", 3)
    opened, data = [], []

    def train(model: object, source: ShuffledVideos, *_: object, **running: object) -> NoReturn:
        opened.append(source.dataset.one_object)
        data.append(running["data"])
        raise ValueError("as far as this")

    monkeypatch.setattr("sam2_jax.training.clip_trainer.train_on_clips", train)
    monkeypatch.setattr("sam2_jax.commands.finetune_videos.load_video_model", lambda _: None)
    command = ["finetune", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "tuned")]
    for options in ([], ["--one-object"], ["--frames", "2"]):
        assert main([*command, *options]) == 1
    assert opened == [False, True, False]
    assert data[0] != data[1]
    assert data[0] != data[2]  # clips of another length are another training
