"""`KeptTracks`: what was tracked of clips; what a correction leaves as it was is not tracked again."""

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
_ROW_BYTES = 2**11


@dataclass(eq=False)
class _Tracked:
    """Rows, how they came about, and sessions by the number of rows that they come after."""

    folder: Path
    passes: Passes | None = None
    rows: list[Row] = field(default_factory=list)
    sessions: dict[int, Path] = field(default_factory=dict)
    every: int = field(default_factory=lambda: _EVERY)

    @property
    def session_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.sessions.values())

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
        tracker.save(path)
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
            count = found.cut(_unchanged(found, passes))
            found.passes = passes
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
            self._kept.put(key, found, found.session_bytes + _ROW_BYTES * len(found.rows))

    def drop_idle(self, seconds: float) -> None:
        """Let those go that nobody has asked for so long."""
        self._kept.drop_idle(seconds)


def _unchanged(before: _Tracked, passes: Passes) -> int:
    """How many rows, from the first on, come about as before."""
    steps = ((which, t) for which, frames in enumerate(passes.ranges) for t in frames)
    for count, (row, step) in enumerate(zip(before.rows, steps, strict=False)):
        assert before.passes is not None
        is_same = (row.which_pass, row.found.t) == step
        if not is_same or _given(before.passes, *step) != _given(passes, *step):
            return count
    return min(len(before.rows), passes.total)


def _given(passes: Passes, which: int, t: int) -> list[list[Any]]:
    """What is said of objects on a frame, in values that can be compared."""
    return [
        [_comparable(prompt) for prompt in passes.prompts(which, t, are_first=are_first)]
        for are_first in (True, False)
    ]


def _comparable(prompt: Prompt) -> tuple[Any, ...]:
    mask = prompt.mask
    return replace(prompt, mask=None), None if mask is None else (mask.shape, mask.tobytes())
