"""`Clip`: the frames of a file or a folder, read when they are asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload

import numpy as np

from sam2_jax.checks import read_whole
from sam2_jax.clips.ahead import Ahead
from sam2_jax.processing.inputs import Size


class Source(Protocol):
    """Where frames come from. rate: frames a second, None where nothing says it."""

    path: Path
    size: Size
    rate: float | None

    def __len__(self) -> int:
        """How many frames there are, whichever of them are asked for."""

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """These frames, forwards or backwards, uint8 [H, W, 3]. Called in threads.

        Raises ValueError where a frame cannot be read; those before it have been yielded.
        """

    def name(self, frame: int) -> str:
        """What a frame is called, if need be without the end of a file's name."""

    def digest(self) -> str:
        """What tells it from others: of all the bytes it is read from, hexadecimal."""


class Clip(Sequence[np.ndarray]):
    """Frames of one size, uint8 [H, W, 3], in whatever order they are asked for, best one after the other.

    A thread reads a few frames ahead, in the direction in which they were asked for. Not to be shared between
    threads. To be closed, or used in a `with`; a clip that is no longer used closes itself.
    numbers: which of the source's frames these are.
    """

    def __init__(self, source: Source, numbers: range) -> None:
        self.source = source
        self.numbers = numbers
        self._ahead: Ahead | None = None
        self._next = 0
        self._step = 1
        self._latest: tuple[int, np.ndarray] | None = None

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path

    @property
    def size(self) -> Size:
        """(height, width) of the frames, as people see them."""
        return self.source.size

    @property
    def rate(self) -> float | None:
        """How many of these frames are shown a second, in a video on average; None where nothing says it."""
        return None if self.source.rate is None else self.source.rate / self.numbers.step

    def name(self, t: int) -> str:
        """What frame t is called: the name of its file without the end, or its number in five digits."""
        return self.source.name(self.numbers[t])

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, t: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, t: slice) -> list[np.ndarray]: ...

    def __getitem__(self, t: Any) -> Any:
        """Frame t, read-only. Raises ValueError if it cannot be read, and IndexError if there is none."""
        if isinstance(t, slice):
            return [self[i] for i in range(*t.indices(len(self)))]
        t = read_whole("frame", t)
        t = range(len(self))[t]
        if self._latest is None or self._latest[0] != t:
            self._latest = t, self._read(t)
        return self._latest[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames from the first on, apart from what else is asked for meanwhile."""
        with Clip(self.source, self.numbers) as own:
            for t in range(len(own)):
                yield own[t]

    def _read(self, t: int) -> np.ndarray:
        if self._ahead is None or t != self._next:
            self.close()
            self._step = -1 if self._latest is not None and t == self._latest[0] - 1 else 1
            wanted = self.numbers[t:] if self._step > 0 else self.numbers[t::-1]
            source, count = self.source, len(self.source)
            self._ahead = Ahead(lambda: _checked(source, wanted, count))
        try:
            frame = next(self._ahead)
        except BaseException:
            self.close()
            raise
        self._next = t + self._step
        return frame

    def close(self) -> None:
        """Let the thread that reads ahead end. Frames may still be asked for, which begins another."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _checked(source: Source, wanted: range, count: int) -> Iterator[np.ndarray]:
    """Frames of the source's size; what is wrong with one says which it is, and what can be done."""
    frames = source.read(wanted)
    for number in wanted:
        try:
            frame = next(frames, None)
            if frame is None:
                raise ValueError(f"{source.path} ends before it")
            if frame.shape[:2] != source.size:
                raise ValueError(
                    f"{source.path} has frames of several sizes: this one is {frame.shape[1]} x "
                    f"{frame.shape[0]} pixels, the first {source.size[1]} x {source.size[0]}"
                )
        except Exception as error:  # of every kind: decoders meet broken files with all of them
            remedy = f". The frames before it are good: end={number} takes those alone" if number else ""
            raise ValueError(f"frame {number} of the clip cannot be read: {error}{remedy}") from error
        frame.flags.writeable = False  # it may be handed out again
        yield frame
