"""Signals that are handled in another way for a while."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled(number: int, handle: Callable[[], None], *, once: bool = False) -> Iterator[None]:
    """Handle a signal so meanwhile; once: the first one only, and others as before.

    Outside of the main thread, which alone takes signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)

    def take(*_: object) -> None:
        if once:
            signal.signal(number, before)
        handle()

    signal.signal(number, take)
    try:
        yield
    finally:
        signal.signal(number, before)
