"""What has been tracked of a clip, kept in a folder as it comes, so that the work can go on after a stop."""

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from sam2_jax.atomic import remove_left_behind
from sam2_jax.clips.tracks import Track, TrackedFrame
from sam2_jax.json_files import json_text
from sam2_jax.video.tracker import VideoTracker

ROWS_FILE = "frames.jsonl"
_BEGINNING = b'{"made_of": '
_SESSION = re.compile(r"session-(\d+)\.npz")
SECONDS = 20.0
"""Between saved sessions, so much of which is tracked again after a crash."""
_SHARE = 0.05  # of the time may go into saving


class Row(NamedTuple):
    """A frame that was tracked in a pass through the clip; broken: the frame could not be read, and why."""

    which_pass: int
    found: TrackedFrame
    broken: str | None = None


class Record:
    """Rows of frames in the order in which they are tracked, and now and then the session after one of them.

    A row of JSON lines is a frame; the first line says what it is all made of. A session's file is named by
    the number of rows it comes after, and only rows before it count when the work goes on.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any]) -> None:
        """Take up the rows of a folder if they are made of the same; else there are none.

        is_new: there is no record in the folder. is_anew: there is one that was made of something else, which
        is lost when the work begins. Raises ValueError for a file of the record's name that is none.
        """
        self._folder = folder
        self._path = folder / ROWS_FILE
        self._head: dict[str, Any] = json.loads(json.dumps({"made_of": made_of}))
        # Where each row begins, and in the end where the next one will.
        self._offsets: list[int] = []
        self._rows: list[tuple[int, int, str | None]] = []
        self._file: IO[bytes] | None = None
        # The first row is saved at once.
        self._saved = -math.inf
        self._took = 0.0
        self.is_anew = False
        self.is_new = not self._path.exists()
        if not self.is_new:
            self._look()

    def _look(self) -> None:
        """Find whole rows."""
        with self._path.open("rb") as file:
            head = file.readline()
            if len(head) < len(_BEGINNING) and _BEGINNING.startswith(head):  # killed when it began
                self.is_new = True
                return
            if not head.startswith(_BEGINNING):
                raise ValueError(f"{self._path} is there, and is no record of frames: choose another folder")
            if _json(head) != self._head:
                self.is_anew = True
                return
            self._offsets = [file.tell()]
            while (line := file.readline()).endswith(b"\n") and (row := _row(line)) is not None:
                self._offsets.append(file.tell())
                self._rows.append((row.which_pass, row.found.t, row.broken))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> tuple[int, int, str | None] | None:
        """Of the last row the pass, the frame, and why that could not be read, if so."""
        return self._rows[-1] if self._rows else None

    def resume(self, tracker: VideoTracker) -> None:
        """Load the latest session that rows lead up to, and forget rows behind it; begin anew without any."""
        self._folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for number, path in sorted(self._sessions(), reverse=True):
            if number <= len(self._rows) and not count:
                try:
                    tracker.load(path)
                    count = number
                    continue
                except ValueError:  # it was half-written, or is not ours
                    pass
            path.unlink()
        remove_left_behind(self._folder, "session-*.npz")
        if not count:
            with self._path.open("wb") as file:
                file.write(json_text(self._head).encode() + b"\n")
                self._offsets = [file.tell()]
        del self._rows[count:], self._offsets[count + 1 :]
        self._file = self._path.open("r+b")
        self._file.truncate(self._offsets[-1])
        self._file.seek(0, os.SEEK_END)

    def _sessions(self) -> list[tuple[int, Path]]:
        found = ((_SESSION.fullmatch(path.name), path) for path in self._folder.glob("session-*.npz"))
        return [(int(match[1]), path) for match, path in found if match]

    def add(self, row: Row, tracker: VideoTracker) -> None:
        """Append a row, and save the session if it is time and nothing in it would be taken back."""
        assert self._file is not None
        values = {"pass": row.which_pass, **row.found.to_json()}
        values |= {} if row.broken is None else {"broken": row.broken}
        self._file.write(json_text(values).encode() + b"\n")
        self._offsets.append(self._file.tell())
        self._rows.append((row.which_pass, row.found.t, row.broken))
        is_due = time.monotonic() - self._saved > max(SECONDS, self._took / _SHARE)
        if is_due and not tracker.waiting:
            self.save(tracker)

    def save(self, tracker: VideoTracker) -> None:
        """Save the session after the rows there are, and then forget earlier ones."""
        assert self._file is not None
        begun = time.monotonic()
        self._file.flush()
        os.fsync(self._file.fileno())
        path = self._folder / f"session-{len(self._rows):06}.npz"
        tracker.save(path)
        for _, other in self._sessions():
            if other != path:
                other.unlink()
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def close(self) -> None:
        """No more rows are added."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """All is tracked and written: the session is not needed any more."""
        for _, path in self._sessions():
            path.unlink()

    @property
    def broken(self) -> list[tuple[int, int, str]]:
        """Frames that could not be read: the pass that they ended, their numbers, and why."""
        return [(which, t, why) for which, t, why in self._rows if why is not None]

    def frames(self, wanted: range) -> Iterator[TrackedFrame]:
        """Frames in their order, of each what all passes found; nothing of frames that were in none."""
        places: dict[int, list[int]] = {}
        for (_, t, broken), offset in zip(self._rows, self._offsets, strict=False):
            if broken is None:
                places.setdefault(t, []).append(offset)
        with self._path.open("rb") as file:
            for t in wanted:
                tracks: list[Track] = []
                for offset in places.get(t, ()):
                    file.seek(offset)
                    row = _row(file.readline())
                    assert row is not None
                    tracks += row.found.tracks
                yield TrackedFrame(t, tuple(sorted(tracks, key=lambda track: track.object_id)))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _row(line: bytes) -> Row | None:
    """A row, None of what is none."""
    values = _json(line)
    try:
        return Row(int(values["pass"]), TrackedFrame.from_json(values), values.get("broken"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
