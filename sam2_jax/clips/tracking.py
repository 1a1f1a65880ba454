"""Objects tracked through a clip, frame after frame, and kept as they come."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sam2_jax.clips.clip import Clip
from sam2_jax.clips.discovery import new_masks
from sam2_jax.clips.record import Record, Row
from sam2_jax.clips.tracks import Track, TrackedFrame, tracked_frame
from sam2_jax.progress import progress_bar
from sam2_jax.signals import handled
from sam2_jax.video.results import FrameMasks
from sam2_jax.video.tracker import VideoTracker


@dataclass(frozen=True)
class Prompt:
    """What was said of an object on frame t of a clip, in its pixels: points and a box, and a mask.

    A mask is what the object is; points and a box beside it refine that.
    """

    t: int
    object_id: int
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None

    def give(self, tracker: VideoTracker) -> FrameMasks:
        """Prompt a session; returns the object's mask."""
        found = None
        if self.mask is not None:
            found = tracker.prompt(self.t, self.object_id, mask=self.mask)
        if self.points or self.box is not None:
            points = self.points or None
            labels = self.labels or None
            found = tracker.prompt(self.t, self.object_id, points, labels, self.box)
        assert found is not None
        return found


class Everything(NamedTuple):
    """Objects that are found, not prompted.

    find: all masks of a picture, bool [H, W], best first. every: frames between those on which new things are
    looked for, 0 for the first alone. most: objects in all.
    """

    find: Callable[[np.ndarray], Sequence[np.ndarray]]
    every: int
    most: int


class Passes:
    """The ways through a clip: from the first prompts on, and towards its beginning.

    forward: from the earliest prompt to the end. reverse: from the latest prompt to the beginning. both:
    forward, and then back for what each object was before its first prompt. An object begins with the prompts
    on the first frame that has some for it, in the direction of the way; those on frames behind are
    corrections, given when the frame has been tracked.
    """

    def __init__(self, prompts: Sequence[Prompt], frames: int, direction: str) -> None:
        numbers = [prompt.t for prompt in prompts]
        self.first: dict[int, int] = {}
        begins = max if direction == "reverse" else min
        for prompt in prompts:
            self.first[prompt.object_id] = begins(self.first.get(prompt.object_id, prompt.t), prompt.t)
        self.ranges = [range(min(numbers, default=0), frames)]
        if direction == "reverse":
            self.ranges = [range(max(numbers), -1, -1)]
        elif direction == "both":
            self.ranges.append(range(max(self.first.values()) - 1, -1, -1))
        self._prompts: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            self._prompts.setdefault(prompt.t, []).append(prompt)

    @property
    def total(self) -> int:
        """Frames of all passes."""
        return sum(map(len, self.ranges))

    def prompts(self, which: int, t: int, *, are_first: bool) -> list[Prompt]:
        """Those of a frame that begin an object, or those that correct one; a second pass has none."""
        of_frame = self._prompts.get(t, []) if which == 0 else []
        return [each for each in of_frame if (self.first[each.object_id] == t) == are_first]

    def counts(self, which: int, t: int, object_id: int) -> bool:
        """Whether a pass says what an object is on a frame."""
        return which == 0 or t < self.first[object_id]


def track(
    tracker: VideoTracker,
    clip: Clip,
    passes: Passes,
    record: Record,
    everything: Everything | None = None,
    *,
    progress: bool = True,
) -> None:
    """Track prompted objects through all passes, or everything forward, from where the record ends.

    A frame that cannot be read ends its pass. Ctrl-C ends the work after the frames it is at; a second one
    at once. Raises KeyboardInterrupt then, and ValueError if not even the first frame can be read.
    """
    if not any(_rest(frames, which, record.last) for which, frames in enumerate(passes.ranges)):
        return
    record.resume(tracker)
    last = record.last
    try:
        with (
            _stopping() as is_stopped,
            progress_bar(
                total=passes.total, initial=len(record), desc="frames", unit="frame", show=progress
            ) as bar,
        ):
            for row in tracked(tracker, clip, passes, everything, last):
                if row.broken is not None and not len(record):
                    raise ValueError(row.broken)
                record.add(row, tracker)
                bar.update()
                bar.set_postfix(objects=len(tracker.object_ids), refresh=False)
                if is_stopped() and not tracker.waiting:
                    record.save(tracker)
                    raise KeyboardInterrupt(
                        f"{len(record)} of {passes.total} frames are kept; the same command goes on"
                    )
    finally:
        record.close()


def tracked(
    tracker: VideoTracker,
    clip: Clip,
    passes: Passes,
    everything: Everything | None = None,
    last: tuple[int, int, str | None] | None = None,
) -> Iterator[Row]:
    """Track as `track` does; yields each frame when it is done. last: the row after which it goes on."""
    for which, frames in enumerate(passes.ranges):
        yield from _pass(tracker, clip, passes, which, _rest(frames, which, last), everything)


def _rest(frames: range, which: int, last: tuple[int, int, str | None] | None) -> range:
    """What is left of a pass after the last row of a record."""
    if last is None or last[0] < which:
        return frames
    if last[0] > which or last[2] is not None:
        return frames[:0]
    return frames[frames.index(last[1]) + 1 :]


def _pass(
    tracker: VideoTracker,
    clip: Clip,
    passes: Passes,
    which: int,
    frames: range,
    everything: Everything | None,
) -> Iterator[Row]:
    stream: Iterator[FrameMasks] | None = None
    is_backwards = frames.step < 0
    for t in frames:
        try:
            for prompt in passes.prompts(which, t, are_first=True):
                prompt.give(tracker)
            tracks: dict[int, Track] = {}
            if tracker.object_ids:
                stream = stream or tracker.propagate(t, reverse=is_backwards)
                # From frame 0 backwards a session has nothing to do: the frame itself is left.
                tracks = _by_id(next(stream, None) or tracker.step(frame=t, reverse=is_backwards))
            for prompt in passes.prompts(which, t, are_first=False):
                tracks |= _by_id(prompt.give(tracker))
            if everything is not None and _is_due(t, passes, everything):
                for prompt in _discovered(clip[t], t, tracks, everything):
                    tracks |= _by_id(prompt.give(tracker))
        except ValueError as error:
            yield Row(which, TrackedFrame(t, ()), str(error))
            return
        kept = tuple(track for i, track in sorted(tracks.items()) if passes.counts(which, t, i))
        yield Row(which, TrackedFrame(t, kept))


def _by_id(found: FrameMasks) -> dict[int, Track]:
    return {track.object_id: track for track in tracked_frame(found).tracks}


def _is_due(t: int, passes: Passes, everything: Everything) -> bool:
    since = t - passes.ranges[0][0]
    return since == 0 or (everything.every > 0 and since % everything.every == 0)


def _discovered(
    picture: np.ndarray, t: int, tracks: dict[int, Track], everything: Everything
) -> list[Prompt]:
    """Prompts for what is new on a frame."""
    if len(tracks) >= everything.most:
        return []
    taken = [track.mask for track in tracks.values()]
    found = new_masks(everything.find(picture), taken, everything.most - len(tracks))
    return [Prompt(t, max(tracks, default=0) + i, mask=mask) for i, mask in enumerate(found, 1)]


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Take Ctrl-C for a wish to stop soon; yields whether there was one. In the main thread only."""
    wishes: list[bool] = []

    def wish() -> None:
        wishes.append(True)
        print("\nstopping soon; once more stops at once", file=sys.stderr, flush=True)

    with handled(signal.SIGINT, wish, once=True):
        yield lambda: bool(wishes)
