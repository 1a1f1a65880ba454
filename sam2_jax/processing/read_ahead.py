"""Loading what comes next while the last is used, in threads; how long that keeps them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class Stopwatch:
    """Seconds that work has taken, those of all threads together."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def times(self, work: Callable[[Item], Loaded]) -> Callable[[Item], Loaded]:
        """The same work, timed."""

        def timed(item: Item) -> Loaded:
            begun = time.perf_counter()
            try:
                return work(item)
            finally:
                seconds = time.perf_counter() - begun
                with self._lock:
                    self.seconds += seconds

        return timed


def read_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], *, threads: int = 1, ahead: int | None = None
) -> Generator[Loaded]:
    """What load makes of each item, in order; threads load what comes next while one is used.

    ahead: so many items are loaded ahead at most, one for each thread by default.
    """
    pool = ThreadPoolExecutor(threads, "sam2-jax-reader")
    most = threads if ahead is None else ahead
    coming: deque[Future[Loaded]] = deque()
    try:
        for item in items:
            coming.append(pool.submit(load, item))
            del item  # or it would be held while others are loaded
            if len(coming) > most:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
