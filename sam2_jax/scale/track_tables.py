"""Tables of tracks to YouTube-VIS's JSON and back, a clip in memory at a time."""

import math
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.atomic import aside
from sam2_jax.checks import shown
from sam2_jax.clips.tables import import_pyarrow, track_schema
from sam2_jax.json_files import json_text
from sam2_jax.processing.rle import convert_rle, encode_rle, rle_area, rle_bounding_box
from sam2_jax.scale.json_lists import json_items
from sam2_jax.scale.rows import row_files

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
    as `clips.tables.youtube_vis` has them, with ids that go on from clip to clip. Raises ValueError if the
    tables cannot be read, if a clip's rows are not together, or if the file cannot be written.
    """
    videos: list[dict[str, Any]] = []
    masks = number = 0
    with (
        aside(target) as path,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=target.parent) as annotations,
    ):
        for name, rows in _clips(place):
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
            file.write('],\n"categories": [{"id": 1, "name": "object"}]}\n')
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
            for batch in opened.iter_batches(_ROWS):
                yield from ({"id": str(file)} | row for row in batch.to_pylist() if row["frame"] is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {shown(str(error))}") from error


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
        blank = {kind: [None] * len(frames) for kind in _OF_FRAMES}
        about = {"video_id": number, "category_id": 1, "iscrowd": 0, "object_id": row["object_id"]}
        annotation = found.setdefault(row["object_id"], about | {"width": width, "height": height} | blank)
        if row["is_present"]:
            at = places[row["frame"]]
            annotation["segmentations"][at] = {"size": row["size"], "counts": row["counts"]}
            annotation["bboxes"][at], annotation["areas"][at] = row["bbox"], row["area"]
            scores.setdefault(row["object_id"], []).append(_score(row))
    for object_id, annotation in found.items():
        annotation["score"] = float(np.mean(scores.get(object_id, [0.0])))
    return video, list(found.values())


def _score(row: dict[str, Any]) -> float:
    """As `Track.score`; without a presence the predicted IoU."""
    presence = row["presence"]
    return row["iou"] if presence is None else row["iou"] / (1 + math.exp(-max(min(presence, 80.0), -80.0)))


def youtube_vis_to_table(source: Path, folder: Path) -> tuple[int, int]:
    """Write a folder with a table of tracks, clip by id, of a YouTube-VIS file; returns its clips and masks.

    A mask's iou is its object's score; presence and is_prompted are null. A clip's rows are object by object.
    Raises ValueError if the file cannot be read, lists annotations before videos or has one that is damaged,
    or if the folder is there already and has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new folder for the table")
    pyarrow = import_pyarrow()
    schema = pyarrow.schema([("id", pyarrow.string()), *track_schema()])
    videos: dict[Any, dict[str, Any]] = {}
    masks = 0
    with (
        aside(folder, is_folder=True) as new,
        pyarrow.parquet.ParquetWriter(new / "tracks.parquet", schema) as writer,
    ):
        for kind, item in json_items(source):
            if kind == "videos":
                videos[item["id"]] = item
            elif kind == "annotations":
                try:
                    if item.get("video_id") not in videos:
                        raise ValueError(
                            f"no video before it has its video_id, {shown(item.get('video_id'))}"
                        )
                    rows = list(_rows_of_object(videos[item["video_id"]], item))
                    table = pyarrow.Table.from_pylist(rows, schema)
                except (ValueError, TypeError, LookupError, pyarrow.ArrowException) as error:
                    raise ValueError(f"{source}, annotation {shown(item.get('id'))}: {error}") from error
                writer.write_table(table)
                masks += sum(row["is_present"] for row in rows)
    return len(videos), masks


def _rows_of_object(video: dict[str, Any], annotation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    size = [video["height"], video["width"]]
    nothing = encode_rle(np.zeros(size, bool), compressed=True)
    for frame, given in enumerate(annotation["segmentations"]):
        rle = nothing if given is None else convert_rle(given, compressed=True)
        yield {
            "id": str(video.get("name", video["id"])),
            "frame": frame,
            "name": video["file_names"][frame],
            "object_id": annotation.get("object_id", annotation["id"]),
            "is_present": given is not None,
            "iou": annotation.get("score"),
            "area": rle_area(rle),
            "bbox": rle_bounding_box(rle),
            "size": size,
            "counts": rle["counts"],
        }


def is_youtube_vis(source: Path) -> bool:
    """Whether a JSON file lists videos before any image."""
    kind = next((name for name, _ in json_items(source) if name in ("videos", "images")), None)
    return kind == "videos"
