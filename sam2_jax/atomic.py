"""Files and folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files: all of them aside first, then all moved into place, in the order given.

    Each writer gets the temporary path to fill; folders are made. Raises ValueError, naming the file, if one
    cannot be written; nothing half-written is left behind and older files stay as they were.
    """
    aside: dict[Path, Path] = {}
    target = Path()
    try:
        for target, write in writers.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():  # raises for names that no file can have
                raise IsADirectoryError("it is a folder")
            aside[target] = _temporary(target, target.parent)
            write(aside[target])
            with aside[target].open("rb+") as file:
                os.fsync(file.fileno())
            aside[target].chmod(0o666 & ~_umask())  # mkstemp makes it private
        for target in aside:
            aside[target].replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write one text file as `write_together` does, in UTF-8."""
    write_together({path: lambda aside: aside.write_text(text, encoding="utf-8")})


@contextmanager
def aside(target: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A temporary file or folder to be filled, which takes the target's place in the end.

    If that fails, or what is done meanwhile does, it is removed and what was there before stays. Raises
    ValueError, naming the target, where the system refuses.
    """
    path = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target) and target.is_dir() != is_folder:
            raise OSError("it is a file, not a folder" if is_folder else "it is a folder")
        path = _temporary(target, target.parent)
        if is_folder:
            path.unlink()
            path.mkdir()
        yield path
        if is_folder:
            if target.is_dir():
                old = _temporary(target, target.parent)
                old.unlink()
                target.rename(old)
                path.rename(target)
                shutil.rmtree(old)
            else:
                path.rename(target)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            path.chmod(0o666 & ~_umask())
            path.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        if path is not None and is_folder:
            shutil.rmtree(path, ignore_errors=True)
        elif path is not None:
            path.unlink(missing_ok=True)


def remove_left_behind(folder: Path, name: str) -> None:
    """Remove what was aside for a target when a process was killed. Nobody may be writing it now.

    name: the target's own, or a pattern of several short ones, as of `Path.glob`.
    """
    for path in folder.glob(f"{_prefix(name)}*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_writable(target: Path, *, is_folder: bool = False) -> None:
    """Raise ValueError, as writing would, if this file, or files in this folder, cannot be written.

    To be asked before work whose result goes there. Tried and not guessed from permissions, which root and
    read-only file systems do not keep to; what is tried is taken away again.
    """
    target = Path(target)
    try:
        with suppress(FileNotFoundError):  # all else that is wrong with a path is said by the system
            os.stat(target)
            if target.is_dir() != is_folder:
                raise OSError("it is a file, not a folder" if is_folder else "it is a folder")
        folder = target if is_folder else target.parent
        while not os.path.lexists(folder):
            folder = folder.parent
        _temporary(target, folder).unlink()
    except (OSError, ValueError) as error:  # ValueError: characters that no path can have
        raise _cannot_write(target, error) from error


def _temporary(target: Path, folder: Path) -> Path:
    """An empty file in a folder, called so that it can be recognised if it is ever left behind."""
    handle, name = tempfile.mkstemp(prefix=_prefix(target.name), suffix=".tmp", dir=folder)
    os.close(handle)
    return Path(name)


def _prefix(name: str) -> str:
    # The name of the target may be as long as names can be.
    return f".{name[:40]}."


def _cannot_write(target: Path, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or error
    return ValueError(f"cannot write {_cut(target)}: {reason}. Choose a folder you may write to")


def _cut(path: Path) -> str:
    """A path as a message has it: one that is too long to be one is not repeated whole."""
    text = str(path).replace("\0", "\\0")
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
