"""Long lists in JSON files, read item by item: COCO's annotations do not fit the memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sam2_jax.checks import shown

_CHUNK = 2**18
_LARGEST = 2**26  # characters of one item


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and item of each list of a JSON object, name and value of what else it has, in the file's order.

    Raises ValueError, naming the file, if it cannot be read or is no JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Reader(file).items()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or shown(error)}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not what can be read here: {reason}") from error


class _Reader:
    """What has been read of a file and not yet been used."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decode = json.JSONDecoder().raw_decode

    def items(self) -> Iterator[tuple[str, Any]]:
        self._expect("{")
        while self._next() != "}":
            name = self._value()
            if not isinstance(name, str):
                raise ValueError(f"not JSON: a name was expected; got {shown(name)}")
            self._expect(":")
            if self._next() == "[":
                for item in self._list():
                    yield name, item
            else:
                yield name, self._value()
            self._separator("}")
        self._expect("}")

    def _list(self) -> Iterator[Any]:
        self._expect("[")
        while self._next() != "]":
            yield self._value()
            self._separator("]")
        self._expect("]")

    def _next(self) -> str:
        """The next character that is no blank; an empty text at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def _expect(self, character: str) -> None:
        if (found := self._next()) != character:
            raise ValueError(
                f"not JSON: {character} was expected; got {shown(found) if found else 'its end'}"
            )
        self._at += 1

    def _separator(self, end: str) -> None:
        if self._next() != end:
            self._expect(",")
            if self._next() == end:
                raise ValueError(f"not JSON: a value was expected; got {shown(end)}")

    def _value(self) -> Any:
        self._next()
        size = _CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end < len(self._text):  # a number at the end of the text may go on
                    self._at = end
                    return value
                problem = None
            except json.JSONDecodeError as error:
                problem = error
            if len(self._text) - self._at > _LARGEST:
                raise ValueError(f"not JSON, or an item of more than {_LARGEST} characters")
            if not self._more(size):
                raise problem or ValueError("not JSON: it breaks off")
            size *= 2

    def _more(self, size: int) -> bool:
        read = self._file.read(size)
        self._text, self._at = self._text[self._at :] + read, 0
        return bool(read)
