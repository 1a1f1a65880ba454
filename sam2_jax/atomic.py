"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files: all of them aside first, then all moved into place.

    Each writer gets the temporary path to fill; folders are made. Raises ValueError, naming the file, if one
    cannot be written; nothing half-written is left behind and older files stay as they were.
    """
    aside: dict[Path, Path] = {}
    target = Path()
    try:
        for target, write in writers.items():
            if target.is_dir():
                raise IsADirectoryError("it is a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
            os.close(handle)
            aside[target] = Path(name)
            write(aside[target])
            with aside[target].open("rb+") as file:
                os.fsync(file.fileno())
            aside[target].chmod(0o666 & ~_umask())  # mkstemp makes it private
        for target, path in aside.items():
            path.replace(target)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error}. Choose a folder you may write to") from error
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write one text file as `write_together` does, in UTF-8."""
    write_together({path: lambda aside: aside.write_text(text, encoding="utf-8")})


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
