"""What `sam2-jax finetune` does once data and model are there, whatever they are of: train, judge, write."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from sam2_jax.atomic import write_text
from sam2_jax.commands.common import end_at_sigterm
from sam2_jax.json_files import json_text
from sam2_jax.signals import handled


@contextmanager
def one_of(process: int, processes: int) -> Iterator[None]:
    """As one of processes that train together: the first one speaks, and an error of one ends all.

    The others wait for what this one computes; that it has ended their devices' connections tell at once. Of
    one process alone, SIGTERM is Ctrl-C.
    """
    if processes == 1:
        with handled(signal.SIGTERM, _interrupt):
            yield
        return
    with redirect_stdout(io.StringIO()) if process > 0 else nullcontext():
        try:
            yield
        except (ValueError, OSError) as error:
            print(f"sam2-jax: error: process {process}: {error}", file=sys.stderr, flush=True)
            # Not by way of JAX, which would wait for the others.
            os._exit(1)


def _interrupt() -> None:
    raise KeyboardInterrupt


def tell_problems(problems: Sequence[str]) -> None:
    """Say on stderr what is damaged in a dataset and was left out: the first of it, and how much more."""
    for problem in problems[:10]:
        print(f"note: left out: {problem}", file=sys.stderr)
    if len(problems) > 10:
        print(f"note: ... and {len(problems) - 10} more", file=sys.stderr)


def train_and_judge(
    arguments: argparse.Namespace,
    model: Any,
    go_on: Callable[..., tuple[Any, Any]],
    evaluate: Callable[[Any], Any] | None,
) -> None:
    """Train, say and report how good the model is before and after, and write it in both layouts.

    go_on: trains on from where it stopped, up to a step; returns the model first. evaluate: a named tuple of
    scores of a model; None where there is nothing to judge by.
    """
    import jax

    from sam2_jax.scale.hosts import done_by_all

    output, progress = arguments.output, not arguments.quiet
    report: dict[str, Any] = {"model": arguments.model}

    def judge(model: Any, when: str) -> None:
        if evaluate is not None:
            found = evaluate(model)
            print(f"{when}: {found}", flush=True)
            # JSON has no NaN, which a mean over nothing is.
            report[when] = {name: None if x != x else x for name, x in found._asdict().items()}

    # No step yet, but all checks: before the minutes that judging may take.
    go_on(stop_at=0, progress=False)
    judge(model, "before")
    tuned, _ = go_on(checkpoint_every=arguments.checkpoint_every, progress=progress)
    if jax.process_count() > 1:
        end_at_sigterm()

    def write() -> None:
        for folder, layout in ((output, "flax"), (output / "transformers", "transformers")):
            tuned.save_pretrained(folder, layout=layout)
            tuned.processor.save_pretrained(folder)

    def write_report() -> None:
        write_text(output / "report.json", json_text(report, indent=2) + "\n")

    def by_first(work: Callable[[], None]) -> None:
        done_by_all(work if jax.process_index() == 0 else lambda: None)

    by_first(write)
    judge(tuned, "after")
    by_first(write_report)
    print(f"{output}: the trained model; in transformers/ the same for transformers")
