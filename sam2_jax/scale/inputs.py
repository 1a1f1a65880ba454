"""Pictures wherever they are: files, rows of Parquet, members of WebDataset tars; here or in object storage.

They are found by one process, which reads no picture, and opened by another.
"""

import posixpath
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from sam2_jax.checks import shown
from sam2_jax.clips.tables import import_pyarrow
from sam2_jax.image.photos import find_photos, photo_names
from sam2_jax.processing.images import PICTURES
from sam2_jax.scale.rows import as_text
from sam2_jax.scale.storage import Stored, is_uri, local, place_of

Item = dict[str, Any]
"""A picture: its id and path, and if these do not say where it is: root and at, of `Stored`, with offset and
size in a tar or the row in a table."""

_TABLES = _PARQUET, _TAR = ".parquet", ".tar"
_THREADS = 16  # files that are looked through together
_ROWS = 16  # rows of pictures in memory


def find_pictures(given: Sequence[str | Path]) -> list[Item]:
    """The pictures of files and folders, of this machine or by URI, in an order that is always the same.

    A folder's are its picture files, and those in its Parquet and tar files. Parquet has columns bytes or
    path (relative to the file) and perhaps id, else the path or file and row is it; a tar's ids are its keys,
    or the names of members where a key has several pictures. Raises ValueError for what is not there, cannot
    be read or has no pictures, and for an id that two have.
    """
    photos: list[Path] = []
    files: set[Stored] = set()
    for name in given:
        place = place_of(name)
        if isinstance(place, Path) and not _has_tables(place):
            photos.append(place)
        else:
            files |= set(_files(local(place) if isinstance(place, Path) else place))
    files |= {local(photo) for photo in (find_photos(photos, of_one_name=True) if photos else ())}
    tables = [file for file in files if _suffix(file.name) in _TABLES]
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = dict(zip(tables, pool.map(_pictures_of, tables), strict=True))
    found: dict[str, Item] = {}
    for file in sorted(files):
        for item in rows[file] if file in rows else [_picture(file)]:
            if found.setdefault(item["id"], item) is not item:
                both = " and ".join(x["path"] or x["at"] for x in (found[item["id"]], item))
                raise ValueError(f"two pictures have the id {shown(item['id'])}: {both}")
    if not found:
        raise ValueError(f"there is no picture in {', '.join(map(str, sorted(files)))}")
    return list(found.values())


def with_bytes(items: Iterable[Item]) -> Iterator[Item]:
    """Items, those that are rows of tables with what the tables have. Raises OSError."""
    for (root, at, is_row), group in groupby(
        items, lambda item: (item.get("root"), item.get("at"), "row" in item)
    ):
        if is_row:
            yield from _rows(Stored(root, at), list(group))
        else:
            yield from group


def content_of(item: Mapping[str, Any]) -> bytes | Path:
    """A picture file's bytes, or where on this machine it is.

    Raises ValueError if there is none. What may be otherwise when it is tried again raises OSError.
    """
    if item.get("bytes") is not None:
        return bytes(item["bytes"])
    if item.get("at") is None and not isinstance(item.get("path"), str):
        raise ValueError(f"{item.get('id')} has neither bytes nor a path")
    try:
        place = Stored(item["root"], item["at"]) if item.get("at") is not None else place_of(item["path"])
        if isinstance(place, Path):
            return place
        with place.open() as file:
            return bytes(file.read_at(item["size"], item["offset"]) if "size" in item else file.read())
    except FileNotFoundError as error:
        raise ValueError(f"there is no picture {place}") from error
    except ValueError as error:
        if isinstance(error.__cause__, OSError):  # the store, not the picture, is at fault
            raise error.__cause__ from None
        raise


def _has_tables(place: Path) -> bool:
    names = place.iterdir() if place.is_dir() else [place]
    return any(name.suffix.lower() in _TABLES for name in names)


def _files(place: Stored) -> list[Stored]:
    """The files of a folder that have pictures, or the one named. Warns of what is left out."""
    if not place.exists():
        raise ValueError(f"there is no picture {place}")
    if not place.is_dir():
        return [place]
    known = (*PICTURES, *_TABLES)
    names = {info.base_name: info.is_file for info in place.children()}
    names = {name: is_file for name, is_file in names.items() if not _is_aside(name)}
    files = [name for name, is_file in names.items() if is_file]
    photos = photo_names(name for name in files if _suffix(name) in PICTURES)
    used = [name for name in files if name in photos or _suffix(name) in _TABLES]
    others = Counter(_suffix(name) if is_file else "folders" for name, is_file in names.items())
    left = ", ".join(f"{n} of {kind or 'no type'}" for kind, n in others.items() if kind not in known)
    if not used:
        raise ValueError(f"there is no picture in {place}" + (f"; left out: {left}" if left else ""))
    if left:
        warnings.warn(f"{place}: left out: {left}", stacklevel=3)
    return [place / name for name in used]


def _is_aside(name: str) -> bool:
    """Whether a name says that it is not meant; "_" says it of all but pictures: cameras use it."""
    return name.startswith(".") or (name.startswith("_") and _suffix(name) not in PICTURES)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _picture(file: Stored) -> Item:
    return {"id": as_text(str(file)), "path": str(file)} | (
        {"root": file.root, "at": file.path} if file.root else {}
    )


def _pictures_of(file: Stored) -> list[Item]:
    """The pictures in a file, in its order. Raises ValueError if it cannot be read."""
    is_parquet = _suffix(file.name) == _PARQUET
    try:
        return _of_table(file) if is_parquet else _of_tar(file)
    except (OSError, tarfile.TarError, import_pyarrow().ArrowException) as error:
        what = "Parquet" if is_parquet else "a tar that is not compressed"
        raise ValueError(f"{file} cannot be read as {what}: {shown(str(error))}") from error


def _of_tar(file: Stored) -> list[Item]:
    with file.open() as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
        members = [member for member in tar if member.isfile() and _suffix(member.name) in PICTURES]
    members = [member for member in members if not _is_aside(posixpath.basename(member.name))]
    photos = photo_names(member.name for member in members)
    members = [member for member in members if member.name in photos]
    keys = [_key(member.name) for member in members]
    several = {key for key, n in Counter(keys).items() if n > 1}
    return [
        {
            "id": as_text(member.name if key in several else key),
            "path": f"{file}/{member.name}",
            "root": file.root,
            "at": file.path,
            "offset": member.offset_data,
            "size": member.size,
        }
        for key, member in zip(keys, members, strict=True)
    ]


def _key(name: str) -> str:
    """What WebDataset calls the key: a member's name to the first dot of its last part."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last.partition(".")[0])


def _of_table(file: Stored) -> list[Item]:
    pyarrow = import_pyarrow()
    types = pyarrow.types
    with file.open() as opened, pyarrow.parquet.ParquetFile(opened) as parquet:
        columns = {field.name: field.type for field in parquet.schema_arrow}
        has_bytes, has_path = "bytes" in columns, "path" in columns
        if not (has_bytes or has_path):
            there = ", ".join(columns)
            raise ValueError(f"{file} must have a column bytes or path; its columns are {there}")
        if has_path and not (types.is_string(columns["path"]) or types.is_large_string(columns["path"])):
            raise ValueError(f"{file}: the column path must have texts; it has {columns['path']}")
        if has_bytes and not (types.is_binary(columns["bytes"]) or types.is_large_binary(columns["bytes"])):
            raise ValueError(f"{file}: the column bytes must have binary values; it has {columns['bytes']}")
        count = parquet.metadata.num_rows
        read = parquet.read([name for name in ("id", "path") if name in columns]).to_pydict()
    ids, paths = (read.get(name, [None] * count) for name in ("id", "path"))
    items = []
    for row, (key, path) in enumerate(zip(ids, paths, strict=True)):
        where = _where(file, path)
        key = str(where.get("path") or f"{file}#{row}") if key in (None, "") else str(key)
        if has_bytes:
            where = {"path": where.get("path"), "root": file.root, "at": file.path, "row": row}
        items.append({"id": key, "path": None, **where})
    return items


def _where(table: Stored, path: str | None) -> Item:
    """Where a table says that a picture is."""
    if not path:
        return {}
    if is_uri(path) or path.startswith("/"):
        return {"path": path}
    place = _picture(Stored(table.root, posixpath.normpath((table.parent / path).path)))
    return {name: value for name, value in place.items() if name != "id"}


def _rows(table: Stored, items: list[Item]) -> Iterator[Item]:
    """Rows of a table, with its bytes or, where it has none, without the place."""
    wanted = {item["row"]: item for item in items}
    with table.open() as opened, import_pyarrow().parquet.ParquetFile(opened) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            after = first + parquet.metadata.row_group(group).num_rows
            last = max((row for row in wanted if first <= row < after), default=-1)
            batches = parquet.iter_batches(_ROWS, row_groups=[group], columns=["bytes"]) if last >= 0 else ()
            row = first
            for batch in batches:
                for i in range(batch.num_rows):
                    if item := wanted.get(row + i):
                        content = batch.column("bytes")[i].as_py()
                        yield {"id": item["id"], "path": item["path"], "bytes": content}
                row += batch.num_rows
                if row > last:
                    break
            first = after
