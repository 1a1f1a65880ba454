"""Loading what comes next while the last is used: in a thread, or in processes."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_ahead(load: Callable[[Item], Loaded], items: Iterable[Item], processes: int = 0) -> Iterator[Loaded]:
    """What load makes of each item, in order; a thread loads the next while one is used.

    processes: if not 0, so many processes load instead, two items each ahead; load and items are pickled.
    """
    pool: Executor
    if processes == 0:
        pool = ThreadPoolExecutor(1)
    else:
        # Spawned: a fork of a process with a device and threads may hang. Load goes to each process once and
        # not with every item: it may hold a whole dataset.
        pool = ProcessPoolExecutor(processes, get_context("spawn"), _keep, (load,))
        load = _load_by_kept
    with pool:
        coming: deque[Future[Loaded]] = deque()
        for item in items:
            coming.append(pool.submit(load, item))
            if len(coming) > max(1, 2 * processes):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


_kept: list[Callable[[Any], Any]] = []


def _keep(load: Callable[[Any], Any]) -> None:
    """Take what this process is to load with. Ctrl-C is left to the process that this one works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _kept.append(load)


def _load_by_kept(item: Any) -> Any:
    return _kept[0](item)
