"""What `sam2-jax finetune` does once data and model are there, whatever they are of: train, judge, write."""

import argparse
from collections.abc import Callable
from typing import Any

from sam2_jax.atomic import write_text
from sam2_jax.json_files import json_text


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
    output, progress = arguments.output, not arguments.quiet
    report: dict[str, Any] = {"model": arguments.model}

    def judge(model: Any, when: str) -> None:
        if evaluate is not None:
            found = evaluate(model)
            print(f"{when}: {found}", flush=True)
            report[when] = found._asdict()

    # No step yet, but all checks: before the minutes that judging may take.
    go_on(stop_at=0, progress=False)
    judge(model, "before")
    tuned, _ = go_on(checkpoint_every=arguments.checkpoint_every, progress=progress)
    for folder, layout in ((output, "flax"), (output / "transformers", "transformers")):
        tuned.save_pretrained(folder, layout=layout)
        tuned.processor.save_pretrained(folder)
    judge(tuned, "after")
    write_text(output / "report.json", json_text(report, indent=2) + "\n")
    print(f"{output}: the trained model; in transformers/ the same for transformers")
