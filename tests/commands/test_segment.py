"""The command line: what it writes, what it says, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_jax import Sam2Model
from sam2_jax.commands import main
from sam2_jax.processing.rle import decode_rle

WIDTH, HEIGHT = 90, 60

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(small_model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        '{"image_processor": {"size": {"height": 128, "width": 128}}}'
    )
    return str(folder)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in the current folder, which is empty but for it."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return Path("photo.png")


def segment(photo: Path, model: str, *options: str) -> int:
    return main(["segment", str(photo), "--model", model, *options])


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_one_click_writes_an_overlay_and_says_each_step(
    photo: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(photo, model, "--point", "40,30") == 0
    assert size("photo_segmented.png") == (WIDTH, HEIGHT)
    out = capsys.readouterr().out
    assert f"photo.png: {WIDTH} x {HEIGHT} pixels, 1 object" in out
    for step in (
        f"load {model}",
        "prepare the picture",
        "encode the picture",
        "decode 1 object",
        "write photo_segmented.png",
    ):
        assert f"{step} ... " in out
    assert out.count(" s\n") == 5
    assert "object 1: predicted IoU 0." in out


def test_several_objects_masks_and_json(photo: Path, model: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save("mask.png")
    first = ["--point", "40,30", "--negative", "10,10"]
    second = ["--object", "--box", "10,10,60,50"]
    third = ["--object", "--mask", "mask.png"]
    files = ["--output", "out/o.jpg", "--masks", "masks", "--json", "report/r.json"]
    assert segment(photo, model, *first, *second, *third, *files) == 0
    assert size("out/o.jpg") == (WIDTH, HEIGHT)
    report = json.loads(Path("report/r.json").read_text())
    assert report["size"] == [HEIGHT, WIDTH]
    assert [o["labels"] for o in report["objects"]] == [[1, 0], [], []]
    assert [o["box"] for o in report["objects"]] == [None, [10, 10, 60, 50], None]
    for number, entry in enumerate(report["objects"], 1):
        (found,) = entry["masks"]
        with Image.open(f"masks/photo_object{number}_mask1.png") as file:
            png = np.asarray(file)
        np.testing.assert_array_equal(decode_rle(found["segmentation"]), png)
        assert found["area"] == png.sum()
        assert 0 <= found["predicted_iou"] <= 1


def test_transparent_parts_of_a_mask_are_outside(photo: Path, model: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save("transparent.png")
    Image.fromarray(mask[..., 3]).save("opaque.png")
    for name in ("transparent", "opaque"):
        assert segment(photo, model, "--mask", f"{name}.png", "--json", f"{name}.json") == 0
    reports = [json.loads(Path(f"{name}.json").read_text()) for name in ("transparent", "opaque")]
    assert reports[0]["objects"][0]["masks"] == reports[1]["objects"][0]["masks"]


def test_any_name_of_a_photo_will_do(photo: Path, model: str) -> None:
    photo.rename("été 写真.png")
    assert segment(Path("été 写真.png"), model, "--box", "-5,-5,50,50") == 0
    assert size("été 写真_segmented.png") == (WIDTH, HEIGHT)


def test_all_masks_stand_side_by_side_best_first(photo: Path, model: str) -> None:
    assert segment(photo, model, "--point", "40,30", "--all", "--json", "r.json", "--output", "o.png") == 0
    scores = [m["predicted_iou"] for m in json.loads(Path("r.json").read_text())["objects"][0]["masks"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert size("o.png")[0] > 3 * WIDTH


def test_an_object_is_the_same_alone_and_beside_others(photo: Path, model: str) -> None:
    alone = ["--point", "40,30", "--json", "alone.json"]
    beside = ["--point", "40,30", "--object", "--box", "5,5,40,40", "--point", "9,9", "--json", "beside.json"]
    assert segment(photo, model, *alone) == segment(photo, model, *beside) == 0
    first, second = (
        json.loads(Path(name).read_text())["objects"][0]["masks"] for name in ("alone.json", "beside.json")
    )
    assert first[0]["predicted_iou"] == pytest.approx(second[0]["predicted_iou"], abs=1e-5)
    assert first[0]["segmentation"] == second[0]["segmentation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to segment"),
        (["--object"], "nothing to segment"),
        (
            ["--point", "91,30"],
            "object 1: points must lie in the photo, which is 90 x 60 pixels; got",
        ),
        (["--point=-1,30"], "pixels; got (-1, 30)"),
        (["--point", "1,1", "--object", "--negative", "5,61"], "object 2: points must lie in the photo"),
        (["--box", "50,10,20,40"], "x0 < x1 and y0 < y1"),
        (["--box", "100,10,120,40"], "a box must cover a part of the photo"),
        (["--mask", "none.png"], "there is no picture none.png"),
        (["--mask", "small.png"], "must be as large as the photo, 90 x 60 pixels; small.png is 5 x 5"),
        (["--mask", "black.png"], "has no white pixel"),
        (["--point", "1,1", "--output", "o.txt"], "--output must end in .png"),
        (["--point", "1,1", "--output", "d.png"], "cannot write d.png: it is a folder"),
        (["--point", "1,1", "--json", "d.png"], "cannot write d.png: it is a folder"),
        (["--point", "1,1", "--masks", "small.png"], "cannot write small.png: it is a file, not a folder"),
        (["--point", "1,1", "--output", "photo.png"], "--output photo.png would overwrite photo.png"),
        (
            ["--point", "1,1", "--output", "./o.png", "--json", "o.png"],
            "--json o.png would overwrite --output",
        ),
        (["--mask", "white.png", "--output", "white.png"], "--output white.png would overwrite white.png"),
        (
            ["--point", "1,1", "--masks", ".", "--output", "photo_object1_mask1.png"],
            "--masks . would overwrite --output",
        ),
        (["--box", "0,0,1e9,1e9"], "must not reach far beyond the photo"),
        (["--box", "-9,-9,-5,-5"], "pixels; got (-9, -9, -5, -5)"),
    ],
)
def test_a_mistake_is_found_before_the_model_is_loaded(
    options: list[str], message: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (5, 5)).save("small.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save("black.png")
    Path("d.png").mkdir()
    assert segment(photo, ".", *options) == 1  # a folder without a model
    error = capsys.readouterr().err
    assert error.startswith("sam2-jax: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "nan,3"], "expected x,y in pixels"),
        (["--point", "3"], "expected x,y in pixels, such as 100,200; got '3'"),
        (["--box", "1,2,3"], "expected x0,y0,x1,y1 in pixels"),
        (["--box", "1,2,3,4", "--box", "1,2,3,4"], "twice for one object; begin the next one with --object"),
    ],
)
def test_a_mistyped_option_shows_the_usage(
    options: list[str], message: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        segment(photo, "m", *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_lists_the_known_ones(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(photo, "tiny", "--point", "1,1") == 1
    assert "facebook/sam2.1-hiera-large" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_named(
    photo: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert segment(photo, model, "--point", "1,1", "--output", "file/o.png") == 1
    assert "cannot write file/o.png" in capsys.readouterr().err


def test_an_animation_is_noted(photo: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    assert segment(Path("a.gif"), model, "--point", "1,1") == 0
    assert "note: a.gif has 2 frames; only the first is used" in capsys.readouterr().err


def test_help_shows_an_example() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sam2_jax", "segment", "--help"], capture_output=True, text=True, check=True
    )
    assert "sam2-jax segment truck.jpg --point 500,375" in result.stdout
