"""Tables of tracks: YouTube-VIS's JSON and back."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from sam2_jax.clips.tables import track_schema
from sam2_jax.commands import main
from sam2_jax.processing.rle import encode_rle, rle_area, rle_bounding_box


def rows_of(clip: str, objects: int, frames: int) -> list[dict[str, Any]]:
    """Rows of squares that move; the last object is hidden on the first frame."""
    rows = []
    for t in range(frames):
        for number in range(1, objects + 1):
            mask = np.zeros((9, 12), bool)
            if t or number < objects:
                mask[t : t + 3, number : number + 4] = True
            rle = encode_rle(mask, compressed=True)
            row = {"id": clip, "frame": 2 * t, "name": f"{t}.png", "object_id": number, "iou": 0.5}
            row |= {"is_present": bool(mask.any()), "is_prompted": t == 0, "presence": 0.0}
            rows.append(row | {"area": rle_area(rle), "bbox": rle_bounding_box(rle), **rle})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    text = pyarrow.string()
    schema = pyarrow.schema([("id", text), *track_schema()])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)


def test_tables_become_youtube_vis_and_come_back(tmp_path: Path, capsys: Any) -> None:
    table, first, again, second = (tmp_path / name for name in ("a.parquet", "1.json", "again", "2.json"))
    rows = rows_of("cats", 2, 3) + rows_of("dogs", 1, 2)
    write(table, rows)
    assert main(["collect", str(table), str(first)]) == 0
    assert f"{first}: 6 masks of 2 clips" in capsys.readouterr().out
    found = json.loads(first.read_text())
    assert [(v["name"], v["length"], v["width"], v["height"]) for v in found["videos"]] == [
        ("cats", 3, 12, 9),
        ("dogs", 2, 12, 9),
    ]
    assert [a["id"] for a in found["annotations"]] == [1, 2, 3]
    hidden = found["annotations"][1]
    assert hidden["segmentations"][0] is hidden["bboxes"][0] is hidden["areas"][0] is None
    assert hidden["segmentations"][1] == {"size": [9, 12], "counts": rows[3]["counts"]}
    assert hidden["score"] == pytest.approx(0.25)  # 0.5, as likely there as not
    assert main(["collect", str(first), str(again)]) == 0
    assert main(["collect", str(again), str(second)]) == 0
    assert json.loads(second.read_text()) == found


def test_a_tables_own_file_is_a_clip(tmp_path: Path) -> None:
    rows = [{name: x for name, x in row.items() if name != "id"} for row in rows_of("", 1, 2)]
    table = pyarrow.Table.from_pylist(rows, track_schema())
    pyarrow.parquet.write_table(table, tmp_path / "tracks.parquet")
    assert main(["collect", str(tmp_path / "tracks.parquet"), str(tmp_path / "a.json")]) == 0
    video = json.loads((tmp_path / "a.json").read_text())["videos"][0]
    assert video["name"] == str(tmp_path / "tracks.parquet")


VIDEO = {"id": 1, "height": 2, "width": 2, "file_names": ["a"]}
ANNOTATION = {"id": 7, "video_id": 1, "segmentations": [{"size": [2, 2], "counts": [1, 3]}]}


@pytest.mark.parametrize(
    ("videos", "annotations", "said"),
    [
        ([{"id": 2}], [{"id": 7, "video_id": 1}], "annotation 7: no video before it"),
        ([5], [], "video 5: .*with an id"),
        ([{}], [], "video None: .*with an id"),
        ([{"id": [1]}], [], r"video \[1\]"),
        ([VIDEO, VIDEO], [], "video 1: another one"),
        ([VIDEO, VIDEO | {"id": "1"}], [], "two videos of one name"),
        ([VIDEO], [5], "annotation 5"),
        ([VIDEO], [ANNOTATION | {"id": 10**30}], "annotation 10+: .*too large"),
        ([VIDEO], [ANNOTATION | {"segmentations": None}], "annotation 7: .*one for each"),
        ([VIDEO | {"file_names": []}], [ANNOTATION], "annotation 7: .*one for each"),
        ([VIDEO | {"height": 3}], [ANNOTATION], "annotation 7: .*size must be the video's"),
        ([VIDEO], [ANNOTATION | {"segmentations": [{"size": [2, 2], "counts": [9]}]}], "must sum to"),
    ],
    ids=range(12),
)
def test_damaged_youtube_vis_is_a_sentence(
    videos: Any, annotations: Any, said: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"videos": videos, "annotations": annotations}))
    assert main(["collect", str(tmp_path / "a.json"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


def test_rows_of_a_clip_that_are_apart_are_noticed(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "a.parquet", rows_of("cats", 1, 1) + rows_of("dogs", 1, 1) + rows_of("cats", 1, 1))
    assert main(["collect", str(tmp_path / "a.parquet"), str(tmp_path / "a.json")]) == 1
    assert "the rows of clip 'cats' are not together" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


def test_clips_that_could_not_be_tracked_are_listed(tmp_path: Path, capsys: Any) -> None:
    schema = pyarrow.schema([("id", pyarrow.string()), *track_schema(), ("error", pyarrow.string())])
    rows = [*rows_of("cats", 1, 2), {"id": "dogs", "error": "there is no clip dogs"}, *rows_of("emus", 1, 1)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), tmp_path / "a.parquet")
    assert main(["collect", str(tmp_path / "a.parquet"), str(tmp_path / "a.json")]) == 0
    assert "1 mask of 2 clips" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert [video["name"] for video in found["videos"]] == ["cats", "emus"]
    assert found["failed"] == [{"name": "dogs", "error": "there is no clip dogs"}]


def test_what_people_have_drawn_has_no_score_and_clips_without_objects_are_told_of(
    tmp_path: Path, capsys: Any
) -> None:
    first, table, second = (str(tmp_path / name) for name in ("1.json", "rows", "2.json"))
    large = {"id": 2, "name": "large", "height": 10**6, "width": 10**6, "file_names": ["b", "c"]}
    nothing = {"size": [10**6, 10**6], "counts": [10**12]}  # as null
    hidden = {"id": 8, "video_id": 2, "segmentations": [None, nothing], "score": 0.5}
    given = {"videos": [VIDEO, large, VIDEO | {"id": 3}], "annotations": [ANNOTATION, hidden]}
    Path(first).write_text(json.dumps(given))
    assert main(["collect", first, table]) == 0
    told = capsys.readouterr()
    assert "1 clips without objects were left out" in told.err
    assert "1 mask of 2 clips" in told.out
    assert main(["collect", table, second]) == 0
    drawn, other = json.loads(Path(second).read_text())["annotations"]
    assert drawn["areas"] == [3]
    assert "score" not in drawn
    assert (other["areas"], other["score"]) == ([None, None], 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": None}, "a row of frame 2 has no size"),
        ({"object_id": None}, "a row of frame 2 has no object_id"),
        ({"counts": None}, "a row of frame 2 has no counts"),
        ({"size": [3, 3]}, r"frames of \[9, 12\] and of \[3, 3\]"),
        ({"frame": 0}, "object 1 twice on frame 0"),
    ],
    ids=range(5),
)
def test_tables_that_are_damaged_are_a_sentence(change: Any, said: str, tmp_path: Path, capsys: Any) -> None:
    first, _, second, _ = rows_of("cats", 2, 2)
    write(tmp_path / "a.parquet", [first, second | change])
    assert main(["collect", str(tmp_path / "a.parquet"), str(tmp_path / "a.json")]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "a.json").exists()
