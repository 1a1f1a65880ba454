"""`Bounded`: what is kept for a while, so much of it at most, the latest used longest."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Bounded(Generic[Value]):
    """Values by key, each of a size; when all together are too large, those used least recently go.

    A single value that is too large stays alone. forget: is told each value that goes. Safe in threads.
    """

    def __init__(self, largest: float, forget: Callable[[Value], None] | None = None) -> None:
        self.largest = largest
        self.total = 0.0
        self._forget = forget
        self._lock = threading.Lock()
        # Value, size, and when it was used last.
        self._kept: OrderedDict[Hashable, tuple[Value, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Value | None:
        """What is kept under a key, None if it is gone."""
        with self._lock:
            if key not in self._kept:
                return None
            value, size, _ = self._kept.pop(key)
            self._kept[key] = value, size, time.monotonic()
            return value

    def put(self, key: Hashable, value: Value, size: float) -> None:
        """Keep a value, in place of one under the same key."""
        with self._lock:
            gone = [self._take(key)] if key in self._kept else []
            self._kept[key] = value, size, time.monotonic()
            self.total += size
            while self.total > self.largest and len(self._kept) > 1:
                gone.append(self._take(next(iter(self._kept))))
        self._tell(gone)

    def take(self, key: Hashable) -> Value | None:
        """The same, and it is not kept any more; forget is not told."""
        with self._lock:
            return self._take(key) if key in self._kept else None

    def drop(self, chosen: Callable[[Hashable], bool]) -> None:
        """Let those go whose key is chosen."""
        with self._lock:
            gone = [self._take(key) for key in list(self._kept) if chosen(key)]
        self._tell(gone)

    def drop_idle(self, seconds: float) -> None:
        """Let those go that have not been used for so long."""
        since = time.monotonic() - seconds
        with self._lock:
            gone = [self._take(key) for key, (_, _, used) in list(self._kept.items()) if used <= since]
        self._tell(gone)

    def _take(self, key: Hashable) -> Value:
        value, size, _ = self._kept.pop(key)
        self.total -= size
        return value

    def _tell(self, gone: list[Value]) -> None:
        if self._forget is not None:
            for value in gone:
                self._forget(value)
