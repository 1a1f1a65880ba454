"""Bars of progress on terminals and in notebooks, lines of it in logs."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_UP = "\x1b[A"  # how tqdm comes back from the bar of an inner loop
_LINE = "{desc}: {n_fmt}/{total_fmt} after {elapsed}, {remaining} left, {rate_fmt}{postfix}"
_LINE_OF_UNKNOWN_LENGTH = "{desc}: {n_fmt} after {elapsed}, {rate_fmt}{postfix}"


def progress_bar(items: Iterable[Any] | None = None, *, show: bool = True, **options: Any) -> Any:
    """A bar of tqdm, with its options.

    Where stderr goes to a file or another program, a bar would be a heap of carriage returns: there it is a
    line now and then, for a bar within another only if it takes long. show=False: none at all.
    """
    if show and not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        every = _SECONDS_BETWEEN_LINES
        is_inner = not options.get("leave", True)
        options |= {"mininterval": every, "maxinterval": every, "delay": every if is_inner else 0}
        is_known = options.get("total") is not None or hasattr(items, "__len__")
        line = _LINE if is_known else _LINE_OF_UNKNOWN_LENGTH
        options |= {"file": _Lines(), "bar_format": line, "leave": not is_inner}
    return tqdm(items, disable=not show, **options)


class _Lines:
    """Takes what tqdm writes and prints it as lines."""

    def write(self, text: str) -> None:
        if line := text.replace(_UP, "").strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Lines are flushed as they are printed."""
