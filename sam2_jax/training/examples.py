"""Examples to train on, pictures with the masks of their objects, and datasets of them, read one by one.

What is damaged is left out, and said.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from sam2_jax.checks import read_number, read_whole
from sam2_jax.processing.images import open_image, to_rgb


class Example(NamedTuple):
    """A picture and its objects. name: what errors and reports call it.

    image: uint8 [H, W, 3], upright by its EXIF orientation. masks: bool [N, H, W], N >= 1, none empty.
    """

    name: str
    image: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class Entry:
    """One picture of a dataset, the file that has its masks, and how these [N, H, W] are made."""

    name: str
    photo: Path
    annotated_in: Path
    masks: Callable[[], np.ndarray]

    @property
    def source(self) -> Path:
        """The file of the picture, which may be in a dataset under several names."""
        return self.photo.resolve()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in the order of their source, read from disk one by one: `dataset[i]`, `len(dataset)`.

    problems: a sentence for each thing that is damaged or missing, and left out; those that only show when a
    picture is read are added then. left_out: how many things that are in order were left out, by what they
    are: crowds, masks below min_area, pictures without masks. The parts of a `split` share both. read_as: the
    options that masks were read with.
    """

    entries: tuple[Entry, ...] = field(repr=False)
    problems: list[str] = field(default_factory=list, repr=False)
    left_out: Counter[str] = field(default_factory=Counter)
    read_as: str = ""
    _unreadable: set[Entry] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Example:
        """Read one example. Raises ValueError if its files are damaged, IndexError if there is none."""
        entry = self.entries[index]
        try:
            image, masks = to_rgb(open_image(entry.photo)), entry.masks()
            # Since it was opened the file changed, or its EXIF orientation comes after its pixels.
            if image.shape[:2] != masks.shape[1:]:
                raise ValueError(f"it is {dimensions(image.shape)}, its masks {dimensions(masks.shape[1:])}")
        except ValueError as error:
            raise ValueError(f"{entry.name} cannot be used: {error}") from error
        return Example(entry.name, image, masks)

    def fingerprint(self) -> str:
        """What tells this data from other data, wherever it lies: SHA-256 in hexadecimal.

        Of the pictures' names and sizes in bytes, of the whole files that have their masks, and of how these
        are read. Raises ValueError if one of these files cannot be read.
        """
        found = hashlib.sha256(self.read_as.encode())
        try:
            for entry in self.entries:
                found.update(f"{entry.name}\0{entry.photo.stat().st_size}\n".encode(errors="surrogateescape"))
            for path in sorted({entry.annotated_in for entry in self.entries}):
                with path.open("rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return found.hexdigest()

    def readable(self, order: Iterable[int] | None = None) -> Iterator[Example]:
        """The examples in an order, by default their own, without those that are damaged.

        Each of these is warned of and noted in problems, once.
        """
        for index in range(len(self)) if order is None else order:
            try:
                example = self[index]
            except ValueError as error:
                if self.entries[index] not in self._unreadable:
                    self._unreadable.add(self.entries[index])
                    self.problems.append(str(error))
                    warnings.warn(str(error), stacklevel=2)
            else:
                yield example


class _Source(Protocol):
    """An entry of a dataset. source: what it is of; entries of one source stay together."""

    @property
    def source(self) -> Hashable: ...


class _Entries(Protocol):
    @property
    def entries(self) -> tuple[_Source, ...]: ...


AnyDataset = TypeVar("AnyDataset", bound=_Entries)


def split(dataset: AnyDataset, held_out: float, seed: int = 0) -> tuple[AnyDataset, AnyDataset]:
    """Part a dataset, of pictures or videos, at random in two: to train on and held out, each in its order.

    held_out: the share held out, between 0 and 1; both parts have at least one. A file that is in the dataset
    more than once is one picture here, and on one side. The same seed parts the same dataset alike. Raises
    ValueError for a share beyond that and for fewer than two pictures or videos.
    """
    held_out = read_number("held_out", held_out, above=0, below=1)
    seed = read_whole("seed", seed, 0)
    sources = list(dict.fromkeys(entry.source for entry in dataset.entries))
    total = len(sources)
    if total < 2:
        raise ValueError(
            f"to hold some out there must be two pictures or videos or more; there is {total}: add some, "
            "or hold none out, --held-out 0 of the command"
        )
    count = min(max(round(held_out * total), 1), total - 1)
    chosen = {sources[i] for i in np.random.default_rng(seed).permutation(total)[:count]}

    def part(is_held_out: bool) -> AnyDataset:
        entries = (entry for entry in dataset.entries if (entry.source in chosen) == is_held_out)
        found: AnyDataset = replace(cast(Any, dataset), entries=tuple(entries))
        return found

    return part(False), part(True)


def at_first(problems: list[str]) -> str:
    """How a message goes on that speaks of problems: how many there are, and the first."""
    return f" ({len(problems)} problems; the first: {problems[0]})" if problems else ""


def dimensions(shape: tuple[int, ...]) -> str:
    """A shape (height, width, ...) as people say it."""
    return f"{shape[1]} x {shape[0]} pixels"
