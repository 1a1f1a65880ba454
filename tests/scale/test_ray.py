"""Classes for Ray Data, which need no Ray; the engine itself runs in `benchmarks/ray_faults.py`."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from discs import Discs
from PIL import ExifTags, Image
from small_models import model_of, smallest_config
from small_video import small_clip, small_video_model

from sam2_jax import Sam2Processor
from sam2_jax.commands import main
from sam2_jax.image.batch import predict_batch
from sam2_jax.scale.inputs import find_pictures
from sam2_jax.scale.pictures import generate_rows, predict_rows
from sam2_jax.scale.ray import AutomaticMasks, PromptedMasks, TrackedClips, WrittenBlocks, _blocks
from sam2_jax.scale.rows import read_rows, row_files, row_schema

GRID = {"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    model_of(smallest_config(128)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 60, 3), np.uint8)
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 6 if i == 1 else 1
        Image.fromarray(pixels).save(folder / f"{i}.png", exif=turned)
    (folder / "3.png").write_bytes(b"no picture")
    return sorted(folder.iterdir())


def without_clock(rows: Any) -> list[dict[str, Any]]:
    return sorted((row | {"seconds": None} for row in rows), key=lambda row: row["id"])


def test_pictures_by_path_or_bytes_become_the_rows_of_the_command(
    model: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_jax.scale.ray.Sam2Model", Discs)
    masks = AutomaticMasks(model, **GRID)
    generate_rows(masks.generator, photos, tmp_path / "rows", model_name=model, progress=False)
    expected = without_clock(read_rows(row_files(tmp_path / "rows")))
    table = masks(pyarrow.table({"path": [str(photo) for photo in photos]}))
    assert table.schema == row_schema()
    assert without_clock(table.to_pylist()) == expected
    kept = {"id": [str(photo) for photo in photos], "bytes": [photo.read_bytes() for photo in photos]}
    of_bytes = without_clock(masks(pyarrow.table(kept)).to_pylist())
    for column in ("height", "width", "masks"):
        assert [row[column] for row in of_bytes] == [row[column] for row in expected]
    assert (of_bytes[1]["height"], of_bytes[1]["width"]) == (60, 41)  # upright
    assert "is not a picture in a format that Pillow reads" in of_bytes[-1]["error"]


def test_a_block_done_twice_is_one_file(
    model: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_jax.scale.ray.Sam2Model", Discs)
    write = WrittenBlocks(str(tmp_path / "rows"), model=model, **GRID)
    (tmp_path / "rows").mkdir()
    paths = [str(photo) for photo in photos]
    items = find_pictures(photos)
    blocks, skipped = _blocks(items, set())
    assert (len(blocks), skipped) == (1, 0)
    for _ in range(2):
        done = write(blocks[0])
    assert (done["photos"], list(json.loads(done["failed"]))) == (4, paths[3:])
    assert [row["id"] for row in read_rows(row_files(tmp_path / "rows"))] == paths
    assert _blocks(items, set(paths)) == ([], 4)
    left, skipped = _blocks(items, set(paths[:1]))
    assert [item["id"] for item in json.loads(left[0]["wanted"])] == paths[1:]
    assert skipped == 1


@pytest.mark.usefixtures("quick_compilation")
def test_prompted_pictures_become_rows(model: str, photos: list[Path], tmp_path: Path) -> None:
    masks = PromptedMasks(model, readers=1, progress=False, processor=Sam2Processor.from_pretrained(model))
    points = [[[3.0, 4.0]], [[20.0, 9.0]]]
    columns = {"path": [str(photos[0]), str(photos[3])], "points": [points, points]}
    found, damaged = masks(pyarrow.table(columns)).to_pylist()
    work = [{"photo": photos[0], "points": points}]
    expected = next(iter(predict_batch(masks.model, work, progress=False)))
    assert expected.masks is not None
    assert [mask["area"] for mask in found["masks"]] == expected.masks.sum(axis=(1, 2, 3)).tolist()
    assert "3.png" in damaged["error"]
    predict_rows(masks.model, [{**work[0], "name": 7}], tmp_path, model_name=model)
    (row,) = read_rows(row_files(tmp_path))
    assert row | {"seconds": None} == found | {"id": "7", "path": str(photos[0]), "seconds": None}
    columns = {"path": [str(photos[0])] * 3, "points": [points, points[1:], [[[-1.0, 0.0]]]]}
    with pytest.warns(UserWarning, match="1 of 3 photos failed"):
        several, one, outside = masks(pyarrow.table(columns)).to_pylist()
    assert several["masks"] == found["masks"]
    assert len(one["masks"]) == 1
    assert "points must lie in the photo" in outside["error"]


@pytest.mark.usefixtures("quick_compilation")
def test_clips_become_rows_of_tracks(tmp_path: Path) -> None:
    small_video_model().save_pretrained(tmp_path / "model")
    clip = tmp_path / "clip"
    clip.mkdir()
    for t, picture in enumerate(small_clip(5)):
        Image.fromarray(picture).save(clip / f"{t}.png")
    prompts = [{"points": [[14.0, 30.0]]}, {"box": [4.0, 18.0, 24.0, 42.0], "t": 2}]
    nowhere, nothing = [{**prompts[0], "t": 5}], [{"points": []}]
    columns = {
        "path": [str(clip), str(tmp_path / "none"), *[str(clip)] * 3],
        "prompts": [prompts, prompts, nowhere, nothing, []],
    }
    rows = TrackedClips(str(tmp_path / "model"))(pyarrow.table(columns)).to_pylist()
    of_clip, failed = rows[:-4], rows[-4:]
    given = ["--point", "14,30", "--object", "--box", "4,18,24,42@2", "--quiet", "--write", "parquet"]
    folders = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert main(["track", str(clip), *folders, *given]) == 0
    expected = pyarrow.parquet.read_table(tmp_path / "out" / "tracks.parquet").to_pylist()
    assert of_clip == [{"id": str(clip), "error": None, **row} for row in expected]
    assert [(row["frame"], row["object_id"]) for row in of_clip[:4]] == [(0, 1), (1, 1), (2, 1), (2, 2)]
    assert all(row["frame"] is None for row in failed)
    for row, said in zip(
        failed, ("none", "t must be .* 0 to 4; got 5", "points or a box", "nothing to track"), strict=True
    ):
        assert re.search(said, row["error"])


def test_without_ray_the_extra_is_named(
    model: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["generate", str(photos[0]), "--model", model, "--output", str(tmp_path / "out")]
    assert main([*command, "--engine", "ray"]) == 1
    assert "pip install 'sam2_jax[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_whatever_is_killed_each_photo_has_one_row() -> None:
    if not find_spec("ray"):
        pytest.skip("needs Ray: pip install 'sam2_jax[ray]'")
    script = Path(__file__).parents[2] / "benchmarks" / "ray_faults.py"
    done = subprocess.run([sys.executable, str(script), "--photos", "40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"), ("nowhere", "address must be HOST:PORT")],
)
def test_a_cluster_that_does_not_answer_is_a_sentence(
    address: str, said: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sam2_jax.scale.ray.import_ray", lambda: None)
    command = ["generate", str(photos[0]), "--model", "embedded", "--output", str(tmp_path / "out")]
    assert main([*command, "--engine", "ray", "--address", address]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
