"""Files of object stores and other file systems that PyArrow knows, beside those of this machine."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from sam2_jax.atomic import check_writable
from sam2_jax.checks import cut
from sam2_jax.clips.tables import import_pyarrow

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_OBJECT_STORES = ("s3", "gcs", "abfs")  # an object is there when all of it is; a move would copy it
_SECONDS_TO_ANSWER = 60  # Google's client would try for a quarter of an hour


@dataclass(frozen=True, order=True)
class Stored:
    """A file or folder of a file system that PyArrow opens; as a text its URI, without keys and options.

    root: the URI that the file system is opened by, "" for this machine's. path: within that file system.
    """

    root: str
    path: str

    def __str__(self) -> str:
        return f"{_URI.split(self.root)[1]}://{self.path}" if self.root else self.path

    def __truediv__(self, name: str) -> "Stored":
        return Stored(self.root, f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "Stored":
        """The folder it is in."""
        return Stored(self.root, self.path.rpartition("/")[0])

    @property
    def filesystem(self) -> Any:
        """PyArrow's; opened once in a process."""
        return _opened(self.root)[0]

    def exists(self) -> bool:
        """Whether anything is there. Raises ValueError if that cannot be known."""
        return self._info().type.name != "NotFound"

    def is_dir(self) -> bool:
        """Whether it is a folder, or the beginning of the names of objects."""
        return self._info().type.name == "Directory"

    def _info(self) -> Any:
        with _told(f"read {self}"):
            return self.filesystem.get_file_info(self.path)

    def children(self) -> list[Any]:
        """What PyArrow says of all that is in this folder."""
        from pyarrow.fs import FileSelector

        with _told(f"read {self}"):
            return list(self.filesystem.get_file_info(FileSelector(self.path)))

    def glob(self, pattern: str) -> list["Stored"]:
        """Files of this folder. Empty ones, which Azure has while they are written, are left out."""
        names = (info.base_name for info in self.children() if info.is_file and info.size)
        return [self / name for name in names if fnmatch(name, pattern)]

    def open(self) -> Any:
        """The file, to be read anywhere in it. Raises OSError."""
        return self.filesystem.open_input_file(self.path)

    def write(self, content: Any) -> None:
        """Write a file, whole or not at all. Raises ValueError if that is not possible."""
        with _told(f"write {self}"):
            if self.filesystem.type_name in _OBJECT_STORES:
                self._put(content)
                return
            self.parent._make()
            aside = self.parent / f".{self.name[:40]}.{uuid4().hex}.tmp"
            try:
                aside._put(content)
                self.filesystem.move(aside.path, self.path)
            except BaseException:
                with suppress(OSError):
                    self.filesystem.delete_file(aside.path)
                raise

    def _make(self) -> None:
        """Make this folder, where folders are more than names."""
        if self.filesystem.type_name not in _OBJECT_STORES:
            self.filesystem.create_dir(self.path, recursive=True)

    def _put(self, content: Any) -> None:
        stream = self.filesystem.open_output_stream(self.path)
        stream.write(content)
        stream.close()  # not after a failure: closing is what makes an object


Place = Path | Stored


def is_uri(given: object) -> bool:
    """Whether this is a URI and not a path of this machine."""
    return isinstance(given, str) and _URI.match(given) is not None


def without_keys(uri: str) -> str:
    """A URI as messages have it, without keys and options; a path as it is."""
    return re.sub(r"(?<=//)[^/]*@|\?.*", "", uri) if is_uri(uri) else uri


def place_of(given: str | Path) -> Place:
    """What a path or URI means: a `Path` on this machine. ValueError if it cannot be opened."""
    if isinstance(given, Path) or not is_uri(given):
        return Path(given)
    filesystem, path = _opened(given)
    return Path(path) if filesystem.type_name == "local" else Stored(given, path.rstrip("/"))


def local(path: str | Path) -> Stored:
    """A file of this machine, as files elsewhere are."""
    return Stored("", os.path.abspath(path))


def check_folder(place: Place) -> None:
    """Raise ValueError if files of this folder cannot be written: one is tried, and taken away again."""
    if isinstance(place, Path):
        check_writable(place, is_folder=True)
        return
    if place._info().is_file:
        raise ValueError(f"cannot write {place}: it is a file, not a folder. Choose a folder")
    with _told(f"write {place}"):
        place._make()
        tried = place / f".{uuid4().hex}.tmp"
        tried._put(b"-")
        place.filesystem.delete_file(tried.path)


@lru_cache(maxsize=64)
def _opened(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    import_pyarrow()
    from pyarrow.fs import FileSystem, LocalFileSystem

    if not uri:
        return LocalFileSystem(), ""
    scheme, about = _URI.split(uri)[1], without_keys(uri)
    if scheme in ("gs", "gcs") and "retry_limit_seconds=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_SECONDS_TO_ANSWER}"
    with _told(f"open {about}"):
        try:
            opened: tuple[Any, str] = FileSystem.from_uri(uri)
        except ValueError as error:
            known = "file://, s3://, gs://, abfs:// and hdfs://"
            if "Unrecognized filesystem" in str(error):
                raise ValueError(f"{cut(about)}: {scheme}:// is not known; known are {known}") from error
            raise ValueError(f"{cut(about)} is not a URI of PyArrow: {cut(_reason(error), 300)}") from error
    return opened


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What a file system refuses as a ValueError: what could not be done, and why."""
    try:
        yield
    except (OSError, NotImplementedError, import_pyarrow().ArrowException) as error:
        raise ValueError(
            f"cannot {what}: {cut(_reason(error), 300)}. Check its name, that the store can be reached, and "
            "that your keys may do this"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")
