"""Loading what comes next while the last is used: in a thread, or in worker processes, which are Grain's."""

import signal
from collections.abc import Callable, Generator, Sequence
from types import ModuleType
from typing import Any, TypeVar

from sam2_jax.processing.read_ahead import read_ahead

Loaded = TypeVar("Loaded")

# How Grain begins what it says of a worker that is no more.
_GONE = "Worker process was terminated"


def import_grain() -> ModuleType:
    """Grain. Raises ValueError where it is not installed."""
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise ValueError(
            "workers are processes of Grain, which is not installed: pip install 'sam2_jax[grain]'; "
            "workers=0, a thread, needs none"
        ) from error
    # Grain asks absl for its own flags, which programs other than absl's never read.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return grain


def loaded_ahead(load: Callable[[int], Loaded], steps: Sequence[int], workers: int = 0) -> Generator[Loaded]:
    """What load makes of each step, in order, ahead: in a thread, or by so many workers.

    Raises ValueError if these cannot start or end early.
    """
    if not workers:
        yield from read_ahead(load, steps)
        return
    grain = import_grain()
    # No threads within a worker: it is as fast as its core.
    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    made = grain.MapDataset.source(steps).map(load).to_iter_dataset(alone)
    several = grain.MultiprocessingOptions(num_workers=workers)
    coming: Any = iter(made.mp_prefetch(several, worker_init_fn=_leave_ctrl_c))
    try:
        yield from coming
    except RuntimeError as error:
        if not str(error).startswith(_GONE):
            raise
        raise ValueError(
            f"workers={workers} ended before they were done. Each of them runs the program's file again: "
            'what trains must stand under `if __name__ == "__main__":`. If it does, they may have been short '
            "of memory, or of shared memory (/dev/shm); workers=0 needs none"
        ) from error
    finally:
        coming.close()


def _leave_ctrl_c(worker: int, workers: int) -> None:
    """Ctrl-C is for the process that this one works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
