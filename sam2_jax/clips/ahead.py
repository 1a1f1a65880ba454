"""Frames read in a thread ahead of whoever uses them: a few, never all of a clip."""

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import numpy as np

AHEAD = 3
"""So many frames are read ahead."""


class Ahead:
    """Iterates over the frames that `read` yields, which a thread of its own runs some ahead.

    What read raises is raised where its frame would be. The thread ends with the frames, with an error, and
    soon after `close`, which is also called when the object is no longer used.
    """

    def __init__(self, read: Callable[[], Iterator[np.ndarray]]) -> None:
        self._queue: Queue[Any] = Queue(AHEAD)
        self._stop = threading.Event()
        # The thread must not know this object, which could then never be out of use.
        arguments = read, self._queue, self._stop
        self.thread = threading.Thread(target=_read_on, args=arguments, daemon=True, name="frames ahead")
        self.thread.start()

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> np.ndarray:
        if self._stop.is_set():
            raise StopIteration
        kind, value = self._queue.get()
        if kind == "frame":
            frame: np.ndarray = value
            return frame
        self._stop.set()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Let the thread end; it may be reading a frame still."""
        self._stop.set()
        while not self._queue.empty():  # the thread may wait for room
            self._queue.get()

    def __del__(self) -> None:
        self.close()


def _read_on(read: Callable[[], Iterator[np.ndarray]], queue: "Queue[Any]", stop: threading.Event) -> None:
    try:
        for frame in read():
            queue.put(("frame", frame))
            if stop.is_set():
                return
        queue.put(("end", None))
    except BaseException as error:  # of every kind: it is the consumer's
        queue.put(("error", error))
