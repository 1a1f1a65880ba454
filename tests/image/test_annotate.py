"""`sam2-jax generate`: files for many photos, begun again where it stopped, damaged ones reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage
from small_models import model_of, smallest_config

from sam2_jax.commands import main
from sam2_jax.image.annotate import find_photos
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.processing.rle import decode_rle

OPTIONS = ["--points-per-side", "4", "--pred-iou-thresh", "0.5", "--stability-score-thresh", "0.6"]


@pytest.fixture(autouse=True)
def _discs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_jax.image.model.Sam2Model", Discs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    model_of(smallest_config(128)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos and one that is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.png", (60, 90)), ("b.jpg", (90, 60))):
        noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((*size, 3)), (5, 5, 0))
        pixels = (128 + 90 * noise / np.abs(noise).max()).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "damaged.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


def generate(model: str, *arguments: Any) -> int:
    return main(["generate", *map(str, arguments), "--model", model, *OPTIONS])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_a_folder_becomes_files(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert generate(model, photos, "--output", out) == 1
    printed = capsys.readouterr()
    assert "damaged.png failed:" in printed.err
    assert "in 2 photos" in printed.out
    made = {f"{name}.{kind}" for name in ("a.png", "b.jpg") for kind in ("overlay.png", "labels.png", "json")}
    assert {path.name for path in out.iterdir()} == made | {"annotations.json"}
    coco = COCO(out / "annotations.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.jpg"]
    image = coco.loadImgs(1)[0]
    assert (image["height"], image["width"]) == (60, 90)
    with Image.open(out / "a.png.labels.png") as image_file:
        labels = np.asarray(image_file)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert labels.max() == len(annotations) > 1
    covered = np.zeros((60, 90), bool)
    for annotation in annotations:
        mask = coco.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(mask, decode_rle(annotation["segmentation"]))
        assert annotation["area"] == mask.sum()
        covered |= mask
    np.testing.assert_array_equal(labels > 0, covered)
    with Image.open(out / "b.jpg.overlay.png") as overlay:
        assert overlay.size == (60, 90)


def test_finished_photos_are_left_alone(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "damaged.png").unlink()
    out = tmp_path / "out"
    assert generate(model, photos / "a.png", "--output", out) == 0
    before = (out / "a.png.json").stat().st_mtime_ns
    searched: list[tuple[int, ...]] = []
    find = AutomaticMaskGenerator.find

    def counted(self: AutomaticMaskGenerator, picture: np.ndarray, progress: bool) -> Any:
        searched.append(picture.shape[:2])
        return find(self, picture, progress)

    monkeypatch.setattr(AutomaticMaskGenerator, "find", counted)
    assert generate(model, photos, "--output", out) == 0
    assert searched == [(90, 60)]
    assert (out / "a.png.json").stat().st_mtime_ns == before
    images = json.loads((out / "annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "b.jpg"]


def test_what_was_written_before_an_interruption_stays(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    find = AutomaticMaskGenerator.find

    def interrupted(self: AutomaticMaskGenerator, picture: np.ndarray, progress: bool) -> Any:
        if picture.shape[0] == 90:
            raise KeyboardInterrupt
        return find(self, picture, progress)

    monkeypatch.setattr(AutomaticMaskGenerator, "find", interrupted)
    assert generate(model, photos, "--output", out) == 130
    assert sorted(path.name for path in out.iterdir()) == [
        f"a.png.{k}" for k in ("json", "labels.png", "overlay.png")
    ]


def test_a_photo_too_small_for_crops_does_not_stop_the_rest(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1, 1)).save(photos / "damaged.png")
    out = tmp_path / "out"
    assert generate(model, photos, "--output", out, "--crop-n-layers", "1") == 1
    assert "damaged.png failed: crop_n_layers must be less than 1" in capsys.readouterr().err
    assert (out / "a.png.json").exists()
    assert (out / "b.jpg.json").exists()


def test_other_settings_are_not_mixed(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert generate(model, photos / "a.png", "--output", out) == 0
    assert generate(model, photos / "a.png", "--output", out, "--crop-n-layers", "1") == 1
    assert "was made with other settings or another model: choose another folder" in capsys.readouterr().err


def test_a_half_written_record_is_made_anew(model: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png.json").write_text('{"info": ')
    assert generate(model, photos / "a.png", "--output", out) == 0
    assert json.loads((out / "a.png.json").read_text())["annotations"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png", "--output", "out"], "there is no picture missing.png"),
        (["photo.png", "--output", "photo.png"], "--output must be a folder; photo.png is a file"),
        (
            ["photo.png", "--output", "out", "--points-per-side", "0"],
            "points_per_side must be a whole number",
        ),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    assert main(["generate", *arguments, "--model", "nowhere"]) == 1
    assert message in capsys.readouterr().err


def test_two_photos_of_one_name_are_refused(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((photos / "a.png").read_bytes())
    with pytest.raises(ValueError, match="have the same name: write them to different folders"):
        find_photos([photos, other])
    assert find_photos([photos, photos / "a.png"]) == sorted(photos.iterdir())
    with pytest.raises(ValueError, match="there is no picture in"):
        find_photos([tmp_path])
