"""What sessions run, once on blank frames, so that it is compiled before the first clip."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sam2_jax.processing.inputs import Size
from sam2_jax.video.state import bucket
from sam2_jax.video.tracker import VideoTracker

Begin = Callable[[np.ndarray], VideoTracker]
"""Begins a session on a clip."""


def rehearse(
    begin: Begin, size: Size, objects: Iterable[int], conditioning: Iterable[int]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Names and runs: all kinds of prompts, and tracking with so many objects and frames with prompts.

    Numbers that are one program, since they are padded to the same, are run once.
    """
    frames = sorted({bucket(count) for count in conditioning})
    for count in sorted({bucket(count) for count in objects}):
        for prompted in frames:
            name = f"{count} object{'s' * (count > 1)}, {prompted} frame{'s' * (prompted > 1)} with prompts"
            yield name, lambda count=count, prompted=prompted: _track(begin, size, count, prompted)  # type: ignore[misc]
    yield "first prompts", lambda: _prompt(begin, size)


def _clip(size: Size, frames: int) -> np.ndarray:
    return np.zeros((frames, *size, 3), np.uint8)


def _track(begin: Begin, size: Size, objects: int, prompted: int) -> None:
    """Track objects, and correct one where it was tracked."""
    chunk = begin(_clip(size, 1)).chunk
    session = begin(_clip(size, prompted + chunk + (chunk > 1)))  # all lengths of chunks
    middle = [(size[1] / 2, size[0] / 2)]
    for t in range(prompted):
        for id_ in range(objects if t == 0 else 1):
            session.prompt(t, id_, middle)
    for _ in session.propagate():
        pass
    session.prompt(prompted, 0, middle)
    session.prompt(prompted, 0, middle, clear_old=False)


def _prompt(begin: Begin, size: Size) -> None:
    """Prompt by clicks, a box and a mask."""
    session = begin(_clip(size, 1))
    height, width = size
    middle = [(width / 2, height / 2)]
    for clear_old in (True, True, False):
        session.prompt(0, "clicks", middle, clear_old=clear_old)
    session.prompt(0, "box", box=(1, 1, width - 1, height - 1))
    session.prompt(0, "mask", mask=np.ones(size, bool))
