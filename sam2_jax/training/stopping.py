"""Stopping processes that train together: whichever is told to stop, all stop after the same step."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextmanager
def ctrl_c_for_all() -> Iterator[None]:
    """Let Ctrl-C in one of several processes be told to all, as SIGTERM is; a second one stops it alone."""
    if jax.process_count() == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def tell(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        os.kill(os.getpid(), signal.SIGTERM)  # which JAX takes, and tells the others

    signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def all_stop_at(step: int) -> bool:
    """Whether the processes stop after this step; all ask after each step. Never of one process."""
    try:
        return multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:  # JAX was told to leave signals alone
        return False
