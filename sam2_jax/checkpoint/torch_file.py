"""Opens PyTorch `.pt` files without PyTorch and without running anything that is in them.

A `.pt` file is a zip archive of `<folder>/data.pkl`, a pickle of the saved object, and of one
`<folder>/data/<key>` for each storage, the bytes that tensors are views of.

Source: torch.serialization's zip format, which torch.save writes since version 1.6.
"""

import zipfile
from pathlib import Path
from typing import Any, Self

import numpy as np

from sam2_jax.checkpoint.torch_pickle import RefusedError, StoredTensor, rebuild
from sam2_jax.checks import cut

_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# Real ones stay below 1 MB; a byte of pickle can cost a hundred of memory.
_LARGEST_PICKLE = 2**24

# Of whatever was saved: a model, its state dict, or a dictionary that has one of them in it.
_SAVE_WEIGHTS = """  x = torch.load("old.pt", map_location="cpu", weights_only=False)
  x = x.get("model", x.get("state_dict", x)) if isinstance(x, dict) else x
  torch.save(x.state_dict() if hasattr(x, "state_dict") else x, "new.pt")"""


class TorchFile:
    """A `.pt` file open for reading; use it in a `with` statement.

    `contents` is the saved object: numbers, strings and containers, with a `StoredTensor` for each tensor,
    whose numbers `read` fetches. Raises ValueError, naming the file, if it is not such a file, is damaged, or
    asks for anything but tensors; in no case is anything of it executed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._storages: dict[str, bytes] = {}
        self._archive = _open(self.path)
        try:
            self._folder = _check_entries(self._archive, self.path)
            self._check_byte_order()
            self.contents = self._unpickle()
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor's numbers, a read-only view of its storage.

        Raises ValueError if the storage is missing, damaged or not as long as declared.
        """
        storage = tensor.storage
        if storage.key not in self._storages:
            self._storages[storage.key] = self._entry(f"data/{storage.key}")
        data = self._storages[storage.key]
        expected = storage.count * storage.dtype.itemsize
        if len(data) != expected:
            raise ValueError(
                f"{self.path}: storage {storage.key!r} must be of {expected} bytes; got {len(data)}. The "
                "file is damaged: download or save it again"
            )
        size = tensor.dtype.itemsize
        strides = [stride * size for stride in tensor.strides]
        return np.ndarray(tensor.shape, tensor.dtype, data, tensor.offset * size, strides)

    def _entry(self, name: str) -> bytes:
        try:
            return self._archive.read(f"{self._folder}/{name}")
        except KeyError:
            raise ValueError(
                f"{self.path} lacks its entry {name}: it is incomplete, download it again"
            ) from None
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.path}: entry {name} cannot be read ({cut(str(error))}); the file is damaged, "
                "download it again"
            ) from error

    def _check_byte_order(self) -> None:
        is_stated = f"{self._folder}/byteorder" in self._archive.namelist()
        if is_stated and (order := self._entry("byteorder")) != b"little":
            raise ValueError(
                f"{self.path}: byteorder must be little; got {order[:16]!r}. Load it with torch on an "
                "ordinary (little-endian) machine and save it again"
            )

    def _unpickle(self) -> Any:
        pickle = self._entry("data.pkl")
        try:
            return rebuild(pickle)
        except RefusedError as error:
            raise ValueError(
                f"{self.path}: {error}. Nothing of the file was executed. Only if you trust its maker, for "
                f"this executes it, save its weights alone, with PyTorch:\n{_SAVE_WEIGHTS}"
            ) from error
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
            raise ValueError(
                f"{self.path}: its pickle is malformed ({cut(str(error), 200)}). Nothing of the file was "
                "executed. Download or save it again"
            ) from error


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            start = file.read(512)
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} {_what_is_wrong(start)}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or cut(str(error))}") from error


def _what_is_wrong(start: bytes) -> str:
    """What a file that is no readable zip archive is, and what to do about it, by its first bytes."""
    if start.startswith(b"PK"):
        return (
            "is a truncated or damaged PyTorch file: its zip directory is broken. Download or copy it again"
        )
    if start.startswith(_LEGACY_MAGIC) or start[257:262] == b"ustar":
        return (
            "is in PyTorch's legacy format of before version 1.6, which is not read here. Save its weights "
            f"with a newer one, if you trust its maker, for this may execute it:\n{_SAVE_WEIGHTS}"
        )
    return f"is not a PyTorch .pt file: expected a zip archive, got a file that begins with {start[:16]!r}"


def _check_entries(archive: zipfile.ZipFile, path: Path) -> str:
    """Check the archive's directory against what torch.save writes; return the folder its entries are in."""
    entries = archive.infolist()
    folders = [e.filename.removesuffix("/data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError(
            f"{path} is a zip archive but not a PyTorch file: expected one data.pkl in it, got {len(folders)}"
        )
    # PyTorch stores its entries as they are: what unpacks to more than the file holds is no checkpoint.
    packed = any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries)
    if packed or sum(e.file_size for e in entries) > path.stat().st_size:
        raise ValueError(
            f"{path} holds compressed or overlapping zip entries, which torch.save never writes; unpack it "
            "and zip it again uncompressed (zip -0), or save it again"
        )
    size = archive.getinfo(f"{folders[0]}/data.pkl").file_size
    if size > _LARGEST_PICKLE:
        raise ValueError(
            f"{path}: data.pkl must be at most {_LARGEST_PICKLE} bytes; got {size}. Save the weights alone, "
            f"with PyTorch, if you trust its maker, for this executes it:\n{_SAVE_WEIGHTS}"
        )
    return folders[0]
