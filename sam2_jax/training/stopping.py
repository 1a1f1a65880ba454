"""Stopping processes that train together: whichever is told to stop, all stop after the same step."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

from sam2_jax.signals import handled


@contextmanager
def ctrl_c_for_all() -> Iterator[None]:
    """Let Ctrl-C in one of several processes be told to all, as SIGTERM is; a second one stops it alone."""
    if jax.process_count() == 1:
        yield
        return
    # SIGTERM JAX takes, and tells the others.
    with handled(signal.SIGINT, lambda: os.kill(os.getpid(), signal.SIGTERM), once=True):
        yield


def all_stop_at(step: int) -> bool:
    """Whether the processes stop after this step; all ask after each step. Never of one process."""
    try:
        return multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:  # JAX was told to leave signals alone
        return False
