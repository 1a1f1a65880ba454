"""The gate that what comes from outside passes: numbers, switches, names of options; messages of fit length.

Every number from a caller, a file or a command goes through `read_number` or `read_whole`, every array
through `read_array` or `read_numbers`, so that one beyond all floats or one that is not a number ends as a
sentence and not as an error from deep inside. Every message that repeats what it was given does so through
`shown`.
"""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

_LONGEST = 100
_MOST_LINES = 20


def shown(value: Any) -> str:
    """A value as a message repeats it: its repr, cut at about 100 characters."""
    try:
        if type(value) in (str, bytes, list, tuple):
            value = value[: _LONGEST + 1]  # the rest would be cut off, after much work
        text = value if isinstance(value, type) else repr(value)
        text = text.__name__ if isinstance(text, type) else text
    except Exception:  # a number of too many digits, a list that is too deep, a repr that fails
        text = f"a value of type {type(value).__name__}"
    return cut(" ".join(text.split()))


def cut(text: str, longest: int = _LONGEST) -> str:
    """A text of at most this many characters, with dots where more was cut off."""
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def some_lines(lines: Iterable[str], most: int = _MOST_LINES) -> str:
    """Lines of a message, of too many the first ones and how many are left."""
    lines = list(lines)
    left = len(lines) - most
    return "\n".join([*lines[:most], f"  ... and {left} more"] if left > 0 else lines)


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like this one, None where none is."""
    close = get_close_matches(str(name)[:_LONGEST], list(known), 1, cutoff)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """How a message about an unknown name ends: the name that was meant, else all names there are."""
    known = list(known)
    close = closest(name, known, cutoff)
    return f": did you mean {close}?" if close else f"; there are {', '.join(known)}"


def check_options(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise ValueError for the first option that owner, "the image processor" say, does not have."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ValueError(f"unknown option {shown(name)} of {owner}{did_you_mean(name, known)}")


def read_flag(name: str, value: Any) -> bool:
    """Return True or False, numpy's included. Raises ValueError for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name} must be True or False; got {shown(value)}")


def read_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return a finite float from `least` to `most`, more than `above` and less than `below`, or raise."""
    number = _as_float(value)
    if number is None or not (least <= number <= most and above < number < below):
        limits = _range(least, most, above) + (f" and less than {below:g}" if below < math.inf else "")
        raise ValueError(f"{name} must be a number{limits}; got {shown(value)}")
    return number


def read_whole(name: str, value: Any, least: int | None = None, most: int = 2**53) -> int:
    """Return an int from `least` to `most`, also of a float without a fraction, or raise ValueError."""
    number = value if type(value) is int else _as_float(value)
    if number is None or number != int(number) or not (least is None or least <= number) or number > most:
        limits = _range(-math.inf if least is None else least, most if most < 2**53 else math.inf, -math.inf)
        raise ValueError(f"{name} must be a whole number{limits}; got {shown(value)}")
    return int(number)


def read_array(name: str, values: Any, expected: str, kinds: str = "buif") -> np.ndarray:
    """Return an array of numbers of any shape, of whatever was given.

    kinds: numpy's letters of what it may hold: "b" booleans, "u" and "i" integers, "f" floating point,
    bfloat16 with it. Lists may hold Python's numbers of any size. expected: how the message goes on after
    "must be". Raises ValueError for anything else: text, None, sets, generators, lists of unequal lengths.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and "f" in kinds:  # integers beyond 64 bits, for one
            numbers = [_as_float(value) for value in array.ravel()]
            array = np.array([np.nan if x is None else x for x in numbers]).reshape(array.shape)
            array = array if None not in numbers else np.array(None)
    except Exception:  # of every kind: what converts itself to an array may fail as it likes
        array = np.array(None)
    is_empty_list = array.size == 0 and array.dtype.kind == "f"
    if array.dtype.kind in kinds or is_empty_list or ("f" in kinds and array.dtype.name == "bfloat16"):
        return array
    raise ValueError(f"{name} must be {expected}; got {shown(values)}")


def read_booleans(name: str, values: Any, expected: str) -> np.ndarray:
    """As `read_array`, as booleans: integers that are not 0 are True, but of floating point 0 and 1 alone are
    taken, for logits are no mask.
    """
    array = read_array(name, values, expected)
    if array.dtype.kind not in "bui" and not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name} must be of booleans; got other numbers: of logits, logits > 0 makes a mask")
    return array.astype(bool, copy=False)


def read_float32(name: str, values: Any, expected: str) -> np.ndarray:
    """As `read_array`, as float32; numbers of wider types beyond 1e30 in size become that."""
    array = read_array(name, values, expected)
    if array.dtype.itemsize > 4:
        array = np.clip(array, -1e30, 1e30)
    return array.astype(np.float32, copy=False)


def read_numbers(name: str, values: Any, expected: str = "numbers", most: float = math.inf) -> np.ndarray:
    """Return numbers in lists or arrays of any depth as float64 of that shape, from -most to most.

    Raises ValueError for others, for NaN, booleans and what `read_array` refuses.
    """
    array = read_array(name, values, expected, "uif").astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers; got {shown(values)}")
    if array.size and np.abs(array).max() > most:
        raise ValueError(f"{name} must be numbers of at most {most:g} in size; got {shown(values)}")
    return array


def _as_float(value: Any) -> float | None:
    """A real number as a finite float; None for what is none: bool, text, NaN, infinity, too many digits."""
    if isinstance(value, (bool, str, bytes)) or value is None:
        return None
    try:
        dtype = getattr(value, "dtype", None)
        if dtype is not None:
            if getattr(value, "ndim", 0) > 0 or (dtype.kind not in "uifO" and dtype.name != "bfloat16"):
                return None
            if dtype.kind == "O":
                return _as_float(value.item())
        number = float(value)
    except Exception:  # of every kind: what converts itself to a number may fail as it likes
        return None
    return number if math.isfinite(number) else None


def _range(least: float, most: float, above: float) -> str:
    if above > -math.inf:
        return f" above {above:g}" + (f" and at most {most:g}" if most < math.inf else "")
    if least > -math.inf and most < math.inf:
        return f" from {least:g} to {most:g}"
    if least > -math.inf:
        return f" of at least {least:g}"
    return f" of at most {most:g}" if most < math.inf else ""
