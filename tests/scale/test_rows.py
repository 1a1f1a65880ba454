"""Rows of masks: what is in them, written once whatever happens, COCO and back."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from discs import Discs
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage
from small_models import model_of, smallest_config

from sam2_jax.commands import main
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.batch import predict_batch
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.rle import decode_rle, encode_rle
from sam2_jax.scale import rows as rows_module
from sam2_jax.scale.coco_rows import coco_to_rows, rows_to_coco
from sam2_jax.scale.pictures import generate_rows, predict_rows
from sam2_jax.scale.rows import RowWriter, read_rows, row_files, row_of, row_schema, write_rows

GRID = {"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in GRID.items()]
MADE = {"model": "m", "weights": "w", "settings": {"points_per_side": 4}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    model_of(smallest_config(128)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def generator(model: str) -> AutomaticMaskGenerator:
    return AutomaticMaskGenerator(Discs.from_pretrained(model), **GRID)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Five photos and one that is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        noise = ndimage.gaussian_filter(np.random.default_rng(i).standard_normal((60 + i, 90, 3)), (5, 5, 0))
        Image.fromarray((128 + 90 * noise / np.abs(noise).max()).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:200])
    return sorted(folder.iterdir())


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows by id, without what depends on the clock; no id is there twice."""
    rows = list(read_rows(row_files(folder)))
    found = {row.pop("id"): row for row in rows}
    assert len(found) == len(rows)
    for row in rows:
        del row["seconds"]
    return found


def test_a_row_has_what_the_generator_finds(
    generator: AutomaticMaskGenerator, photos: list[Path], tmp_path: Path
) -> None:
    done = generate_rows(generator, photos, tmp_path / "rows", model_name="discs", progress=False)
    assert (done.photos, list(done.failed)) == (5, [photos[-1]])
    rows = read(tmp_path / "rows")
    assert set(rows) == {str(photo) for photo in photos}
    for photo in photos[:-1]:
        row, found = rows[str(photo)], generator.find(photo)
        assert row["error"] is None
        assert row["model"] == "discs"
        assert [mask["counts"] for mask in row["masks"]] == [each.rle["counts"] for each in found]
        assert len(found) > 1
        for mask, each in zip(row["masks"], found, strict=True):
            drawn = decode_rle({"size": [row["height"], row["width"]], "counts": mask["counts"]})
            assert mask["area"] == drawn.sum()
            assert mask["bbox"] == [*each.bbox[:2], each.bbox[2] + 1, each.bbox[3] + 1]
            assert mask["predicted_iou"] == np.float32(each.predicted_iou)
            assert mask["stability"] == np.float32(each.stability_score)
            assert tuple(mask["point"]) == tuple(map(np.float32, each.point))
    damaged = rows[str(photos[-1])]
    assert "damaged.png" in damaged["error"]
    assert (damaged["height"], damaged["masks"]) == (None, [])


def test_columns_are_those_that_are_promised() -> None:
    masks = ["counts", "bbox", "area", "predicted_iou", "stability", "point"]
    assert row_schema().names == [
        "id",
        "path",
        "height",
        "width",
        "masks",
        "error",
        "model",
        "options",
        "seconds",
    ]
    assert [field.name for field in row_schema().field("masks").type.value_type] == masks


def test_what_has_a_row_is_not_done_again(
    generator: AutomaticMaskGenerator, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    generate_rows(generator, photos, whole, progress=False)
    looked_at = []
    judge = AutomaticMaskGenerator._judge

    def noted(self: AutomaticMaskGenerator, views: Any, *found: Any) -> None:
        looked_at.append(views[0].search.picture.shape[0])
        if len(looked_at) == 4:
            raise KeyboardInterrupt
        judge(self, views, *found)

    monkeypatch.setattr(AutomaticMaskGenerator, "_judge", noted)
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        generate_rows(generator, photos, parts, progress=False, rows_in_a_file=2)
    assert len(read(parts)) == 4  # those that waited were written too, and the damaged one, read ahead
    done = generate_rows(generator, photos, parts, progress=False)
    assert (done.skipped, done.photos) == (4, 2)
    assert looked_at == [60, 61, 62, 63, 63, 64]
    assert read(parts) == read(whole)
    assert generate_rows(generator, photos, parts, progress=False).skipped == 6


_ADDING = """
import sys
from pathlib import Path
from sam2_jax.scale.rows import RowWriter, row_of
made = {"model": "m", "weights": "w", "settings": {}}
with RowWriter(Path(sys.argv[1]), made, rows_in_a_file=10) as writer:
    for i in range(2000):
        if str(i) not in writer.done:
            writer.add(row_of(str(i), None, (4, 4), [], 0.0))
            if i == int(sys.argv[2]):
                print("there", flush=True)
"""


def test_a_killed_process_loses_only_what_waited(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    for at in (15, 140, 900):
        there = len(read(rows)) if rows.exists() else 0
        command = [sys.executable, "-c", _ADDING, str(rows), str(there + at)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            process.send_signal(signal.SIGKILL)
        assert len(read(rows)) >= there + at // 10 * 10
    subprocess.run([*command[:-1], "-1"], check=True)
    assert set(read(rows)) == {str(i) for i in range(2000)}


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rng = np.random.default_rng(0)
    heavy = [
        {"counts": rng.bytes(3000).hex(), "bbox": [0, 0, 1, 1], "area": 1, "predicted_iou": 1, "stability": 1}
    ]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with RowWriter(rows, MADE, rows_in_a_file=2) as writer:
            writer.add(row_of("a", None, (9, 9), [], 0.0))
            writer.add(row_of("b", None, (9, 9), [], 0.0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
            writer.add(row_of("c", None, (9, 9), heavy, 0.0))
            with pytest.raises(ValueError, match="cannot write .*File too large"):
                writer.add(row_of("d", None, (9, 9), heavy, 0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(read(rows)) == {"a", "b"}
    assert len(list(rows.iterdir())) == 1
    assert RowWriter(rows, MADE).done == {"a", "b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"points_per_side": 8}}, "points_per_side is 8 here and 4 there"),
        ({"weights": "v"}, "other weights"),
    ],
)
def test_rows_of_something_else_are_not_mixed_with(change: Any, said: str, tmp_path: Path) -> None:
    with RowWriter(tmp_path, MADE) as rows:
        rows.add(row_of("a", None, (9, 9), [], 0.0))
    with pytest.raises(ValueError, match=said):
        RowWriter(tmp_path, MADE | change)
    assert RowWriter(tmp_path, MADE | {"model": "the same, called otherwise"}).done == {"a"}


def test_files_that_are_no_rows_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="x.parquet cannot be read as Parquet"):
        RowWriter(tmp_path, MADE)
    other = pyarrow.table({"id": ["a"]})
    pyarrow.parquet.write_table(other, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="lacks the column path"):
        RowWriter(tmp_path, MADE)
    with pytest.raises(ValueError, match="there are no rows"):
        rows_to_coco(tmp_path / "none", tmp_path / "a.json")


@pytest.mark.usefixtures("quick_compilation")
def test_prompted_objects_become_rows(tmp_path: Path) -> None:
    model = model_of(smallest_config())
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    work = [
        {"photo": tmp_path / "a.png", "points": [[(3, 4)], [(9, 9)]]},
        {"photo": pixels, "points": [[(3, 4)]], "name": "array"},
        {"photo": tmp_path / "none.png", "points": [[(3, 4)]]},
    ]
    out = tmp_path / "rows"
    with pytest.warns(UserWarning, match="1 of 3 photos failed"):
        done = predict_rows(model, work, out, model_name="small")
    assert (done.photos, done.masks, done.skipped) == (2, 3, 0)
    rows = read(out)
    first, array, none = (rows[key] for key in (str(tmp_path / "a.png"), "array", str(tmp_path / "none.png")))
    expected = next(iter(predict_batch(model, work[:1], progress=False)))
    assert expected.masks is not None
    assert expected.iou_scores is not None
    for mask, drawn, score in zip(
        first["masks"], expected.masks[:, 0], expected.iou_scores[:, 0], strict=True
    ):
        assert mask["counts"] == encode_rle(drawn, compressed=True)["counts"]
        assert mask["predicted_iou"] == score
        assert mask["point"] is None
    assert array["path"] is None
    assert "none.png" in none["error"]
    assert predict_rows(model, work, out).skipped == 3
    prompts = json.dumps({"a.png": {"points": [[[3, 4]]]}, "b.png": {"points": [[[3, 4]]]}})
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        Image.fromarray(pixels).save(folder / "a.png")
        (folder / "prompts.json").write_text(prompts)
        with pytest.warns(UserWarning, match="1 of 2 photos failed"):
            assert predict_rows(model, folder, tmp_path / "folders").photos == 1
    names = {
        str(folder / name) for folder in (tmp_path / "one", tmp_path / "other") for name in ("a.png", "b.png")
    }
    assert set(read(tmp_path / "folders")) == names
    with pytest.raises(ValueError, match="multimask_output is True here"):
        predict_rows(model, work, out, multimask_output=True)
    with pytest.raises(ValueError, match="two tasks have the name"):
        predict_rows(model, [work[1], work[1]], tmp_path / "twice")
    with pytest.raises(ValueError, match="must have a name"):
        predict_rows(model, [{"photo": pixels, "points": [[(3, 4)]]}], tmp_path / "nameless")


def test_the_command_writes_rows_and_collects_them(
    model: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sam2_jax.image.model.Sam2Model", Discs)
    rows, coco, again = tmp_path / "rows", tmp_path / "coco.json", tmp_path / "again"
    command = ["generate", str(photos[0].parent), "--rows", "--model", model, *OPTIONS, "--output", str(rows)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "in 5 photos" in printed
    assert "photos a second; one reader alone opens and resizes" in printed
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "0 masks in 0 photos; 6 photos had a row before" in printed
    assert "a second" not in printed
    assert main([*command, "--points-per-side", "3"]) == 1
    assert "points_per_side is 3 here and 4 there" in capsys.readouterr().err
    assert main(["collect", str(rows), str(coco)]) == 0
    assert main(["collect", str(coco), str(again)]) == 0
    assert read(again) == read(rows)
    assert RowWriter(again, rows_module.made_with(row_files(rows))[0]).done == set(read(rows))
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        for wrong in (
            "photos x.json",
            "rows rows2",
            "none x.json",
            "coco.json again",
            "rows none/\0.json",
            "coco.json x.parquet",
        ):
            assert main(["collect", *wrong.split()]) == 1
            assert "error: " in capsys.readouterr().err
        assert {path.name for path in Path().iterdir()} <= {"photos", "rows", "coco.json", "again"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_pycocotools_reads_what_is_collected(
    generator: AutomaticMaskGenerator, photos: list[Path], tmp_path: Path
) -> None:
    generate_rows(generator, photos, tmp_path / "rows", progress=False)
    assert rows_to_coco(tmp_path / "rows", tmp_path / "coco.json")[0] == 6
    coco = COCO(tmp_path / "coco.json")
    rows = read(tmp_path / "rows")
    assert len(coco.getImgIds()) == 5
    for image in coco.loadImgs(coco.getImgIds()):
        row = rows[image["file_name"]]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(row["masks"]) > 1
        for annotation, mask in zip(annotations, row["masks"], strict=True):
            drawn = coco.annToMask(annotation)
            assert drawn.sum() == annotation["area"] == mask["area"]
            size = [row["height"], row["width"]]
            np.testing.assert_array_equal(drawn, decode_rle({"size": size, "counts": mask["counts"]}))


def test_cocos_own_files_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_jax.scale.coco_rows._BUCKET", 300)  # so that there are several
    inside = np.zeros((6, 8), bool)
    inside[1:4, 2:5] = True
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 6, "width": 8} for i in range(9)]
    square = [[2, 1, 5, 1, 5, 4, 2, 4]]
    annotations = [
        *(
            {"id": i, "image_id": i, "segmentation": square, "bbox": [2, 1, 3, 3], "area": 9.0}
            for i in range(9)
        ),
        {"id": 20, "image_id": 3, "segmentation": encode_rle(inside), "score": 0.5},
        {"id": 21, "image_id": 3, "segmentation": encode_rle(inside), "iscrowd": 1},
    ]
    coco = {"annotations": annotations, "images": images, "categories": [{"id": 1}, {"id": 2}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco, indent=1))
    with pytest.warns(UserWarning, match="no categories; 1 crowds were left out"):
        assert coco_to_rows(tmp_path / "coco.json", tmp_path / "rows") == (9, 10)
    rows = read(tmp_path / "rows")
    assert [len(rows[f"{i}.jpg"]["masks"]) for i in range(9)] == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    for mask in rows["3.jpg"]["masks"]:
        assert mask["counts"] == encode_rle(inside, compressed=True)["counts"]
        assert (mask["bbox"], mask["area"]) == ([2, 1, 3, 3], 9)
    assert rows["3.jpg"]["masks"][1]["predicted_iou"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{ was expected; got its end"),
        ("[]", "{ was expected"),
        ('{"images": [{"id": 1}', "breaks off"),
        ('{"images": [{"id": 1}, ]}', "a value was expected"),
        ('{"images": [{"id": 1, "file_name": 5}]}', "file_name must be a string"),
        ('{"images": [{"id": 1, "file_name": "a"}]}', "its height must be a whole number"),
        ('{"images": [{"id": 1}, {"id": 1}]}', "two images of the id 1"),
        ('{"images": [{"file_name": "a"}]}', "no id of an image"),
        ('{"images": [], "annotations": [{"image_id": 4}]}', "annotations of an image 4"),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], '
            '"annotations": [{"image_id": 1}]}',
            "a segmentation must be polygons or run lengths",
        ),
        ('{"images": [' + "[" * 100_000, "nested too deep"),
        ('{"images": [{"id": nul', "not"),
    ],
    ids=range(12),
)
def test_broken_json_is_a_sentence_and_leaves_nothing(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        coco_to_rows(tmp_path / "a.json", tmp_path / "rows")
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_without_pictures_and_with_two_of_one_name_are_refused(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg", "height": 2, "width": 2}
    for images, said in (
        ([], "lists no images and no videos"),
        ([image, image | {"id": 2}], "one file_name"),
    ):
        (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": []}))
        with pytest.raises(ValueError, match=said):
            coco_to_rows(tmp_path / "a.json", tmp_path / "rows")
        assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"masks": "text"}, "cannot be read as Parquet"),
        ({"masks": [1]}, "cannot be read as Parquet"),
        ({"height": None}, "a mask of image 1 must have"),
        ({"masks": [{"counts": None}]}, "a mask of image 1 must have"),
    ],
    ids=range(4),
)
def test_rows_that_others_wrote_are_a_sentence(change: Any, said: str, tmp_path: Path) -> None:
    mask = {"counts": "04", "bbox": [0, 0, 2, 2], "area": 4, "predicted_iou": 1, "stability": None}
    row = row_of("a", None, (2, 2), [mask | {"point": None}], 0.0) | {"model": "m", "options": "o"}
    for each, kept in ((row, 1), (row | {"masks": None}, 0)):  # lists and texts of other types are read
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([each]), tmp_path / "a.parquet")
        assert rows_to_coco(tmp_path, tmp_path / "a.json") == (1, kept)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row | change]), tmp_path / "a.parquet")
    (tmp_path / "a.json").unlink()
    with pytest.raises(ValueError, match=said):
        rows_to_coco(tmp_path, tmp_path / "a.json")
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_names_that_are_no_text_have_rows(
    generator: AutomaticMaskGenerator, photos: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "no text \udcff.png"
    photos[0].rename(odd)
    damaged = photos[-1].rename(tmp_path / "damaged \udcff.png")
    done = generate_rows(generator, [odd, damaged], tmp_path / "rows", progress=False)
    assert (done.photos, list(done.failed)) == (1, [damaged])
    names = {f"{tmp_path}/{name}" for name in (r"no text \udcff.png", r"damaged \udcff.png")}
    assert set(read(tmp_path / "rows")) == names
    assert generate_rows(generator, [odd, damaged], tmp_path / "rows", progress=False).skipped == 2


def test_numbers_too_large_for_rows_are_a_sentence(tmp_path: Path) -> None:
    mask = {"id": 1, "image_id": 1, "segmentation": {"size": [2, 2], "counts": "04"}, "stability_score": 1}
    image = {"id": 1, "file_name": "a.jpg", "key": "a.jpg", "height": 2, "width": 2}
    coco = {"images": [image], "annotations": [mask | {"bbox": [0, 0, 2, 2], "area": 10**30}]}
    (tmp_path / "a.json").write_text(json.dumps(coco))
    with pytest.raises(ValueError, match="these are no rows: .*too large"):
        coco_to_rows(tmp_path / "a.json", tmp_path / "rows")


def test_records_of_a_generator_get_the_boxes_of_rows(
    generator: AutomaticMaskGenerator, photos: list[Path], tmp_path: Path
) -> None:
    found = generator.find(photos[0])
    records = [{"id": i, "image_id": 1} | each.record("coco_rle") for i, each in enumerate(found)]
    image = {"id": 1, "file_name": "odd \udcff.jpg", "height": 60, "width": 90}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": records}))
    coco_to_rows(tmp_path / "a.json", tmp_path / "rows")
    generate_rows(generator, photos[:1], tmp_path / "expected", progress=False)
    rows, expected = read(tmp_path / "rows"), read(tmp_path / "expected")
    assert rows[r"odd \udcff.jpg"]["masks"] == expected[str(photos[0])]["masks"]


def test_two_rows_of_one_picture_are_noticed(tmp_path: Path) -> None:
    row = row_of("a", None, (2, 2), [], 0.0) | {"model": "m", "options": "o"}
    write_rows(tmp_path, [row], row_schema())
    write_rows(tmp_path, [row, row | {"id": "b"}], row_schema())
    with pytest.raises(ValueError, match="two rows of one picture, 1 times"):
        rows_to_coco(tmp_path, tmp_path / "a.json")


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Sam2Model, "from_pretrained", None)  # it is known before
    assert main(["generate", str(tmp_path / "a.png"), "--rows", "--output", str(tmp_path / "out")]) == 1
    assert "pip install 'sam2_jax[parquet]'" in capsys.readouterr().err
