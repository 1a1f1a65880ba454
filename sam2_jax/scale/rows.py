"""Masks of pictures as rows of Parquet files: a row for each picture, written once, whole or not at all.

A folder of rows is of one model and one choice of options. Its files are written aside and moved into place,
and are named by the rows in them, so that any number of processes may add files, and what is there tells what
is done.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

from sam2_jax.atomic import write_together
from sam2_jax.checks import shown
from sam2_jax.clips.tables import import_pyarrow
from sam2_jax.image.automatic import GeneratedMask
from sam2_jax.image.made_of import hash_of
from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.rle import encode_rle, rle_area, rle_bounding_box
from sam2_jax.scale.storage import Place, Stored, check_folder

Row = dict[str, Any]
PlaceT = TypeVar("PlaceT", Path, Stored, Place)

ROWS_IN_A_FILE = 256
MASKS_IN_A_FILE = 2**14
"""A file ends with whichever of the two it reaches first: what a process loses if it is killed."""

_METADATA = b"sam2_jax"
_BATCH = 64  # rows read together: of pictures with a thousand masks each some ten megabytes


def row_schema(made: Mapping[str, Any] | None = None) -> Any:
    """The columns of a file of rows, as pyarrow has them; made is kept beside them: see `made_of`.

    id: stable, the picture's absolute path or its key. path: where it was read, null if from memory. height,
    width: null with an error. masks: counts, COCO's compressed run lengths; bbox, x, y, width, height;
    area in pixels; predicted_iou; stability and point (x, y), the click a mask came from, null if it was
    prompted. Prompted masks are in the objects' order, as many for each. error: what was wrong with the
    picture, null if nothing. model: its name; options: `hash_of` weights and settings. seconds: what the
    picture took.
    """
    pyarrow = import_pyarrow()
    real, text = pyarrow.float32(), pyarrow.string()
    mask = pyarrow.struct(
        [
            ("counts", text),
            ("bbox", pyarrow.list_(real, 4)),
            ("area", pyarrow.int64()),
            ("predicted_iou", real),
            ("stability", real),
            ("point", pyarrow.list_(real, 2)),
        ]
    )
    columns = [
        *(("id", text), ("path", text), ("height", pyarrow.int32()), ("width", pyarrow.int32())),
        *(("masks", pyarrow.list_(mask)), ("error", text), ("model", text), ("options", text)),
        ("seconds", pyarrow.float64()),
    ]
    kept = None if made is None else {_METADATA: json.dumps(made)}
    return pyarrow.schema(columns, kept)


def row_of(
    key: str,
    path: str | None,
    size: tuple[int, int] | None,
    masks: Iterable[Mapping[str, Any]],
    seconds: float,
    error: str | None = None,
) -> Row:
    """A row but for what all of a folder share: see `row_schema`, and `shared_columns`."""
    height, width = size or (None, None)
    texts = {"id": key, "path": path, "error": error}
    about = {name: text if text is None else as_text(text) for name, text in texts.items()}
    return about | {"height": height, "width": width, "masks": list(masks), "seconds": seconds}


def as_text(name: str) -> str:
    """A name as a column can hold it: a file's may have bytes that are no text, which are escaped."""
    return name.encode(errors="backslashreplace").decode()


def shared_columns(made: Mapping[str, Any]) -> dict[str, str]:
    """What is the same in all rows of a folder."""
    return {"model": made["model"], "options": hash_of(made)}


def generated_mask(found: GeneratedMask) -> dict[str, Any]:
    """One of a row's masks, found by itself."""
    return {
        "counts": found.rle["counts"],
        "bbox": rle_bounding_box(found.rle),
        "area": rle_area(found.rle),
        "predicted_iou": found.predicted_iou,
        "stability": found.stability_score,
        "point": found.point,
    }


def prompted_mask(mask: Any, predicted_iou: float) -> dict[str, Any]:
    """One of a row's masks, bool [H, W], of an object that was prompted."""
    about = {"counts": encode_rle(mask, compressed=True)["counts"], "bbox": bounding_box(mask)}
    about |= {"area": int(mask.sum()), "predicted_iou": float(predicted_iou)}
    return about | {"stability": None, "point": None}


class RowWriter:
    """Adds rows to a folder; within `with`, where in the end those that wait are written too.

    done: ids of the rows that are there or wait. made: what rows are made by, see `made_of`. Raises
    ValueError if pyarrow is missing, if the folder cannot be written, holds files that are no rows, or holds
    rows that were made by other weights or settings.
    """

    def __init__(self, folder: Place, made: Mapping[str, Any], rows_in_a_file: int = ROWS_IN_A_FILE) -> None:
        """Read what is done."""
        self._most = rows_in_a_file
        self.folder, self.made = folder, dict(made)
        self._pyarrow: ModuleType = import_pyarrow()
        self._schema = row_schema(self.made)
        self._shared = shared_columns(self.made)
        self._waiting: list[Row] = []
        self._masks = 0
        check_folder(folder)
        self.done = self._read_done()

    def _read_done(self) -> set[str]:
        done: set[str] = set()
        for path in row_files(self.folder) if self.folder.exists() else ():
            for batch in _batches(path, ["id", "options"]):
                others = set(batch.column("options").to_pylist()) - {self._shared["options"]}
                if others:
                    raise ValueError(
                        f"{self.folder} has rows of {_difference(path, self.made)}: choose another folder, "
                        "or the same as they were made with"
                    )
                done.update(batch.column("id").to_pylist())
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, row: Row) -> None:
        """Take one row, to be written when there are enough. Raises ValueError if they cannot be written."""
        self._waiting.append(row | self._shared)
        self._masks += len(row["masks"])
        self.done.add(row["id"])
        if len(self._waiting) >= self._most or self._masks >= MASKS_IN_A_FILE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, as one file."""
        rows, self._waiting, self._masks = self._waiting, [], 0
        if rows:
            write_rows(self.folder, rows, self._schema)


def write_rows(folder: Place, rows: list[Row], schema: Any) -> Place:
    """Write a file of rows, named by their ids. Raises ValueError if it cannot be written."""
    pyarrow = import_pyarrow()
    named = json.dumps([row["id"] for row in rows]).encode()
    path = folder / f"part-{hashlib.sha256(named).hexdigest()[:16]}.parquet"
    try:
        table = pyarrow.Table.from_pylist(rows, schema)
    except (pyarrow.ArrowException, OverflowError, UnicodeError) as error:  # not what the columns hold
        raise ValueError(f"these are no rows: {error}") from error
    if isinstance(path, Stored):
        content = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, content, compression="zstd")
        path.write(content.getvalue())
    else:
        write_together({path: lambda aside: pyarrow.parquet.write_table(table, aside, compression="zstd")})
    return path


def row_files(place: PlaceT) -> list[PlaceT]:
    """The Parquet files of a folder, by name, or the one named. Raises ValueError if nothing is there."""
    if not place.exists():
        raise ValueError(f"there are no rows {place}")
    files: list[PlaceT] = [*place.glob("*.parquet")] if place.is_dir() else [place]
    return sorted((x for x in files if not x.name.startswith((".", "_"))), key=lambda file: file.name)


def read_rows(files: Iterable[Place], columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of files, all columns or some, a few in memory at a time. ValueError for other files."""
    for file in files:
        for batch in _batches(file, columns):
            yield from batch.to_pylist()


def made_with(files: Iterable[Place]) -> list[dict[str, Any]]:
    """What the rows of files are made by, each once, as far as the files say it: see `made_of`."""
    found: dict[str, Any] = {}
    for file in files:
        if kept := _metadata(file):
            found.setdefault(json.dumps(kept, sort_keys=True), kept)
    return list(found.values())


def _metadata(file: Place) -> dict[str, Any]:
    with _opened(file) as parquet:
        kept = (parquet.schema_arrow.metadata or {}).get(_METADATA)
    return json.loads(kept) if kept else {}


@contextmanager
def _opened(file: Place) -> Iterator[Any]:
    with ExitStack() as stack:
        source = stack.enter_context(file.open()) if isinstance(file, Stored) else file
        yield stack.enter_context(import_pyarrow().parquet.ParquetFile(source))


def _batches(file: Place, columns: list[str] | None) -> Iterator[Any]:
    pyarrow, schema = import_pyarrow(), row_schema()
    wanted = pyarrow.schema([schema.field(name) for name in columns or schema.names])
    try:
        with _opened(file) as opened:
            names = set(opened.schema_arrow.names)
            if missing := [name for name in schema.names if name not in names]:
                raise ValueError(f"{file} has no rows of masks: it lacks the column {missing[0]}")
            yield from batches_of(opened, wanted, _BATCH)
    except (pyarrow.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise ValueError(
            f"{file} cannot be read as Parquet: {reason}. Remove it if it is not needed"
        ) from error


def batches_of(parquet: Any, schema: Any, rows: int) -> Iterator[Any]:
    """A file's columns of a schema, so many rows at a time. Other programs' types of texts and lists become
    the schema's; what does not fit raises PyArrow's ArrowInvalid.
    """
    for batch in parquet.iter_batches(rows, columns=schema.names):
        yield batch.select(schema.names).cast(schema)


def _difference(file: Place, made: Mapping[str, Any]) -> str:
    """In what a file's rows were made otherwise, as words."""
    theirs = _metadata(file)
    if theirs.get("weights", made["weights"]) != made["weights"]:
        return f"other weights (model {shown(theirs.get('model'))})"
    settings = theirs.get("settings", {})
    for name in sorted(settings.keys() | made["settings"].keys()) if settings else ():
        there, here = (
            f"{shown(x[name])}" if name in x else "not given" for x in (settings, made["settings"])
        )
        if there != here:
            return f"other options ({name} is {here} here and {there} there)"
    return "another model or other options"
