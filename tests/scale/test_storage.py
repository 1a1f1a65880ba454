"""Pictures in files, Parquet and tars of any file system of PyArrow, and rows that are written there."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from discs import Discs
from PIL import Image
from pyarrow.fs import FileSystem

from sam2_jax.commands import main
from sam2_jax.image.photos import find_photos
from sam2_jax.scale import storage
from sam2_jax.scale.inputs import content_of, find_pictures, with_bytes
from sam2_jax.scale.ray import WrittenBlocks, _blocks, generate_on_ray
from sam2_jax.scale.rows import RowWriter, read_rows, row_files
from sam2_jax.scale.storage import Stored, check_folder, place_of

GRID = {"image_size": 128, "points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mock://` is a file system in memory: here one for all its URIs, and a new one for each test."""
    memory, opened = FileSystem.from_uri("mock:///")[0], storage._opened
    monkeypatch.setattr(
        storage, "_opened", lambda uri: (memory, uri[8:]) if uri.startswith("mock:///") else opened(uri)
    )


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "png")
    return file.getvalue()


def table_of(columns: dict[str, Any], **options: Any) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table(columns), file := io.BytesIO(), **options)
    return file.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return file.getvalue()


def stored(files: dict[str, bytes], uri: str = "mock:///photos") -> Stored:
    place = place_of(uri)
    assert isinstance(place, Stored)
    for name, content in files.items():
        (place / name).write(content)
    return place


def contents(given: list[str | Path]) -> dict[str, bytes]:
    """Pictures by id, as a worker gets them: what is known of them has been JSON meanwhile."""
    items = json.loads(json.dumps(find_pictures(given)))
    found = {item["id"]: content_of(item) for item in with_bytes(items)}
    return {key: x.read_bytes() if isinstance(x, Path) else x for key, x in found.items()}


SOME = [picture(seed) for seed in range(3)]


def test_a_folder_is_of_its_pictures_and_tables(tmp_path: Path) -> None:
    pictures = {"b.png": SOME[1], "_MG_1.PNG": SOME[0]}  # as cameras name them
    drawn = {"b.png.labels.png": SOME[2], "b.png.overlay.png": SOME[2]}
    files = {**pictures, **drawn, "_SUCCESS": b"", "note.txt": b"-", ".c.png": b"-", "_d.parquet": b"-"}
    stored(files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for given, base in (("mock:///photos", "mock://photos"), (tmp_path, tmp_path)):
        with pytest.warns(UserWarning, match=r"left out: 1 of \.txt"):
            assert contents([given]) == {f"{base}/{name}": content for name, content in pictures.items()}


def test_links_to_one_picture_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(SOME[0])
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    names = ["a.png", "b.png"]
    assert [photo.name for photo in find_photos([tmp_path, tmp_path / "a.png"], of_one_name=True)] == names
    assert list(contents([tmp_path])) == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("where", ["path", "file", "mock"])
def test_parquet_has_bytes_or_paths_and_perhaps_ids(where: str, tmp_path: Path) -> None:
    files = {
        "1.parquet": table_of({"id": [1, 2, 3], "bytes": SOME}, row_group_size=2),
        "2.parquet": table_of({"path": ["x/../c.png", None]}),
        "3.parquet": table_of({"path": ["d.png", str(tmp_path / "d.png")], "bytes": [SOME[0], None]}),
        "4.parquet": table_of({"bytes": SOME[:1]}),
        "c.png": SOME[2],
    }
    (tmp_path / "d.png").write_bytes(SOME[1])
    if where == "mock":
        given, base = "mock:///photos", str(stored(files))
    else:
        folder = tmp_path / "of pictures"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        given, base = str(folder), str(folder)
        if where == "file":
            given = folder.as_uri()
    names = [f"{given}/{name}" for name in files if name != "c.png"]
    found = {item["id"]: item for item in find_pictures(names)}
    ids = ["1", "2", "3", f"{base}/c.png", f"{base}/2.parquet#1", f"{base}/d.png"]
    assert list(found) == [*ids, str(tmp_path / "d.png"), f"{base}/4.parquet#0"]
    with pytest.raises(ValueError, match="neither bytes nor a path"):
        content_of(found[f"{base}/2.parquet#1"])
    assert contents([names[0]]) == dict(zip("123", SOME, strict=True))
    assert list(contents(names[2:]).values()) == [SOME[0], SOME[1], SOME[0]]
    with pytest.raises(ValueError, match=r"two pictures have the id '.*c\.png': .*c\.png and .*c\.png"):
        find_pictures([given])


def test_members_of_a_tar_have_its_keys() -> None:
    members = {"x/1.png": SOME[0], "x/1.json": b"{}", "2.in.png": SOME[1], "2.out.png": SOME[2]}
    none = {"x/._1.png": b"macOS's own", "x/1.png.labels.png": SOME[0]}  # as of a folder
    stored({"of.tar": tar_of(members | none)})
    expected = {"x/1": SOME[0], "2.in.png": SOME[1], "2.out.png": SOME[2]}
    assert contents(["mock:///photos"]) == expected
    assert find_pictures(["mock:///photos"])[0]["path"] == "mock://photos/of.tar/x/1.png"


BAD = {
    "none.parquet": (table_of({"image": SOME}), "must have a column bytes or path; its columns are image"),
    "numbers.parquet": (table_of({"path": [1]}), "the column path must have texts; it has int64"),
    "texts.parquet": (table_of({"bytes": ["x"]}), "the column bytes must have binary values"),
    "broken.parquet": (b"PAR1 no table", "cannot be read as Parquet"),
    "broken.tar": (b"x" * 2000, "cannot be read as a tar that is not compressed"),
    "cut.tar": (tar_of({"1.png": SOME[0]})[:1000], "cannot be read as a tar"),
    "empty.tar": (tar_of({}), "there is no picture in mock://photos/empty.tar"),
    "x.txt": (b"-", r"there is no picture in mock://photos; left out: 1 of \.txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_without_pictures_are_a_sentence(name: str) -> None:
    content, said = BAD[name]
    stored({name: content})
    with pytest.raises(ValueError, match=said):
        find_pictures(["mock:///photos"])


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nope://key:secret@bucket/x?y=1", r"^nope://bucket/x: nope:// is not known; known are file://, s3"),
        ("mock:///none", "there is no picture mock://none"),
        ("file:///none/at/all", "there is no picture /none/at/all"),
        ("file://host/x", "is not a URI of PyArrow"),
    ],
)
def test_a_uri_that_leads_nowhere_is_a_sentence(uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_pictures([uri])


class Refusing:
    """A file system that is all right until it is written or read."""

    type_name = "s3"

    def get_file_info(self, _: Any) -> Any:
        raise PermissionError(13, "AWS Error ACCESS_DENIED")

    def open_input_file(self, _: str) -> Any:
        raise OSError("AWS Error SLOW_DOWN")

    def open_output_stream(self, _: str) -> Any:
        raise OSError("AWS Error NO_SUCH_BUCKET")


def test_what_a_store_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_opened", lambda uri: (Refusing(), "bucket/x"))
    place = place_of("s3://bucket/x")
    assert isinstance(place, Stored)
    for tried in (lambda: find_pictures(["s3://bucket/x"]), lambda: check_folder(place)):
        with pytest.raises(ValueError, match="cannot read s3://bucket/x: AWS Error ACCESS_DENIED. Check"):
            tried()
    with pytest.raises(ValueError, match="cannot write s3://bucket/x: AWS Error NO_SUCH_BUCKET"):
        place.write(b"x")
    # That may be otherwise when it is tried again: it is no row's error.
    with pytest.raises(OSError, match="SLOW_DOWN"):
        content_of({"path": "s3://bucket/x"})


class Broken:
    """A file whose content the store does not take."""

    def write(self, _: bytes) -> None:
        raise OSError("no space")


@pytest.mark.parametrize("is_object_store", [True, False])
def test_a_file_is_written_whole_or_not_at_all(
    is_object_store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_OBJECT_STORES", ("mock",) if is_object_store else ())
    place = place_of("mock:///rows")
    assert isinstance(place, Stored)
    place.filesystem.create_dir("rows")
    for content in (b"old", b"new"):
        (place / "x").write(content)
        assert [info.base_name for info in place.children()] == ["x"]
    assert (place / "x").open().read() == b"new"

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(filesystem, name)

        def open_output_stream(self, path: str) -> Any:
            if not is_object_store:  # what is half-written there is seen
                filesystem.open_output_stream(path).close()
            return Broken()

    filesystem = place.filesystem
    monkeypatch.setattr(storage, "_opened", lambda uri: (Full(), "rows"))
    with pytest.raises(ValueError, match="cannot write mock://rows/x: no space"):
        (place / "x").write(b"newer")
    assert [info.base_name for info in place.children()] == ["x"]
    assert (place / "x").open().read() == b"new"


def test_rows_of_a_store_are_those_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_jax.scale.ray.Sam2Model", Discs)
    stored({"1.tar": tar_of({f"{i}.png": x for i, x in enumerate([*SOME, b"no picture"])})})
    items = find_pictures(["mock:///photos"])
    (block,), _ = _blocks(items, set())
    found = []
    for output in ("mock:///rows", str(tmp_path / "rows")):
        write = WrittenBlocks(output, model="embedded", **GRID)
        for _ in range(2):
            assert write(block)["photos"] == 4
        place = place_of(output)
        files: list[Any] = row_files(place)
        assert len(files) == 1
        found.append([row | {"seconds": None} for row in read_rows(files)])
        assert RowWriter(place, write.masks.made).done == {"0", "1", "2", "3"}
        other = write.masks.made | {"settings": write.masks.made["settings"] | {"points_per_side": 3}}
        with pytest.raises(ValueError, match="points_per_side is 3 here and 4 there"):
            RowWriter(place, other)
    assert found[0] == found[1]
    assert [row["path"] for row in found[0]] == [f"mock://photos/1.tar/{i}.png" for i in range(4)]
    assert "is not a picture in a format that Pillow reads" in found[0][-1]["error"]
    stored({"part-0.parquet": b"no rows"}, "mock:///rows")
    with pytest.raises(ValueError, match=r"mock://rows/part-0.parquet cannot be read as Parquet"):
        RowWriter(place_of("mock:///rows"), write.masks.made)


def test_what_is_done_is_known_before_ray_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_jax.scale.ray.Sam2Model", Discs)
    monkeypatch.setattr("sam2_jax.scale.ray.import_ray", lambda: None)
    stored({"1.parquet": table_of({"bytes": SOME})})
    (block,), _ = _blocks(find_pictures(["mock:///photos"]), set())
    WrittenBlocks("mock:///rows", model="embedded", **GRID)(block)
    done, _ = generate_on_ray(["mock:///photos"], "mock:///rows", model="embedded", **GRID)
    assert (done.skipped, done.photos) == (3, 0)


@pytest.mark.parametrize(
    "words", [["s3://key:secret@bucket/x?y=1", "--output", "out"], ["x.png", "--output", "s3://bucket/x"]]
)
def test_without_the_engine_it_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *words, "--model", "embedded", "--rows"]) == 1
    assert "s3://bucket/x: a URI is read and written by --engine ray alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "2"], "--workers: it is for --engine ray"),
        (["--address", "a:1"], "--address: it is for --engine ray"),
        (["--engine", "ray", "--batch-size", "2"], "--batch-size: leave it out with --engine ray"),
        (["--engine", "ray", "--devices", "1"], "--devices: leave it out with --engine ray"),
    ],
    ids=range(4),
)
def test_options_of_the_other_engine_are_refused(
    words: list[str], said: str, tmp_path: Path, capsys: Any
) -> None:
    given = ["generate", str(tmp_path), "--output", str(tmp_path / "out"), "--model", "embedded", *words]
    assert main(given) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
