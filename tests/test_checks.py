"""The gate for what comes from outside: what passes, and a short ValueError for everything else."""

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sam2_jax.checks import (
    check_options,
    read_array,
    read_flag,
    read_number,
    read_numbers,
    read_whole,
    shown,
)

DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


class Unhelpful:
    """Fails at whatever it is asked."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no array")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


NO_NUMBERS: list[Any] = [
    None,
    "5",
    b"5",
    "x" * 10_000,
    float("nan"),
    float("inf"),
    10**400,
    1j,
    np.complex128(1),
    np.array("5"),
    np.timedelta64(1, "s"),
    {1, 2},
    {"a": 1},
    (x for x in (1, 2)),
    DEEP,
    [[1], [1, 2]],
    object(),
    Unhelpful(),
]


@pytest.mark.parametrize("value", [*NO_NUMBERS, True, np.True_, np.array(True), [5], np.ones(2)], ids=type)
@pytest.mark.parametrize("read", [read_number, read_whole])
def test_what_is_no_number_is_a_short_sentence(read: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="it must be a .*number; got") as found:
        read("it", value)
    assert len(str(found.value)) < 160


@pytest.mark.parametrize(
    "value", [5, 5.0, np.float32(5), np.array(5), np.array(5, object), Fraction(5), jnp.ones(()) * 5]
)
def test_numbers_of_every_kind_are_numbers(value: Any) -> None:
    assert read_number("it", value) == read_whole("it", value) == 5
    assert type(read_number("it", value)) is float
    assert type(read_whole("it", value)) is int


def test_numbers_have_ranges() -> None:
    assert read_number("it", 10**40) == 1e40
    for value in (-1, 11):
        with pytest.raises(ValueError, match="from 0 to 10; got"):
            read_number("it", value, 0, 10)
    with pytest.raises(ValueError, match="above 0; got 0"):
        read_number("it", 0, above=0)
    for value in (10**40, 1.5, -1):
        with pytest.raises(ValueError, match="a whole number"):
            read_whole("it", value, 0)


@pytest.mark.parametrize("value", [*NO_NUMBERS, [[10**400]], ["5"], [None], [True], [np.nan]], ids=type)
def test_what_are_no_numbers_is_a_short_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match="it must be .*; got") as found:
        read_numbers("it", value)
    assert len(str(found.value)) < 160


def test_numbers_in_lists_and_arrays_are_float64() -> None:
    for values in ([[1, 2]], ((1, 2),), np.array([[1, 2]], ">u2"), jnp.ones((1, 2)).astype("bfloat16")):
        array = read_numbers("it", values)
        assert (array.dtype, array.shape) == (np.float64, (1, 2))
    assert read_numbers("it", [10**40, 3]).tolist() == [1e40, 3]
    assert read_numbers("it", []).shape == (0,)
    with pytest.raises(ValueError, match=r"at most 1e\+09 in size; got \[1, 10{40}\]"):
        read_numbers("it", [1, 10**40], most=1e9)


def test_arrays_are_of_the_kinds_asked_for() -> None:
    assert read_array("it", [[True, False]], "a mask").dtype == bool
    assert read_array("it", [[1, 2]], "integers", "ui").dtype == np.int64
    with pytest.raises(ValueError, match=r"it must be integers; got \[\[0.5\]\]"):
        read_array("it", [[0.5]], "integers", "ui")
    with pytest.raises(ValueError, match="it must be integers; got"):
        read_array("it", [[10**40]], "integers", "ui")


def test_switches_and_names() -> None:
    assert read_flag("it", np.True_) is True
    for value in (None, 1, "yes", Unhelpful()):
        with pytest.raises(ValueError, match="it must be True or False; got"):
            read_flag("it", value)
    with pytest.raises(ValueError, match="unknown option 'sise' of the thing: did you mean size"):
        check_options(["size", "sise"], ["size", "other"], "the thing")


def test_values_are_repeated_in_short() -> None:
    assert shown([1, "a"]) == "[1, 'a']"
    assert shown(float) == "float"
    for value in ("x" * 10**7, [0] * 10**7, DEEP, Unhelpful(), 10**5000, "a\nb"):
        assert len(shown(value)) <= 100
        assert "\n" not in shown(value)
