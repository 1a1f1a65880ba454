"""`KeptTracks`: what was tracked of clips; what a correction leaves as it was is not tracked again."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sam2_jax.clips.clip import Clip
from sam2_jax.clips.record import Row
from sam2_jax.clips.tracking import Passes, Prompt, tracked
from sam2_jax.demo.caches import Bounded
from sam2_jax.video.tracker import VideoTracker

_EVERY = 16
"""Frames between saved sessions."""
_SESSIONS_BYTES = 2**28
"""Of one clip: above it every second session goes, and they are saved half as often."""
_BYTES = 2**30
_MASK_BYTES = 2**9
"""Of an object on a frame, beside its run lengths."""

Step = tuple[int, int, list[Any]]
"""A frame of a pass, and what is said of objects on it."""


@dataclass(eq=False)
class _Tracked:
    """Rows, the steps of their passes, and sessions by the number of rows that they come after."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sessions: dict[int, Path] = field(default_factory=dict)
    every: int = field(default_factory=lambda: _EVERY)

    @property
    def session_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.sessions.values())

    @property
    def bytes(self) -> int:
        """About how many, in files and in memory."""
        masks = (_MASK_BYTES + len(track.rle["counts"]) for row in self.rows for track in row.found.tracks)
        return self.session_bytes + sum(masks)

    def unchanged(self, steps: list[Step]) -> int:
        """How many rows, from the first on, come about as before."""
        for count, (row, old, new) in enumerate(zip(self.rows, self.steps, steps, strict=False)):
            if old != new or (row.which_pass, row.found.t) != new[:2]:
                return count
        return min(len(self.rows), len(steps))

    def cut(self, count: int) -> int:
        """Forget all after the latest session within so many rows; returns after how many that one is."""
        kept = max((number for number in self.sessions if number <= count), default=0)
        self._keep([number for number in self.sessions if number <= kept])
        del self.rows[kept:]
        return kept

    def add(self, row: Row, tracker: VideoTracker) -> None:
        self.rows.append(row)
        # To save takes back what is tracked ahead.
        if len(self.rows) - max(self.sessions, default=0) < self.every or tracker.waiting:
            return
        path = self.folder / f"{len(self.rows)}.npz"
        try:
            tracker.save(path)
        except ValueError:  # the disk is full: a correction will take longer
            self.every *= 2
            return
        self.sessions[len(self.rows)] = path
        while self.session_bytes > _SESSIONS_BYTES:
            self.every *= 2
            self._keep(sorted(self.sessions)[1::2])

    def _keep(self, numbers: list[int]) -> None:
        for number in self.sessions.keys() - set(numbers):
            self.sessions.pop(number).unlink(missing_ok=True)


class KeptTracks:
    """The latest tracks of each clip, so many bytes at most, with sessions in files to go on from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Bounded[_Tracked] = Bounded(
            _BYTES, lambda gone: shutil.rmtree(gone.folder, ignore_errors=True)
        )

    def track(self, key: Any, tracker: VideoTracker, clip: Clip, passes: Passes) -> Iterator[Row]:
        """Rows as `tracked` has them. key: whose tracks of which clip these are.

        Rows that come before anything that is new are those of last time, as far as there is a session.
        """
        found = self._kept.take(key) or _Tracked(Path(tempfile.mkdtemp(dir=self._folder)))
        try:
            steps = _steps(passes)
            count = found.cut(found.unchanged(steps))
            found.steps = steps
            yield from found.rows[:count]
            last = None
            if count:
                tracker.load(found.sessions[count])
                last = found.rows[-1].which_pass, found.rows[-1].found.t, None
            for row in tracked(tracker, clip, passes, last=last):
                if row.broken is None:
                    found.add(row, tracker)
                yield row
        finally:
            self._kept.put(key, found, found.bytes)

    def drop_idle(self, seconds: float) -> None:
        """Let those go that nobody has asked for so long."""
        self._kept.drop_idle(seconds)


def _steps(passes: Passes) -> list[Step]:
    """The frames of all passes in turn, and what is said of objects on each, to be compared."""

    def said(which: int, t: int) -> list[Any]:
        return [
            (are_first, _comparable(prompt))
            for are_first in (True, False)
            for prompt in passes.prompts(which, t, are_first=are_first)
        ]

    return [(which, t, said(which, t)) for which, frames in enumerate(passes.ranges) for t in frames]


def _comparable(prompt: Prompt) -> tuple[Any, ...]:
    """A prompt without its mask, which takes much memory, and what that can be recognised by."""
    mask = prompt.mask
    known = None if mask is None else (mask.shape, hashlib.sha256(mask.tobytes()).digest())
    return replace(prompt, mask=None), known
