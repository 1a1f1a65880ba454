"""Run as one of the processes of `sam2-jax finetune`, whose words are the arguments.

Environment: SIGNAL, the name of a signal that the last process, or the only one, sends itself in step 3.
"""

import os
import signal
import sys
import time
from typing import Any

import jax

from sam2_jax.commands import main
from sam2_jax.training import trainer
from sam2_jax.training.trainer import Record

_save = Record.save


def save(self: Record, step: int, state: Any, *, is_last: bool) -> None:
    """Save; and in step 3 send the signal. JAX looks for signals once a second."""
    _save(self, step, state, is_last=is_last)
    if step >= 3 and jax.process_count() > 1 and "SIGNAL" in os.environ:
        time.sleep(0.3)
    if step == 3 and jax.process_index() == jax.process_count() - 1 and "SIGNAL" in os.environ:
        os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))


if __name__ == "__main__":
    trainer.Record.save = save  # type: ignore[method-assign]
    sys.exit(main(["finetune", *sys.argv[1:]]))
