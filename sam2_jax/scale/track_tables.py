"""Tables of tracks to YouTube-VIS's JSON and back, a clip in memory at a time."""

import math
import tempfile
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.atomic import aside
from sam2_jax.checks import read_whole, shown
from sam2_jax.clips.tables import import_pyarrow, track_schema
from sam2_jax.json_files import json_text
from sam2_jax.processing.rle import convert_rle, rle_area, rle_bounding_box
from sam2_jax.scale.json_lists import json_items
from sam2_jax.scale.rows import batches_of, row_files

_ROWS = 1024
_OF_FRAMES = ("segmentations", "bboxes", "areas")


def is_of_tracks(place: Path) -> bool:
    """Whether a file, or the first of a folder, is a table of tracks: see `track_schema`."""
    pyarrow = import_pyarrow()
    try:
        return any("object_id" in pyarrow.parquet.read_schema(file).names for file in row_files(place)[:1])
    except (pyarrow.ArrowException, OSError):
        return False


def tables_to_youtube_vis(place: Path, target: Path) -> tuple[int, int]:
    """Write a YouTube-VIS file of tables of tracks; returns how many clips and masks it has.

    A clip is what has one id, or a table without ids; its frames are those that have rows. Annotations are
    as `clips.tables.youtube_vis` has them, with ids that go on from clip to clip. Clips with an error, if
    there are any, are in a list `failed` of their own. Raises ValueError if the tables cannot be read, if a
    clip's rows are not together, or if the file cannot be written.
    """
    videos: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    masks = number = 0
    with (
        aside(target) as path,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=target.parent) as annotations,
    ):
        for name, rows in _clips(place):
            failed += [{"name": name, "error": row["error"]} for row in rows if row["frame"] is None]
            if not (rows := [row for row in rows if row["frame"] is not None]):
                continue
            if any(video["name"] == name for video in videos):
                raise ValueError(f"{place}: the rows of clip {shown(name)} are not together")
            video, found = _read_clip(name, rows, len(videos) + 1)
            videos.append(video)
            for annotation in found:
                number += 1
                masks += sum(area is not None for area in annotation["areas"])
                annotations.write((",\n" if number > 1 else "") + json_text({"id": number} | annotation))
        with path.open("w", encoding="utf-8") as file:
            file.write(
                f'{{"info": {{"description": "objects tracked by sam2_jax"}},\n"videos": {json_text(videos)}'
            )
            file.write(',\n"annotations": [\n')
            annotations.seek(0)
            while text := annotations.read(2**20):
                file.write(text)
            told = f',\n"failed": {json_text(failed)}' if failed else ""
            file.write(f'],\n"categories": [{{"id": 1, "name": "object"}}]{told}}}\n')
    return len(videos), masks


def _clips(place: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for file in row_files(place):
        yield from ((name, list(rows)) for name, rows in groupby(_rows(file), key=lambda row: row["id"]))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            if missing := [name for name in track_schema().names if name not in opened.schema_arrow.names]:
                raise ValueError(f"{file} is no table of tracks: it lacks the column {missing[0]}")
            schema = track_schema()
            for name in ("id", "error"):
                if name in opened.schema_arrow.names:
                    schema = schema.append(pyarrow.field(name, pyarrow.string()))
            for batch in batches_of(opened, schema, _ROWS):
                for row in batch.to_pylist():
                    if row["frame"] is not None:
                        yield {"id": str(file)} | _checked(row, file)
                    elif row.get("error") is not None:
                        yield {"id": str(file)} | row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {shown(str(error))}") from error


def _schema() -> Any:
    """`track_schema` of several clips."""
    pyarrow = import_pyarrow()
    return pyarrow.schema([("id", pyarrow.string()), *track_schema()])


def _checked(row: dict[str, Any], file: Path) -> dict[str, Any]:
    """A row of a frame. Raises ValueError if it lacks what it must have."""
    needed = ("object_id", "is_present", "size", *(("counts",) if row["is_present"] else ()))
    if missing := [name for name in needed if row[name] is None]:
        raise ValueError(f"{file}: a row of frame {row['frame']} has no {missing[0]}")
    return row


def _read_clip(
    name: str, rows: list[dict[str, Any]], number: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A clip as a video of YouTube-VIS, and its annotations but for their ids."""
    frames = {row["frame"]: row["name"] for row in rows}
    places = {frame: i for i, frame in enumerate(sorted(frames))}
    height, width = rows[0]["size"]
    video = {"id": number, "name": name, "width": width, "height": height, "length": len(frames)}
    video["file_names"] = [frames[frame] for frame in places]
    found: dict[int, dict[str, Any]] = {}
    scores: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["object_id"]):
        if row["size"] != [height, width]:
            raise ValueError(
                f"clip {shown(name)} has frames of [{height}, {width}] and of {row['size']} pixels"
            )
        blank = {kind: [None] * len(frames) for kind in _OF_FRAMES}
        about = {"video_id": number, "category_id": 1, "iscrowd": 0, "object_id": row["object_id"]}
        annotation = found.setdefault(row["object_id"], about | {"width": width, "height": height} | blank)
        if row["is_present"]:
            at = places[row["frame"]]
            if annotation["areas"][at] is not None:
                again = f"object {row['object_id']} twice on frame {row['frame']}"
                raise ValueError(f"clip {shown(name)} has {again}: is there a copy of a file?")
            annotation["segmentations"][at] = {"size": row["size"], "counts": row["counts"]}
            annotation["bboxes"][at], annotation["areas"][at] = row["bbox"], row["area"]
            scores.setdefault(row["object_id"], []).append(_score(row))
    for object_id, annotation in found.items():
        annotation["score"] = float(np.mean(scores.get(object_id, [0.0])))
        if math.isnan(annotation["score"]):  # as of what people have drawn
            del annotation["score"]
    return video, list(found.values())


def _score(row: dict[str, Any]) -> float:
    """As `Track.score`; without a presence the predicted IoU, NaN without that."""
    presence = row["presence"]
    if row["iou"] is None:
        return math.nan
    return row["iou"] if presence is None else row["iou"] / (1 + math.exp(-max(min(presence, 80.0), -80.0)))


def youtube_vis_to_table(source: Path, folder: Path) -> tuple[int, int]:
    """Write a folder with a table of tracks, clip by id, of a YouTube-VIS file; returns its clips and masks.

    A mask's iou is its object's score; presence and is_prompted are null. A clip's rows are object by object.
    Tables have no categories and no clips without objects: a warning says what was left out. Raises
    ValueError if the file cannot be read, lists annotations before videos, has two videos of one name or
    anything that is damaged, or if the folder is there already and has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new folder for the table")
    pyarrow, schema = import_pyarrow(), _schema()
    videos: dict[Any, dict[str, Any]] = {}
    clips: set[str] = set()
    masks = categories = 0
    with (
        aside(folder, is_folder=True) as new,
        pyarrow.parquet.ParquetWriter(new / "tracks.parquet", schema) as writer,
    ):
        for kind, item in json_items(source):
            categories += kind == "categories"
            if kind not in ("videos", "annotations"):
                continue
            try:
                if kind == "videos":
                    _take(item, videos)
                    continue
                rows = list(_rows_of_object(item, videos))
                table = pyarrow.Table.from_pylist(rows, schema)
            except (ValueError, TypeError, AttributeError, OverflowError, pyarrow.ArrowException) as error:
                which = item.get("id") if isinstance(item, dict) else item
                raise ValueError(f"{source}, {kind[:-1]} {shown(which)}: {error}") from error
            writer.write_table(table)
            masks += sum(row["is_present"] for row in rows)
            clips |= {row["id"] for row in rows}
        if len({_name(video) for video in videos.values()}) < len(videos):
            raise ValueError(f"{source} has two videos of one name, which is a clip's id in a table")
    if categories > 1 or len(clips) < len(videos):
        without = len(videos) - len(clips)
        warnings.warn(
            f"{source}: tables have no categories; {without} clips without objects were left out",
            stacklevel=2,
        )
    return len(clips), masks


def _take(video: dict[str, Any], videos: dict[Any, dict[str, Any]]) -> None:
    """Note a video by its id."""
    if not isinstance(video, dict) or "id" not in video:
        raise ValueError("it must be an object with an id")
    if videos.setdefault(video["id"], video) is not video:
        raise ValueError("another one has its id")


def _name(video: dict[str, Any]) -> str:
    return str(video.get("name", video["id"]))


def _rows_of_object(
    annotation: dict[str, Any], videos: dict[Any, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    if (video := videos.get(annotation.get("video_id"))) is None:
        raise ValueError(f"no video before it has its video_id, {shown(annotation.get('video_id'))}")
    size = [read_whole(f"its video's {side}", video.get(side), 1) for side in ("height", "width")]
    names, masks = video.get("file_names"), annotation.get("segmentations")
    if not isinstance(names, list) or not isinstance(masks, list) or len(names) != len(masks):
        raise ValueError("its segmentations must be a list with one for each of its video's file_names")
    for frame, (name, given) in enumerate(zip(names, masks, strict=True)):
        nothing = {"size": size, "counts": [math.prod(size)]}
        rle = convert_rle(nothing if given is None else given, compressed=True)
        if rle["size"] != size:
            raise ValueError(f"a mask's size must be the video's, {size}; got {rle['size']}")
        area = rle_area(rle)
        yield {
            "id": _name(video),
            "frame": frame,
            "name": name,
            "object_id": annotation.get("object_id", annotation.get("id")),
            "is_present": area > 0,
            "iou": annotation.get("score"),
            "area": area,
            "bbox": rle_bounding_box(rle),
            "size": size,
            "counts": rle["counts"],
        }


def is_youtube_vis(source: Path) -> bool:
    """Whether a JSON file lists videos before any image."""
    kind = next((name for name, _ in json_items(source) if name in ("videos", "images")), None)
    return kind == "videos"
