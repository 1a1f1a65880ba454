"""Signals are handled in another way for a while, and then as before."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sam2_jax.commands.finetune_run import one_of
from sam2_jax.signals import handled

NUMBER = signal.SIGTERM


@pytest.fixture(autouse=True)
def before() -> Iterator[list[str]]:
    """What came to whoever handled the signal before."""
    came: list[str] = []
    usual = signal.signal(NUMBER, lambda *_: came.append("before"))
    yield came
    signal.signal(NUMBER, usual)


@pytest.mark.parametrize(("once", "expected"), [(False, ["now", "now"]), (True, ["now", "before"])])
def test_meanwhile_a_signal_is_handled_otherwise(before: list[str], once: bool, expected: list[str]) -> None:
    with handled(NUMBER, lambda: before.append("now"), once=once):
        for _ in range(2):
            os.kill(os.getpid(), NUMBER)
    assert before == expected
    os.kill(os.getpid(), NUMBER)
    assert before == [*expected, "before"]


def test_in_other_threads_nothing_changes(before: list[str]) -> None:
    def work() -> None:
        with handled(NUMBER, lambda: before.append("now")):
            os.kill(os.getpid(), NUMBER)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert before == ["before"]


def test_sigterm_interrupts_a_training_by_one_process(before: list[str]) -> None:
    def train() -> None:
        with one_of(0, 1):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)

    with pytest.raises(KeyboardInterrupt):
        train()
    os.kill(os.getpid(), signal.SIGTERM)
    assert before == ["before"]
