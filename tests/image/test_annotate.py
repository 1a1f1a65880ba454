"""`sam2-jax generate`: files for many photos, begun again where it stopped, damaged ones reported."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
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
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.photos import find_photos
from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.drawing import Drawn, label_map, overlay
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
    done, read = re.findall(
        r"([\d.e+]+) photos a second; one reader alone opens and resizes ([\d.e+]+)", printed.out
    )[0]
    assert float(done) > 0 < float(read)
    made = {f"{name}.{kind}" for name in ("a.png", "b.jpg") for kind in ("overlay.png", "labels.png", "json")}
    assert {path.name for path in out.iterdir()} == made | {"annotations.json"}
    coco = COCO(out / "annotations.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.jpg"]
    image = coco.loadImgs(1)[0]
    assert (image["height"], image["width"]) == (60, 90)
    with Image.open(out / "a.png.labels.png") as image_file:
        labels = np.asarray(image_file)
    of_first = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert labels.max() == len(of_first) > 1
    masks = []
    for annotation in of_first:
        mask = coco.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(mask, decode_rle(annotation["segmentation"]))
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == list(bounding_box(mask))
        assert not (labels == annotation["label"])[~mask].any()
        masks.append(mask)
    np.testing.assert_array_equal(labels, label_map(masks))
    with Image.open(out / "a.png.overlay.png") as drawn, Image.open(photos / "a.png") as photo:
        expected = overlay(np.asarray(photo), [Drawn(mask) for mask in masks])
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    # In all photos but the first, ids go on where labels begin again.
    assert coco.loadAnns(coco.getAnnIds(imgIds=2))[0]["label"] == 1
    with Image.open(out / "b.jpg.overlay.png") as drawn:
        assert drawn.size == (60, 90)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of the pictures whose masks are looked for, as they are."""
    sizes: list[tuple[int, ...]] = []
    find_each = AutomaticMaskGenerator.find_each

    def noted(self: AutomaticMaskGenerator, pictures: Iterable[np.ndarray], **options: Any) -> Any:
        def passed() -> Iterator[np.ndarray]:
            for picture in pictures:
                sizes.append(picture.shape[:2])
                yield picture

        return find_each(self, passed(), **options)

    monkeypatch.setattr(AutomaticMaskGenerator, "find_each", noted)
    return sizes


def annotations(out: Path) -> dict[str, Any]:
    """What annotations.json has, by the photos' names; the file is as COCO wants it."""
    coco = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
    ids = [annotation["id"] for annotation in coco["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert len(names) == len(coco["images"])
    assert all(annotation["image_id"] in names for annotation in coco["annotations"])
    return {image["file_name"]: image for image in coco["images"]}


def test_finished_photos_are_left_alone(
    model: str, photos: Path, tmp_path: Path, searched: list[tuple[int, ...]], capsys: Any
) -> None:
    (photos / "damaged.png").unlink()
    out = tmp_path / "out"
    assert generate(model, photos / "a.png", "--output", out) == 0
    before = (out / "a.png.json").stat().st_mtime_ns
    searched.clear()
    # Neither memory nor the spelling of a path nor the place of a copy is a matter of masks.
    shutil.copytree(model, tmp_path / "copy")
    shutil.copytree(photos, tmp_path / "elsewhere")
    copies = [tmp_path / "photos" / ".." / "elsewhere", "--output", out, "--points-per-batch", "3"]
    assert generate(f"{tmp_path}/./copy", *copies) == 0
    assert searched == [(90, 60)]
    assert (out / "a.png.json").stat().st_mtime_ns == before
    assert list(annotations(out)) == ["a.png", "b.jpg"]
    assert len(json.loads((out / "annotations.json").read_text())["info"]["made_with"]) == 1
    printed = capsys.readouterr().out
    assert "in 2 photos, 1 of them done before" in printed
    assert "settings" not in printed


def test_a_second_call_does_not_forget_the_first_ones_photos(
    model: str, photos: Path, tmp_path: Path, searched: list[tuple[int, ...]]
) -> None:
    out = tmp_path / "out"
    assert generate(model, photos / "b.jpg", "--output", out) == 0
    assert generate(model, photos / "a.png", "--output", out) == 0
    assert searched == [(90, 60), (60, 90)]
    assert list(annotations(out)) == ["a.png", "b.jpg"]


def another_picture(model: str, photos: Path, other: Path) -> list[Any]:
    Image.new("RGB", (70, 40), (90, 30, 10)).save(photos / "a.png")
    return [model, photos / "a.png"]


def a_picture_of_the_same_name(model: str, photos: Path, other: Path) -> list[Any]:
    Image.new("RGB", (70, 40), (90, 30, 10)).save(other / "a.png")
    return [model, other / "a.png"]


def retrained_weights(model: str, photos: Path, other: Path) -> list[Any]:
    trained = model_of(smallest_config(128))
    trained.params["no_memory_embedding"] = trained.params["no_memory_embedding"] + 1
    trained.save_pretrained(other)
    return [str(other), photos / "a.png"]


def another_input_size(model: str, photos: Path, other: Path) -> list[Any]:
    return [model, photos / "a.png", "--image-size", "96"]


def another_type(model: str, photos: Path, other: Path) -> list[Any]:
    return [model, photos / "a.png", "--dtype", "bfloat16"]


def another_setting(model: str, photos: Path, other: Path) -> list[Any]:
    return [model, photos / "a.png", "--crop-n-layers", "1"]


@pytest.mark.parametrize(
    "change",
    [
        another_picture,
        a_picture_of_the_same_name,
        retrained_weights,
        another_input_size,
        another_type,
        another_setting,
    ],
)
def test_what_was_made_of_something_else_is_made_anew(
    change: Any,
    model: str,
    photos: Path,
    tmp_path: Path,
    searched: list[tuple[int, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (photos / "damaged.png").unlink()
    assert generate(model, photos, "--output", out) == 0
    changed = change(model, photos, other)
    searched.clear()
    assert generate(*changed, "--output", out, "--no-overlay") == 0
    assert len(searched) == 1
    assert "1 made anew (another picture, model or settings)" in capsys.readouterr().out
    assert not (out / "a.png.overlay.png").exists()  # it was of the other masks
    image = annotations(out)["a.png"]
    assert (image["height"], image["width"]) == searched[0]
    with Image.open(out / "a.png.labels.png") as labels:
        assert labels.size[::-1] == searched[0]
    # The other photo's result is still there, and each says what it was made with.
    kinds = json.loads((out / "annotations.json").read_text())["info"]["made_with"]
    images = annotations(out)
    made_with = kinds[images["a.png"]["made_with"]], kinds[images["b.jpg"]["made_with"]]
    assert (made_with[0] == made_with[1]) == (change in (another_picture, a_picture_of_the_same_name))
    searched.clear()
    assert generate(*changed, "--output", out) == 0
    assert not searched


def test_a_result_of_another_picture_goes_when_the_new_one_fails(
    model: str, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert generate(model, photos / "a.png", photos / "b.jpg", "--output", out) == 0
    (photos / "a.png").write_bytes((photos / "damaged.png").read_bytes())
    assert generate(model, photos / "a.png", "--output", out) == 1
    assert list(annotations(out)) == ["b.jpg"]
    assert not list(out.glob("a.png.*"))


def test_pictures_that_were_removed_are_drawn_again(
    model: str, photos: Path, tmp_path: Path, searched: list[tuple[int, ...]]
) -> None:
    out = tmp_path / "out"
    assert generate(model, photos / "a.png", "--output", out) == 0
    drawn = {kind: (out / f"a.png.{kind}").read_bytes() for kind in ("overlay.png", "labels.png", "json")}
    for kind in ("overlay.png", "labels.png"):
        (out / f"a.png.{kind}").unlink()
        assert generate(model, photos / "a.png", "--output", out) == 0
    assert drawn == {kind: (out / f"a.png.{kind}").read_bytes() for kind in drawn}
    assert len(searched) == 1


def test_what_was_written_before_an_interruption_stays(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    judge = AutomaticMaskGenerator._judge

    def interrupted(self: AutomaticMaskGenerator, views: Any, *found: Any) -> None:
        if views[0].search.picture.shape[0] == 90:
            raise KeyboardInterrupt
        judge(self, views, *found)

    monkeypatch.setattr(AutomaticMaskGenerator, "_judge", interrupted)
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


def test_huge_photos_are_a_choice(model: str, photos: Path, tmp_path: Path, capsys: Any) -> None:
    command = [photos / "a.png", "--output", tmp_path / "out", "--max-pixels"]
    assert generate(model, *command, 60 * 90 - 1) == 1
    assert "too large to be a photo: 90 x 60 pixels" in capsys.readouterr().err
    assert generate(model, *command, 60 * 90) == 0


def test_what_a_folder_has_beside_photos_is_said(
    model: str, photos: Path, tmp_path: Path, searched: list[tuple[int, ...]], capsys: Any
) -> None:
    (photos / "damaged.png").unlink()
    (photos / "more").mkdir()
    for name in ("c.HEIC", "d.heic", "notes.txt", ".hidden"):
        (photos / name).touch()
    for _ in range(2):  # results beside the photos are no photos, and no other files
        assert generate(model, photos, "--output", photos) == 0
        error = capsys.readouterr().err
        assert "left out: 1 folder, to be named as well if meant; 3 files of types that are not read" in error
        assert "2 of .heic, 1 of .txt" in error
    assert len(searched) == 2
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "c.HEIC").touch()
    assert generate(model, tmp_path / "empty", "--output", tmp_path / "out") == 1
    assert "there is no picture in" in (error := capsys.readouterr().err)
    assert "1 of .heic" in error


def test_no_mask_at_all_is_explained(model: str, photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    command = ["generate", str(photos / "a.png"), "--output", str(out), "--model", model, *OPTIONS]
    assert main([*command, "--pred-iou-thresh", "0.99"]) == 0
    printed = capsys.readouterr()
    assert "0 masks in 1 photo" in printed.out
    assert "Lower --pred-iou-thresh and --stability-score-thresh (now 0.99 and 0.6)" in printed.err
    assert annotations(out)["a.png"]["masks"] == 0


def test_names_are_written_as_they_are(model: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["été 写真.png", "no text \udcff.png"]
    for name in names:
        shutil.copy(photos / "a.png", photos / name)
    assert generate(model, *(photos / name for name in names), "--output", out) == 0
    assert sorted(annotations(out)) == sorted(names)
    assert "写真" in (out / "été 写真.png.json").read_text(encoding="utf-8")


def test_a_name_too_long_for_results_does_not_stop_the_rest(
    model: str, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copy(photos / "a.png", photos / f"{'x' * 250}.png")
    out = tmp_path / "out"
    assert generate(model, photos / f"{'x' * 250}.png", photos / "b.jpg", "--output", out) == 1
    assert "failed: File name too long" in capsys.readouterr().err
    assert list(annotations(out)) == ["b.jpg"]


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
        (["photo.png", "--output", "photo.png"], "cannot write photo.png: it is a file, not a folder"),
        (
            ["photo.png", "--output", "out", "--points-per-side", "0"],
            "points_per_side must be a whole number",
        ),
        (["photo.png", "--output", "out", "--pred-iou-thresh", "80"], "pred_iou_thresh must be a number"),
        (["photo.png", "--output", "out", "--stability-score-thresh", "2"], "stability_score_thresh must be"),
        (["photo.png", "--output", "out", "--points-per-side", "1e9"], "points_per_side must be"),
        (["photo.png", "--output", "out", "--image-size", "0"], "--image-size must be a whole number"),
        (["photo.png", "--output", "out", "--max-pixels", "0"], "--max-pixels must be a whole number"),
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
    assert main(["generate", *arguments, "--model", "."]) == 1  # a folder without a model
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
