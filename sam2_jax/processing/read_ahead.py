"""Loading what comes next while the last is used: in threads, or in processes."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_ahead(
    load: Callable[[Item], Loaded],
    items: Iterable[Item],
    processes: int = 0,
    *,
    threads: int = 1,
    ahead: int | None = None,
) -> Generator[Loaded]:
    """What load makes of each item, in order; threads load what comes next while one is used.

    processes: if not 0, so many processes load instead; load and items are pickled. ahead: so many items are
    loaded ahead at most, two for each process, or one for each thread, by default.
    """
    pool: Executor
    if processes == 0:
        pool = ThreadPoolExecutor(threads, "sam2-jax-reader")
    else:
        # Spawned: a fork of a process with a device and threads may hang. Load goes to each process once and
        # not with every item: it may hold a whole dataset.
        pool = ProcessPoolExecutor(processes, get_context("spawn"), _keep, (load,))
        load = _load_by_kept
    most = (2 * processes or threads) if ahead is None else ahead
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


_kept: list[Callable[[Any], Any]] = []


def _keep(load: Callable[[Any], Any]) -> None:
    """Take what this process is to load with. Ctrl-C is left to the process that this one works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _kept.append(load)


def _load_by_kept(item: Any) -> Any:
    return _kept[0](item)
