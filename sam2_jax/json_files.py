"""JSON files: read with one sentence for whatever can be wrong with them, written in transformers' style."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_jax.atomic import write_text
from sam2_jax.checks import shown

_LARGEST = 2**24


def read_json(path: str | Path, remedy: str = "download it again", *, largest: int = _LARGEST) -> Any:
    """Read a JSON file in UTF-8, of at most `largest` bytes.

    Raises ValueError, naming the file and ending with the remedy, if it cannot be read, is not JSON, or is
    nested so deep that no reader would follow.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > largest:
            raise ValueError(f"it has {size} bytes, of at most {largest}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or shown(error)}") from error
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON (it is nested too deep); {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from error


def read_json_object(path: str | Path, remedy: str = "download it again") -> dict[str, Any]:
    """As `read_json`, of a file that holds an object. Raises ValueError if it holds another thing."""
    values = read_json(path, remedy)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object; got {shown(values)}: {remedy}")
    return values


def to_json(values: Mapping[str, Any]) -> str:
    """An object as transformers writes it: two spaces deep, keys in order, a line's end at the end."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as people read it, in letters of every script; escaped if they cannot be written in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # the name of a file that is no text in any encoding
        return json.dumps(value, indent=indent)
    return text


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all. Raises ValueError if it cannot be written."""
    write_text(Path(path), to_json(values))


def write_lists(path: Path, info: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """Fill a file with an object of `info` and lists that need not fit the memory, an item on each line."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json_text(info)}')
        for name, items in lists.items():
            file.write(f",\n{json_text(name)}: [")
            for i, item in enumerate(items):
                file.write((",\n" if i else "") + json_text(item))
            file.write("]")
        file.write("}\n")
