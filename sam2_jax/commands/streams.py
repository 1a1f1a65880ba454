"""Printing that never ends the work: the reader may go away, the terminal may lack letters."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO


class _Stream:
    """A stream that drops what cannot be delivered, once it is quiet all there is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_quiet = False

    def write(self, text: str) -> int:
        if not self.is_quiet:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            # A letter that the terminal does not have, or the name of a file that is no text at all.
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            self._deliver(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._deliver(self._stream.flush)

    def _deliver(self, send: Any, *text: str) -> None:
        try:
            send(*text)
        except BrokenPipeError:
            # The reader has left, `| head -1` say. What is still in the buffer would be tried again in the
            # end, with an alarm; it goes nowhere.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self.is_quiet = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printing() -> Iterator[_Stream]:
    """Let what is printed meanwhile not fail; yields stdout, which can be made quiet."""
    out, err = (_Stream(stream or io.StringIO()) for stream in (sys.stdout, sys.stderr))  # None: closed
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield out
        finally:
            out.flush()
            err.flush()
