"""Tracks as tables: JSON in the layout of YouTube-VIS, and Parquet."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from sam2_jax.atomic import aside
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.tracks import Add, Track, TrackedFrame
from sam2_jax.json_files import json_text
from sam2_jax.processing.rle import rle_bounding_box

_OF_FRAMES = ("segmentations", "bboxes", "areas")
_ROWS = 1024


@contextmanager
def youtube_vis(target: Path, clip: Clip) -> Iterator[Add]:
    """A JSON file in the layout of YouTube-VIS: for each object a list of what it is on every frame.

    An annotation has segmentations (COCO's compressed run lengths), bboxes (x, y, width, height) and areas,
    null on frames where the object is not there; its id is the object's, and its score the mean of
    `Track.score` where it is there. Frames are those of the file, in its order.
    """
    height, width = clip.size
    names: list[str] = []
    # The layout has objects one after the other: each collects its frames in a file, not in memory.
    collected: dict[int, IO[str]] = {}
    scores: dict[int, list[float]] = {}
    with ExitStack() as stack:
        path = stack.enter_context(aside(target))

        def add(found: TrackedFrame, picture: np.ndarray) -> None:
            present = {track.object_id: track for track in found.tracks}
            for object_id in present.keys() - collected.keys():
                collected[object_id] = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
                collected[object_id].writelines(f"{json.dumps([None] * 3)}\n" for _ in names)
                scores[object_id] = [0.0, 0]
            names.append(clip.name(found.t))
            for object_id, file in collected.items():
                track = present.get(object_id)
                file.write(json.dumps(_of_frame(track)) + "\n")
                if track is not None and track.area:
                    scores[object_id][0] += track.score
                    scores[object_id][1] += 1

        yield add
        with path.open("w", encoding="utf-8") as file:
            video = {"id": 1, "width": width, "height": height, "length": len(names), "file_names": names}
            info = {"description": "objects tracked by sam2_jax", "source": clip.path.name, "rate": clip.rate}
            file.write(f'{{"info": {json_text(info)},\n"videos": [{json_text(video)}],\n"annotations": [\n')
            for i, object_id in enumerate(sorted(collected)):
                total, frames = scores[object_id]
                about: dict[str, Any] = {"id": object_id, "video_id": 1, "category_id": 1, "iscrowd": 0}
                about |= {"width": width, "height": height, "score": total / max(frames, 1)}
                file.write((",\n" if i else "") + json_text(about)[:-1])
                for kind, name in enumerate(_OF_FRAMES):
                    file.write(f', "{name}": [')
                    collected[object_id].seek(0)
                    for row, line in enumerate(collected[object_id]):
                        file.write((", " if row else "") + json.dumps(json.loads(line)[kind]))
                    file.write("]")
                file.write("}")
            file.write('\n],\n"categories": [{"id": 1, "name": "object"}]}\n')


def _of_frame(track: Track | None) -> list[Any]:
    """Segmentation, box and area, each None where there is nothing."""
    if track is None or not track.area:
        return [None] * 3
    return [track.rle, list(rle_bounding_box(track.rle)), track.area]


def import_pyarrow() -> ModuleType:
    """PyArrow. Raises ValueError, naming the extra that brings it, if it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet needs the package pyarrow: pip install 'sam2_jax[parquet]'") from error
    return pyarrow


def track_schema() -> Any:
    """The columns of a table of tracks, as pyarrow has them.

    frame: its number in the source; name; seconds: when it is shown, on average, null if nothing says it;
    object_id; is_present; is_prompted; iou, presence: see `Track`; area; bbox: x, y, width, height; size:
    height, width; counts: COCO's compressed run lengths. Raises ValueError if pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    whole = pyarrow.int32()
    return pyarrow.schema(
        [
            ("frame", whole),
            ("name", pyarrow.string()),
            ("seconds", pyarrow.float64()),
            ("object_id", whole),
            ("is_present", pyarrow.bool_()),
            ("is_prompted", pyarrow.bool_()),
            ("iou", pyarrow.float32()),
            ("presence", pyarrow.float32()),
            ("area", pyarrow.int64()),
            ("bbox", pyarrow.list_(whole, 4)),
            ("size", pyarrow.list_(whole, 2)),
            ("counts", pyarrow.string()),
        ]
    )


def track_row(clip: Clip, found: TrackedFrame, track: Track) -> dict[str, Any]:
    """The row of an object on a frame: see `track_schema`."""
    rate, number = clip.source.rate, clip.numbers[found.t]
    return {
        "frame": number,
        "name": clip.name(found.t),
        "seconds": None if rate is None else number / rate,
        "object_id": track.object_id,
        "is_present": track.area > 0,
        "is_prompted": track.is_prompted,
        "iou": track.iou,
        "presence": track.presence,
        "area": track.area,
        "bbox": rle_bounding_box(track.rle),
        "size": track.rle["size"],
        "counts": track.rle["counts"],
    }


@contextmanager
def parquet_rows(target: Path, clip: Clip) -> Iterator[Add]:
    """A Parquet file with a row for each frame and object: see `track_schema`."""
    pyarrow = import_pyarrow()
    schema = track_schema()
    rows: list[dict[str, Any]] = []
    with aside(target) as path, pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def add(found: TrackedFrame, picture: np.ndarray) -> None:
            rows.extend(track_row(clip, found, track) for track in found.tracks)
            if len(rows) >= _ROWS:
                flush()

        yield add
        flush()
